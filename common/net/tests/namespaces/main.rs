//! The operating-system shell against a real kernel.
//!
//! The whole test program moves into namespaces of its own before the first thread exists: as root, or as any
//! user through a user namespace. Each test then has a network namespace to itself, on a thread of its own:
//! nothing here touches the host, and the tests run in parallel. They need `ip` (iproute2), `ping`
//! (iputils-ping), `nft` (nftables) and `mount`.

#[cfg(target_os = "linux")]
mod crash;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod poll;
#[cfg(target_os = "linux")]
mod routing;
#[cfg(target_os = "linux")]
mod tun;
#[cfg(target_os = "linux")]
mod udp;

#[cfg(target_os = "linux")]
fn main() {
    if crash::is_victim() {
        crash::be_victim();
    }
    let arguments = libtest_mimic::Arguments::from_args();
    if !arguments.list {
        namespace::enter();
    }
    let mut trials = Vec::new();
    trials.extend(tun::trials());
    trials.extend(udp::trials());
    trials.extend(poll::trials());
    trials.extend(host::trials());
    trials.extend(routing::trials());
    trials.extend(crash::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

#[cfg(not(target_os = "linux"))]
fn main() {}
