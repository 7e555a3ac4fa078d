//! Namespaces, and the programs that look at them.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags};

/// Moves this process, which must have one thread only, into namespaces in which it is root.
pub(crate) fn enter() {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    if !user.is_root() {
        flags |= UnshareFlags::NEWUSER;
    }
    unshare(flags);
    if !user.is_root() {
        fs::write("/proc/self/setgroups", "deny").expect("setgroups");
        fs::write("/proc/self/uid_map", format!("0 {} 1", user.as_raw())).expect("uid_map");
        fs::write("/proc/self/gid_map", format!("0 {} 1", group.as_raw())).expect("gid_map");
    }
    run("mount --make-rprivate /");
}

/// A test that has a network namespace and a mount namespace to itself, with loopback up.
pub(crate) fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        let thread = thread::Builder::new().name("namespace".into());
        let thread = thread
            .spawn(move || {
                unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS);
                // `/sys/class/net` shows the network namespace it was mounted in.
                run("mount -t sysfs none /sys");
                run("ip link set lo up");
                test();
            })
            .map_err(|error| error.to_string())?;
        thread.join().map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            text.unwrap_or_else(|| "panicked".into()).into()
        })
    })
}

/// One more network namespace, with loopback up: the other end of a wire.
pub(crate) struct Elsewhere(File);

impl Elsewhere {
    pub(crate) fn new() -> Self {
        let namespace = thread::spawn(|| {
            unshare(UnshareFlags::NEWNET);
            run("ip link set lo up");
            File::open("/proc/thread-self/ns/net").expect("the namespace of a thread")
        });
        Self(namespace.join().expect("a namespace"))
    }

    /// Does something over there. Sockets and devices made there stay there.
    pub(crate) fn run<T: Send>(&self, there: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(self.0.as_fd(), kind).expect("moved");
                there()
            });
            thread.join().expect("done")
        })
    }
}

/// The counter `name` of the protocol `Tcp`, `Udp` or `Ip` in the calling thread's namespace.
pub(crate) fn snmp(protocol: &str, name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = (lines.next(), lines.next());
    let mut pairs = names
        .expect("names")
        .split(' ')
        .zip(values.expect("values").split(' '));
    let value = pairs.find(|(found, _)| *found == name);
    value.expect(name).1.parse().expect("a number")
}

/// How many packets the kernel took from the interface, one for each write to a TUN device.
pub(crate) fn packets_from(interface: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/dev").expect("interfaces");
    let counters = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    let packets = counters.expect(interface).split_whitespace().nth(1);
    packets.expect("a counter").parse().expect("a number")
}

/// Waits until something is true that the kernel does in its own time.
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_true() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::yield_now();
    }
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Takes all capabilities from the calling thread.
pub(crate) fn drop_capabilities() {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).expect("capabilities can be dropped");
}

/// Runs a command in the calling thread's namespaces and returns what it prints; it must succeed.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output();
    let output =
        output.unwrap_or_else(|error| panic!("this test needs the program {program}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// Everything of the network a tunnel could leave behind, as text.
pub(crate) fn dump() -> String {
    let commands = [
        "ip rule show",
        "ip -6 rule show",
        "ip route show table all",
        "ip -6 route show table all",
        "ip -oneline address show",
        "nft list ruleset",
    ];
    commands
        .map(|command| format!("{command}\n{}", run(command)))
        .join("\n")
}

/// Reads a kernel setting.
pub(crate) fn sysctl(path: &str) -> String {
    let value = fs::read_to_string(format!("/proc/sys/{path}")).expect("a setting");
    value.trim().to_owned()
}

/// Writes a kernel setting.
pub(crate) fn set_sysctl(path: &str, value: &str) {
    fs::write(format!("/proc/sys/{path}"), value).expect("a setting");
}

fn unshare(flags: UnshareFlags) {
    // SAFETY: the file descriptor table stays shared (no CLONE_FILES), which is all that can be unsound.
    #[allow(unsafe_code)]
    unsafe { rustix::thread::unshare_unsafe(flags) }.expect(
        "namespaces (kernel.unprivileged_userns_clone or user.max_user_namespaces may forbid them)",
    );
}
