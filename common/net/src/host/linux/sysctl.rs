//! Kernel settings below `/proc/sys`, which are those of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::HostError;

/// `None` when the kernel lacks the setting, as without IPv6.
pub(super) fn read(path: &str) -> Option<String> {
    let value = fs::read_to_string(full(path)).ok()?;
    Some(value.trim().to_owned())
}

pub(super) fn write(path: &str, value: &str) -> Result<(), HostError> {
    fs::write(full(path), value).map_err(|source| HostError::Sysctl {
        name: path.replace('/', "."),
        value: value.to_owned(),
        source,
    })
}

/// Whether IPv6 can be used on new interfaces.
pub(super) fn has_ipv6() -> bool {
    let disabled = |scope: &str| read(&format!("net/ipv6/conf/{scope}/disable_ipv6"));
    // Without the directory the kernel has no IPv6; `default` is what a new device gets.
    disabled("default").as_deref() == Some("0") && disabled("all").as_deref() == Some("0")
}

/// The interfaces a setting of IPv4 exists for, `all` and `default` excluded.
pub(super) fn interfaces_v4() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(full("net/ipv4/conf"))? {
        if let Ok(name) = entry?.file_name().into_string()
            && name != "all"
            && name != "default"
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn full(path: &str) -> PathBuf {
    Path::new("/proc/sys").join(path)
}
