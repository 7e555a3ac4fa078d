//! The audit log: one line of JSON for everything an operator may be asked about later.
//!
//! Each line has `time` (RFC 3339, UTC), `event`, and what belongs to it. Names, addresses, serial numbers and
//! counts, no keys and no packets. The control plane writes, so no packet waits for a disk. A line that cannot
//! be written is counted, and the count is written as soon as the disk takes lines again. The system's journal
//! gets the same events in words, by the ordinary log.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use adit_core::admission::diff::Difference;
use adit_core::dataplane::Denial;
use adit_core::policy::Direction;
use adit_core::status::{RulesTraffic, Traffic};
use adit_core::table::leases::LeaseEntry;
use adit_net::clock;
use adit_net::files::{self, FileError};
use adit_tunnel::SessionInfo;
use jiff::Timestamp;
use serde::Serialize;
use tracing::warn;

/// The open log.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: File,
    /// Lines that were not written.
    lost: u64,
    /// Whether the last line may have been cut off.
    torn: bool,
}

/// What happens.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// The gateway carries packets from now on.
    Start {
        /// The program's.
        version: &'static str,
        /// Where clients connect.
        listen: SocketAddr,
    },
    /// The gateway ends.
    Stop,
    /// A session opened.
    Connect {
        /// Which and whose.
        #[serde(flatten)]
        session: Session,
        /// Groups of certificate and policy.
        groups: &'a [String],
    },
    /// A session goes on over a new connection of its client, with what has passed so far.
    Handover {
        /// Its number from now on, and whose it is.
        #[serde(flatten)]
        session: Session,
        /// Its number until now.
        before: u64,
        /// The serial number of the certificate until now.
        serial_before: &'a str,
        /// Groups of certificate and policy.
        groups: &'a [String],
    },
    /// Somebody was refused.
    Refuse {
        /// Where from.
        remote: SocketAddr,
        /// Whose certificate it was, as far as it could be read.
        principal: Option<&'a str>,
        /// Why, as a word for scripts.
        kind: &'static str,
        /// Why, for people.
        reason: String,
        /// Refusals before this one that have no line.
        suppressed: u64,
    },
    /// A session ended.
    Disconnect {
        /// Which and whose.
        #[serde(flatten)]
        session: Session,
        /// Why, in words.
        reason: &'a str,
        /// How long it was open.
        seconds: i64,
        /// What passed.
        traffic: &'a Traffic,
        /// What passed by each rule.
        rules: &'a RulesTraffic,
    },
    /// The policy has refused packets of a session, or for it.
    Denied {
        /// Which and whose.
        #[serde(flatten)]
        session: Session,
        /// What packets.
        kinds: Vec<Kind>,
        /// Packets of other kinds.
        others: u64,
    },
    /// A principal has other inner addresses than before, or none any more.
    Lease {
        /// Whose.
        principal: &'a str,
        /// What it holds.
        addresses: Vec<String>,
        /// What it held.
        before: Vec<String>,
    },
    /// The configuration was read again.
    Reload {
        /// Who asked: `admin`, `signal`, or `revocation-list` when its file changed and nothing else was read.
        by: &'static str,
        /// Why nothing changed.
        error: Option<&'a str>,
        /// What became of the sessions.
        sessions: Option<&'a Difference>,
    },
    /// A revocation list counts that did not before. Sessions that end by it have their own lines.
    Revoke {
        /// Whose, in the configuration.
        authority: &'a str,
        /// Who signed it.
        issuer: &'a str,
        /// Its number.
        list: String,
        /// How many certificates it revokes.
        certificates: usize,
    },
    /// The policy says something else by itself.
    Regrant {
        /// What became of the sessions.
        sessions: &'a Difference,
    },
    /// Somebody was given a code that is worth a certificate.
    Invite {
        /// Who was invited.
        principal: &'a str,
        /// Groups of the certificate.
        groups: &'a [String],
        /// Until when the code is good, Unix time.
        expires: i64,
    },
    /// A code was taken back.
    Withdraw {
        /// Its number.
        invitation: i64,
        /// Who had been invited.
        principal: &'a str,
    },
    /// A code was redeemed for a certificate.
    Enrol {
        /// Where from.
        remote: SocketAddr,
        /// Whose certificate it is.
        principal: &'a str,
        /// Its serial number.
        serial: &'a str,
        /// Its last second, Unix time.
        not_after: i64,
        /// What the client says of itself.
        device: Option<&'a str>,
    },
    /// A certificate was followed by another.
    Renew {
        /// Where from.
        remote: SocketAddr,
        /// Whose certificate it is.
        principal: &'a str,
        /// Serial number of the new one.
        serial: &'a str,
        /// Serial number of the one before.
        serial_before: &'a str,
        /// The new one's last second, Unix time.
        not_after: i64,
        /// What the client says of itself.
        device: Option<&'a str>,
    },
    /// Somebody asked for a certificate and got none.
    EnrolRefused {
        /// Where from.
        remote: SocketAddr,
        /// Whose certificate was to be renewed, if it was that.
        principal: Option<&'a str>,
        /// Why, as a word for scripts: `unknown`, `used`, `expired`, `withdrawn`, `too-many-guesses`,
        /// `bad-request`, `not-renewable`, `not-issuing` or `failed`.
        kind: &'static str,
        /// Why, for people.
        reason: &'a str,
        /// What the client says of itself.
        device: Option<&'a str>,
        /// Refusals before this one that have no line.
        suppressed: u64,
    },
    /// Lines that could not be written.
    Lost {
        /// How many.
        lines: u64,
    },
}

