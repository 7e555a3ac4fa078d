//! Namespaces, and the programs that look at them.

use std::fs;
use std::process::Command;

use libtest_mimic::Trial;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

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
        let thread = std::thread::Builder::new().name("namespace".into());
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
