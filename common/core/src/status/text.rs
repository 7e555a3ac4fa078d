//! Status for people: a table for the gateway, a list for the client.

use std::fmt::Write as _;

use super::{ClientStatus, GatewayStatus, Traffic};

/// The gateway's sessions, one line each, and what was dropped.
#[must_use]
pub fn render_gateway(status: &GatewayStatus) -> String {
    let mut rows = vec![
        [
            "PRINCIPAL",
            "ADDRESSES",
            "REMOTE",
            "SINCE",
            "FROM CLIENT",
            "TO CLIENT",
            "MTU",
            "RTT",
            "EXPIRES",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for session in &status.sessions {
        rows.push(vec![
            session.principal.clone(),
            session.addresses.join(","),
            session.remote.clone(),
            duration(status.now - session.since),
            bytes(session.traffic.sent_bytes),
            bytes(session.traffic.received_bytes),
            session.mtu.to_string(),
            format!("{:.1} ms", session.rtt_ms),
            format!("in {}", duration(session.ends - status.now)),
        ]);
    }
    let mut text = format!(
        "adit-server {}, {}, {}, {}\n\n",
        status.version,
        status.listen,
        counted(status.sessions.len(), "session"),
        counted(status.connections, "connection"),
    );
    for warning in &status.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    if !status.warnings.is_empty() {
        text.push('\n');
    }
    text.push_str(&table(&rows));
    for session in &status.sessions {
        let _ = write!(
            text,
            "\n{}: {} with {}, certificate {} of {}",
            session.principal,
            session.cipher,
            session.key_exchange,
            session.certificate.serial,
            session.certificate.authority,
        );
        let _ = write!(
            text,
            ", {} packets from the client, {} to it",
            session.traffic.sent_packets, session.traffic.received_packets
        );
        if let Some(user_agent) = &session.user_agent {
            let _ = write!(text, ", by {user_agent}");
        }
        if !session.groups.is_empty() {
            let _ = write!(text, ", groups {}", session.groups.join(" "));
        }
        if !session.ipv6
            && session
                .addresses
                .iter()
                .any(|address| address.contains(':'))
        {
            text.push_str(", IPv6 withheld: the path carries less than 1280 bytes");
        }
        text.push_str(&drops(&session.traffic));
        text.push('\n');
    }
    let total = drops(&status.total);
    if !total.is_empty() {
        let _ = writeln!(text, "\nall{total}");
    }
    if status.refused_by_device > 0 {
        let _ = writeln!(text, "\n{}", refused(status.refused_by_device));
    }
    text
}

/// The client's tunnel, a line for each fact.
#[must_use]
pub fn render_client(status: &ClientStatus) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<14}{value}");
        }
    };
    let optional = |value: &Option<String>| value.clone().unwrap_or_default();
    line("state", status.state.clone());
    line("gateway", optional(&status.gateway));
    line("last error", optional(&status.last_error));
    line("interface", status.interface.clone());
    line("addresses", status.addresses.join(", "));
    line("routes", status.routes.join(", "));
    let cipher = match (&status.cipher, &status.key_exchange) {
        (Some(cipher), Some(group)) => format!("{cipher} with {group}"),
        _ => String::new(),
    };
    line("cipher", cipher);
    line("certificate", certificate(status));
    line("renewal", renewal(status));
    line(
        "mtu",
        status.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
    );
    let rtt = status.rtt_ms.map(|rtt| format!("{rtt:.1} ms"));
    line("round trip", rtt.unwrap_or_default());
    let traffic = &status.traffic;
    line(
        "sent",
        format!(
            "{} in {} packets",
            bytes(traffic.sent_bytes),
            traffic.sent_packets
        ),
    );
    line(
        "received",
        format!(
            "{} in {} packets",
            bytes(traffic.received_bytes),
            traffic.received_packets
        ),
    );
    line(
        "dropped",
        drops(traffic).trim_start_matches(", dropped ").to_owned(),
    );
    if status.refused_by_device > 0 {
        line("device", refused(status.refused_by_device));
    }
    text
}

