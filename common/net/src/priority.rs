//! Who goes first when the machine has less time than there is work.

/// Lets every other thread of the machine go before the calling one (nice 5): with two runnable threads
/// it gets a quarter of a core.
pub fn yield_to_others() {
    // On Linux a priority belongs to a thread (setpriority(2)); where it cannot be set, all are equal.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
}

#[cfg(target_os = "linux")]
const NICE: i32 = 5;
