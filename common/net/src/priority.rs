//! Who goes first when the machine has less time than there is work.
//!
//! A priority belongs to a thread (setpriority(2)). What the system does not allow is left as it is: then all go at
//! the priority the process was started with, which is slower and nothing else.

/// Lets the calling thread, which moves packets, go before what the machine does besides (nice −5).
///
/// Needs root, CAP_SYS_NICE or a limit (`LimitNICE=-5` in a systemd unit).
pub fn go_first() {
    set(PACKETS);
}

/// Lets every other thread of the machine go before the calling one (nice 5): beside a busy packet thread on the same
/// core it gets a tenth of it.
pub fn yield_to_others() {
    set(HANDSHAKES);
}

fn set(nice: i32) {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, nice);
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}

/// Three times the weight of an ordinary thread. A tunnel is a pipe: while its thread waits for a core, the programs that
/// send and receive through it soon wait too, and a core idles. More than five steps gained nothing.
const PACKETS: i32 = -5;
/// Ten steps, a tenth of the weight, behind the packets.
const HANDSHAKES: i32 = 5;
