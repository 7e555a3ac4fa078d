//! Problem bodies (RFC 9457): how a refusal travels in an HTTP response.
//!
//! The gateway writes `type`, `title`, `status` and `detail`. The client reads `type` and `detail`
//! and treats them as what they are: text from outside, cut to a length and without control
//! characters before a person sees it.

use serde_json::{Value, json};

use crate::close::{Refusal, RefusalKind};

/// The media type of a problem body.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// The body for a refusal.
pub(super) fn of_refusal(refusal: &Refusal) -> Vec<u8> {
    let kind = &refusal.kind;
    encode(
        kind.http_status(),
        kind.problem_type(),
        kind.text(),
        &refusal.detail,
    )
}

/// A body for a response that is not one of our refusals.
pub(super) fn plain(status: u16, title: &str, detail: &str) -> Vec<u8> {
    // RFC 9457 §4.2.1: the problem has no meaning beyond its status code.
    encode(status, "about:blank", title, detail)
}

/// What a response that is no success means to the client.
pub(super) fn to_refusal(status: u16, body: &[u8]) -> Refusal {
    let problem: Option<Value> = serde_json::from_slice(body).ok();
    // RFC 9457 §3.1: members of the wrong type are ignored.
    let member = |name: &str| problem.as_ref()?.get(name)?.as_str().map(presentable);
    let kind = member("type").and_then(|name| RefusalKind::from_problem_type(&name));
    let detail = member("detail").or_else(|| member("title"));
    match (kind, detail) {
        (Some(kind), detail) => Refusal {
            kind,
            detail: detail.unwrap_or_default(),
        },
        (None, detail) => {
            let kind = match status {
                401 | 403 | 407 => RefusalKind::NoAccess,
                404 => RefusalKind::NotFound,
                501 => RefusalKind::NotConnectIp,
                // Whoever stands before the gateway may fare better later.
                408 | 425 | 429 | 500..=599 => RefusalKind::Unreachable,
                _ => RefusalKind::NotConnectIp,
            };
            let said = detail
                .map(|detail| format!(": {detail}"))
                .unwrap_or_default();
            Refusal {
                kind,
                detail: format!("the gateway answered HTTP status {status}{said}"),
            }
        }
    }
}

fn encode(status: u16, kind: &str, title: &str, detail: &str) -> Vec<u8> {
    json!({ "type": kind, "title": title, "status": status, "detail": detail })
        .to_string()
        .into_bytes()
}

fn presentable(text: &str) -> String {
    text.chars()
        .filter(|&character| !is_hidden(character))
        .take(MAX_TEXT)
        .collect()
}

/// Control characters and those that turn the direction of the text around them.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

/// The longest body that is read; longer ones are cut and then not understood.
pub(super) const MAX_BODY: usize = 8 * 1024;
/// A few lines on a terminal.
const MAX_TEXT: usize = 500;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_refusal_survives_the_trip() {
        let refusal = Refusal {
            kind: RefusalKind::NoAccess,
            detail: "eve \"x\" <é>".into(),
        };
        let status = refusal.kind.http_status();
        assert_eq!(to_refusal(status, &of_refusal(&refusal)), refusal);
    }

    #[test]
    fn what_is_no_problem_body_is_reported_by_its_status() {
        for body in [&b""[..], b"<html>", b"[1]", b"{\"type\": 7}", b"\xff"] {
            let refusal = to_refusal(503, body);
            assert_eq!(refusal.kind, RefusalKind::Unreachable);
            assert_eq!(refusal.detail, "the gateway answered HTTP status 503");
        }
        assert_eq!(to_refusal(404, b"").kind, RefusalKind::NotFound);
        let refusal = to_refusal(501, &plain(501, "Not Implemented", "no such protocol"));
        assert_eq!(
            refusal.detail,
            "the gateway answered HTTP status 501: no such protocol"
        );
    }

    #[test]
    fn text_from_the_gateway_cannot_drive_a_terminal() {
        let kind = RefusalKind::NoAccess.problem_type();
        let body = json!({ "type": kind, "detail": format!("\u{1b}[2J{}", "a".repeat(9000)) });
        let refusal = to_refusal(403, body.to_string().as_bytes());
        assert!(refusal.detail.starts_with("[2Ja"));
        assert_eq!(refusal.detail.len(), MAX_TEXT);
    }

    proptest! {
        #[test]
        fn random_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..200), status: u16) {
            let _ = to_refusal(status, &body);
        }
    }
}
