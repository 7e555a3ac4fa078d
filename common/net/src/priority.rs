//! Who goes first when the machine has less time than there is work.

/// Lets every other thread of the machine go before the calling one (nice 10): beside a busy one on the same
/// core it gets a tenth of it.
pub fn yield_to_others() {
    // On Linux a priority belongs to a thread (setpriority(2)); where it cannot be set, all are equal.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
}

#[cfg(target_os = "linux")]
const NICE: i32 = 10;
