//! Who goes first when the machine has less time than there is work.

/// Lets every other thread of the machine go before the calling one (nice 10): beside a busy one on the same
/// core it gets a tenth of it.
pub fn yield_to_others() {
    set_nice(10);
}

/// Lets the packet threads go before the calling one (nice 5): beside a busy one on the same core it gets a quarter of
/// it. Threads that it starts afterwards begin with the same.
pub fn yield_to_packets() {
    set_nice(5);
}

/// On Linux a priority belongs to a thread (setpriority(2)); where it cannot be set, all are equal.
#[cfg(target_os = "linux")]
fn set_nice(nice: i32) {
    let _ = rustix::process::setpriority_process(None, nice);
}

#[cfg(not(target_os = "linux"))]
fn set_nice(_nice: i32) {}
