//! Who is at the keyboard: recorded with every certificate so that somebody can be asked about it.
//!
//! A record for colleagues, not evidence: the environment is taken at its word.

use rustix::process::geteuid;
use rustix::system::uname;

/// The operator as `name@host`: the user behind `sudo` if there is one.
pub fn current() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .filter_map(|variable| std::env::var(variable).ok())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| match geteuid() {
            user if user.is_root() => "root".to_owned(),
            user => format!("uid{}", user.as_raw()),
        });
    let host = uname().nodename().to_string_lossy().into_owned();
    // Control characters would reach the terminal of whoever lists the index.
    format!("{name}@{host}")
        .chars()
        .filter(|character| !character.is_control())
        .collect()
}
