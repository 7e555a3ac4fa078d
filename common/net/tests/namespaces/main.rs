//! The operating-system shell against a real kernel.
//!
//! The whole test program moves into namespaces of its own before the first thread exists: as root, or as any
//! user through a user namespace. Each test then has a network namespace to itself, on a thread of its own:
//! nothing here touches the host. One test runs at a time: a program that one test starts holds copies of the
//! descriptors of every other until its exec, and a device closed meanwhile is not gone yet. They need `ip`
//! (iproute2), `ping` (iputils-ping), `nft` (nftables) and `mount`; without them the ring says so, and fails only
//! where `CI=true`.

#[cfg(target_os = "linux")]
mod bridge;
#[cfg(target_os = "linux")]
mod crash;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod moving;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod offload;
#[cfg(target_os = "linux")]
mod poll;
#[cfg(target_os = "linux")]
mod random;
#[cfg(target_os = "linux")]
mod routing;
#[cfg(target_os = "linux")]
mod segmentation;
#[cfg(target_os = "linux")]
mod tun;
#[cfg(target_os = "linux")]
mod udp;

#[cfg(target_os = "linux")]
fn main() {
    if crash::is_victim() {
        crash::be_victim();
    }
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    if let Some(program) = ["ip", "ping", "nft", "mount"]
        .into_iter()
        .find(|program| !is_installed(program))
    {
        let name = format!("namespaces [not run: `{program}` is not installed]");
        let required = std::env::var_os("CI").is_some_and(|value| value == "true");
        let trial = libtest_mimic::Trial::test(name, || Err("a program is missing".into()));
        libtest_mimic::run(&arguments, vec![trial.with_ignored_flag(!required)]).exit();
    }
    if !arguments.list {
        namespace::enter();
    }
    let mut trials = Vec::new();
    trials.extend(tun::trials());
    trials.extend(offload::trials());
    trials.extend(segmentation::trials());
    trials.extend(udp::trials());
    trials.extend(poll::trials());
    trials.extend(host::trials());
    trials.extend(routing::trials());
    trials.extend(crash::trials());
    trials.extend(moving::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

#[cfg(target_os = "linux")]
fn is_installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|directory| directory.join(program).is_file())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