/// Which session, and whose.
#[derive(Clone, Debug, Serialize)]
pub struct Session {
    session: u64,
    principal: String,
    serial: String,
    authority: String,
    remote: SocketAddr,
    addresses: Vec<String>,
    /// What the client says about itself.
    user_agent: Option<String>,
}

/// Packets that the policy denies, and how many.
#[derive(Clone, Debug, Serialize)]
pub struct Kind {
    /// `from-client` or `to-client`.
    direction: &'static str,
    /// The address at the far end, seen from the client.
    far: IpAddr,
    /// The number of the upper-layer protocol.
    protocol: u8,
    /// The destination port, where there is one.
    port: Option<u16>,
    /// Which rule denies them; `null` if no rule allows them.
    rule: Option<String>,
    packets: u64,
}

impl From<&(Denial, u64)> for Kind {
    fn from((denial, packets): &(Denial, u64)) -> Self {
        Self {
            direction: match denial.direction {
                Direction::FromClient => "from-client",
                Direction::ToClient => "to-client",
            },
            far: denial.far,
            protocol: denial.protocol,
            port: denial.port,
            rule: denial.rule.as_ref().map(|rule| rule.name()),
            packets: *packets,
        }
    }
}

impl From<&SessionInfo> for Session {
    fn from(info: &SessionInfo) -> Self {
        Self {
            session: info.id.0,
            principal: info.identity.principal.to_string(),
            serial: info.identity.serial.clone(),
            authority: info.identity.authority.clone(),
            remote: info.remote,
            addresses: info.addresses.iter().map(ToString::to_string).collect(),
            user_agent: info.user_agent.as_ref().map(ToString::to_string),
        }
    }
}

impl Audit {
    /// Opens the log to write at its end.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self {
            path: path.to_owned(),
            file: files::append_private(path)?,
            lost: 0,
            torn: false,
        })
    }

    /// Goes on in the file of the name `path` has now; what was lost stays counted.
    ///
    /// # Errors
    /// When it cannot be opened; then the old file is used.
    pub fn reopen(&mut self, path: &Path) -> Result<(), FileError> {
        self.file = files::append_private(path)?;
        path.clone_into(&mut self.path);
        self.torn = false;
        Ok(())
    }

    /// Writes an event down.
    pub fn write(&mut self, event: &Event<'_>) {
        if self.lost > 0 {
            let lines = self.lost;
            if !self.append(&Event::Lost { lines }) {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if !self.append(event) {
            self.lost += 1;
        }
    }

    /// Writes down whose inner addresses are others.
    pub fn write_leases(&mut self, before: &[LeaseEntry], after: &[LeaseEntry]) {
        for (entry, addresses, before) in lease_changes(before, after) {
            self.write(&Event::Lease {
                principal: entry.principal.as_str(),
                addresses,
                before,
            });
        }
    }

    fn append(&mut self, event: &Event<'_>) -> bool {
        #[derive(Serialize)]
        struct Line<'a> {
            time: String,
            #[serde(flatten)]
            event: &'a Event<'a>,
        }
        let mut line = if self.torn { vec![b'\n'] } else { Vec::new() };
        let time = rfc3339(clock::unix_milliseconds());
        let written = serde_json::to_writer(&mut line, &Line { time, event })
            .map_err(std::io::Error::from)
            .and_then(|()| {
                line.push(b'\n');
                self.file.write_all(&line)
            });
        match written {
            Ok(()) => self.torn = false,
            Err(error) => {
                // Once: the next line that is written tells how many were not.
                if self.lost == 0 {
                    let path = self.path.display();
                    warn!(%path, %error, "the audit log cannot be written; lines are lost");
                }
                self.torn = true;
                return false;
            }
        }
        true
    }
}

