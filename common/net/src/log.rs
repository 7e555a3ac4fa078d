//! Logging to standard error, for people and the system's journal.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Starts logging. `verbosity` counts `-v`: 0 tells what a user would notice, 1 how our own code got there, 2
/// everything. `RUST_LOG` overrules it. A second call changes nothing.
pub fn init(verbosity: u8) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives(verbosity)));
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .with_target(verbosity > 0);
    // The system's journal writes the time itself.
    let started = if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().try_init()
    } else {
        lines.try_init()
    };
    // It fails only when logging is set up already.
    let _ = started;
}

fn directives(verbosity: u8) -> &'static str {
    match verbosity {
        // The protocol libraries report every peer's mistake as a warning of their own.
        0 => "info,quinn_proto=error,quinn_udp=error,rustls=error",
        1 => {
            "info,adit=debug,adit_core=debug,adit_tunnel=debug,adit_net=debug,adit_server=debug,adit_client=debug,adit_pki=debug"
        }
        _ => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_verbosity_is_understood() {
        for verbosity in 0..=3 {
            directives(verbosity)
                .parse::<EnvFilter>()
                .expect("valid directives");
        }
    }
}