/// Which certificate it is, and what happens when its time is over.
fn certificate(status: &ClientStatus) -> String {
    let Some(certificate) = &status.certificate else {
        return String::new();
    };
    let left = duration(certificate.not_after - status.now);
    format!(
        "{}; the session ends with it, in {left}",
        certificate.serial
    )
}

/// What becomes of a certificate that the session has not moved to.
fn renewal(status: &ClientStatus) -> String {
    match (&status.renewed_certificate, &status.renewal_error) {
        (None, None) => String::new(),
        (None, Some(error)) => format!("not used: {error}"),
        (Some(renewed), None) => format!("moving over to certificate {}", renewed.serial),
        (Some(renewed), Some(error)) => format!(
            "not moved over to certificate {} yet: {error}",
            renewed.serial
        ),
    }
}

fn refused(packets: u64) -> String {
    format!("the TUN device refused {packets} packets")
}

pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn drops(traffic: &Traffic) -> String {
    if traffic.drops.is_empty() {
        return String::new();
    }
    let each: Vec<String> = traffic
        .drops
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    format!(", dropped {}", each.join(", "))
}

/// "1 session", "2 sessions".
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Bytes with a binary unit and one digit after the point.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "";
    for name in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = name;
    }
    format!("{value:.1} {unit}")
}

/// Seconds in the two largest units.
pub(super) fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days}d {hours}h")
    } else if hours > 0 {
        format!("{hours}h {minutes}m")
    } else if minutes > 0 {
        format!("{minutes}m {}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{ClientCertificate, SessionStatus};

    #[test]
    fn the_table_lines_up_and_says_what_was_dropped() {
        let status = GatewayStatus {
            version: "1.2.3".into(),
            listen: "[::]:443".into(),
            now: 1000,
            sessions: vec![SessionStatus {
                principal: "alice@example.com".into(),
                addresses: vec!["10.99.0.2".into(), "fd00::2".into()],
                remote: "192.0.2.1:4000".into(),
                since: 939,
                ends: 1000 + 86_400 * 30,
                traffic: Traffic {
                    received_bytes: 1_500_000,
                    drops: [("too-big".to_owned(), 3)].into(),
                    ..Default::default()
                },
                ..Default::default()
            }],
            ..Default::default()
        };
        let text = render_gateway(&status);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2].find("SINCE"), lines[3].find("1m 1s"));
        assert!(text.contains("1.4 MiB"), "{text}");
        assert!(text.contains("in 30d 0h"), "{text}");
        assert!(text.contains("dropped 3 too-big"), "{text}");
        assert!(text.contains("IPv6 withheld"), "{text}");
    }

    #[test]
    fn a_client_tells_when_its_session_ends_and_what_its_renewal_waits_for() {
        let certificate = |serial: &str, not_after| {
            Some(ClientCertificate {
                serial: serial.into(),
                not_after,
            })
        };
        let mut status = ClientStatus {
            now: 1000,
            certificate: certificate("0a", 1090),
            ..Default::default()
        };
        let text = render_client(&status);
        let expected = "certificate   0a; the session ends with it, in 1m 30s\n";
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("renewal"), "{text}");
        status.renewal_error = Some("no answer".into());
        let text = render_client(&status);
        assert!(
            text.contains("renewal       not used: no answer\n"),
            "{text}"
        );
        status.renewed_certificate = certificate("0b", 9000);
        let text = render_client(&status);
        let expected = "renewal       not moved over to certificate 0b yet: no answer\n";
        assert!(text.contains(expected), "{text}");
        status.renewal_error = None;
        let text = render_client(&status);
        assert!(
            text.contains("renewal       moving over to certificate 0b\n"),
            "{text}"
        );
    }

    #[test]
    fn a_client_without_a_session_shows_its_state_and_why() {
        let text = render_client(&ClientStatus {
            state: "waiting".into(),
            last_error: Some("no answer".into()),
            ..Default::default()
        });
        assert!(text.contains("state         waiting\n"), "{text}");
        assert!(text.contains("last error    no answer\n"), "{text}");
        assert!(!text.contains("gateway"), "{text}");
    }
}