/// Entries with other addresses than before, with those of now and then.
fn lease_changes<'a>(
    before: &'a [LeaseEntry],
    after: &'a [LeaseEntry],
) -> Vec<(&'a LeaseEntry, Vec<String>, Vec<String>)> {
    let addresses = |entry: Option<&LeaseEntry>| -> Vec<String> {
        let addresses = entry.into_iter().flat_map(LeaseEntry::addresses);
        addresses.map(|address| address.to_string()).collect()
    };
    let of = |list: &'a [LeaseEntry], entry: &LeaseEntry| {
        let mut list = list.iter();
        list.find(|other| other.principal == entry.principal)
    };
    let present = after.iter().map(|entry| {
        let then = addresses(of(before, entry));
        (entry, addresses(Some(entry)), then)
    });
    let gone = before.iter().filter(|entry| of(after, entry).is_none());
    let gone = gone.map(|entry| (entry, Vec::new(), addresses(Some(entry))));
    present
        .chain(gone)
        .filter(|(_, now, then)| now != then)
        .collect()
}

/// A moment in UTC as RFC 3339 writes it, with milliseconds.
fn rfc3339(unix_milliseconds: i64) -> String {
    let moment = Timestamp::from_millisecond(unix_milliseconds);
    // Out of range is only a clock beyond the year 9999.
    format!("{:.3}", moment.unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use adit_core::identity::Principal;

    use super::*;

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        for (moment, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (1_772_323_200_000, "2026-03-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(moment), text);
        }
    }

    #[test]
    fn only_leases_with_other_addresses_have_a_line() {
        let entry = |name: &str, v4: &str, last_used| LeaseEntry {
            principal: Principal::parse(name).unwrap(),
            v4: Some(v4.parse().unwrap()),
            v6: None,
            last_used,
        };
        let before = [
            entry("a@e.com", "10.0.0.1", 1),
            entry("b@e.com", "10.0.0.2", 1),
            entry("c@e.com", "10.0.0.3", 1),
        ];
        let after = [
            entry("a@e.com", "10.0.0.1", 2),
            entry("b@e.com", "10.0.0.3", 2),
            entry("d@e.com", "10.0.0.4", 2),
        ];
        let changes = lease_changes(&before, &after);
        let changes = changes
            .iter()
            .map(|(entry, now, then)| format!("{} {now:?} {then:?}", entry.principal));
        assert_eq!(
            changes.collect::<Vec<_>>(),
            [
                "b@e.com [\"10.0.0.3\"] [\"10.0.0.2\"]",
                "d@e.com [\"10.0.0.4\"] []",
                "c@e.com [] [\"10.0.0.3\"]",
            ]
        );
    }

    #[test]
    fn lines_that_were_lost_are_counted_by_the_first_that_is_written() {
        let directory = std::env::temp_dir().join(format!("adit-audit-{}", std::process::id()));
        let path = directory.join("audit.jsonl");
        let mut audit = Audit::open(Path::new("/dev/full")).unwrap();
        audit.write(&Event::Stop);
        audit.write(&Event::Stop);
        audit.reopen(&path).unwrap();
        audit.write(&Event::Stop);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["event"], "lost");
        assert_eq!(lines[0]["lines"], 2);
        assert_eq!(lines[1]["event"], "stop");
    }
}
