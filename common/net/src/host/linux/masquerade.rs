//! Masquerading through a table of our own, made and removed by `nft` in one transaction each.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use ipnet::IpNet;

use crate::host::{Family, HostError};

/// Makes the table, or replaces it. The kernel keeps the interface by its number: another name changes nothing.
pub(super) fn make(table: &str, interface: &str, sources: &[IpNet]) -> Result<(), HostError> {
    let mut rules = String::new();
    for (family, keyword) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let sources: Vec<_> = sources
            .iter()
            .filter(|source| Family::of(source) == family)
            .map(ToString::to_string)
            .collect();
        if !sources.is_empty() {
            let sources = sources.join(", ");
            rules += &format!(
                "        {keyword} saddr {{ {sources} }} oif != \"{interface}\" masquerade\n"
            );
        }
    }
    let script = format!(
        "table inet {table}\n\
         delete table inet {table}\n\
         table inet {table} {{\n    \
             chain postrouting {{\n        \
                 type nat hook postrouting priority 100; policy accept;\n\
         {rules}    }}\n\
         }}\n"
    );
    run(table, &script)
}

/// Removes the table; one that does not exist is removed already.
pub(super) fn remove(table: &str) -> Result<(), HostError> {
    run(
        table,
        &format!("table inet {table}\ndelete table inet {table}\n"),
    )
}

fn run(table: &str, script: &str) -> Result<(), HostError> {
    let failed = |source: io::Error| HostError::Refused {
        action: "run nft".into(),
        source,
    };
    let mut child = spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that exits before reading says why on its standard error.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(HostError::Nft {
        table: table.into(),
        message: message.lines().next().unwrap_or("no message").trim().into(),
    })
}

fn spawn() -> Result<std::process::Child, HostError> {
    // A daemon's PATH often lacks the directories of system administration.
    for program in ["nft", "/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft"] {
        let spawned = Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match spawned {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(HostError::Refused {
                    action: format!("run {program}"),
                    source,
                });
            }
        }
    }
    Err(HostError::NoNft)
}
