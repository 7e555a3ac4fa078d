//! The inventory's one vocabulary: what is known of a certificate, which of them are asked for, and
//! how they are written.
//!
//! `adit-ca list` knows what was issued, `adit-server certs` what was seen; both say it in the same
//! [`Row`]s. A row is an answer: what is true at the moment it is made for. Nothing is verified here.
//!
//! ```
//! use adit_pki::inventory::{Filter, Format, Row};
//! use adit_pki::{Authority, IssueRequest};
//!
//! let now = 1_800_000_000;
//! let authority = Authority::ephemeral("Example Corp", now)?;
//! let alice = IssueRequest::client("alice@example.com", now).with_groups(["eng"]);
//! let alice = authority.issue(&alice, now)?;
//! let now = alice.not_before.max(0) + 3600;
//! let row = Row::of_certificate(&alice.certificate_der, now).expect("it was just made");
//! assert!(Filter { groups: vec!["eng".into()], ..Filter::default() }.takes(&row, now));
//! assert!(Format::default().render(&[row], now).contains("alice@example.com"));
//! # Ok::<(), adit_pki::AuthorityError>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::description::{self, DescriptionError};
use crate::index::{Entry, State};
use crate::revocation::Revocation;

mod csv;
mod filter;
mod format;
mod moment;
mod text;

pub use filter::Filter;
pub use format::Format;
pub use text::Summary;

/// Everything that is known of a certificate. What nobody knows is `None` or empty. The names of the
/// fields are those of the JSON and of the columns of the CSV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The holder.
    pub principal: String,
    /// Whether it can be used.
    pub state: State,
    /// Hexadecimal digits.
    pub serial: String,
    /// SHA-256 of the certificate in hexadecimal digits.
    pub fingerprint: String,
    /// What it is for: client, gateway, authority.
    pub purpose: String,
    /// The groups that the certificate names; at a gateway also those that the policy adds.
    pub groups: Vec<String>,
    /// The alternative names, each with its kind: email:alice@example.com.
    pub names: Vec<String>,
    /// The holder's whole name (RFC 4514).
    pub subject: String,
    /// The whole name of the authority that signed it.
    pub issuer: String,
    /// What that authority is called in the gateway's configuration.
    pub authority: Option<String>,
    /// The operator who had it issued, name@host.
    pub issued_by: Option<String>,
    /// When that was.
    #[serde(with = "moment::optional")]
    pub issued: Option<i64>,
    /// First second of validity, Unix time.
    #[serde(with = "moment")]
    pub valid_from: i64,
    /// Last second of validity, Unix time.
    #[serde(with = "moment")]
    pub expires: i64,
    /// Whole days until then; negative afterwards.
    pub days_left: i64,
    /// When, why and by whom it was revoked, if it was.
    pub revoked: Option<Revoked>,
    /// Kind and size of the key.
    pub key: String,
    /// SHA-256 of the public key in hexadecimal digits, by which a key can be revoked.
    pub key_sha256: String,
    /// The device that uses it.
    pub device: Option<String>,
    /// What the client there says about itself.
    pub user_agent: Option<String>,
    /// When the gateway saw it first.
    #[serde(with = "moment::optional")]
    pub first_seen: Option<i64>,
    /// When it was used last: the end of its last session, or the present.
    #[serde(with = "moment::optional")]
    pub last_used: Option<i64>,
    /// Whether a session is open with it; `None` where nobody looked.
    pub in_use: Option<bool>,
    /// The outer address from which it was used last.
    pub last_source: Option<String>,
    /// How many sessions there have been with it; `None` where nobody looked.
    pub sessions: Option<u64>,
    /// When, why and from where it was refused last, if it was.
    pub refused: Option<Refused>,
    /// What it gives access to: the rules of the policy that count now. `None` where there is no policy.
    pub access: Option<Vec<Access>>,
}

/// That a certificate was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// When, if it is known.
    #[serde(with = "moment::optional")]
    pub at: Option<i64>,
    /// Why, by its name in RFC 5280 §5.3.1, if it is known.
    pub reason: Option<String>,
    /// The operator who did it, if it is known.
    pub by: Option<String>,
    /// The whole name of the intermediate above it (RFC 4514) if that one was revoked, and this one with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<String>,
}

/// That a gateway refused a certificate. Refused in the handshake, it may have been shown by anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// When.
    #[serde(with = "moment")]
    pub at: i64,
    /// Why, in words.
    pub reason: String,
    /// From which outer address.
    pub source: String,
}

/// A rule of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Its name, or "allow at policy.toml:12".
    pub rule: String,
    /// File and line.
    pub place: String,
    /// What it says, in one line.
    pub text: String,
}

impl From<&Revocation> for Revoked {
    fn from(revocation: &Revocation) -> Self {
        Self {
            at: Some(revocation.at),
            reason: Some(revocation.reason.to_string()),
            by: Some(revocation.by.clone()),
            with: None,
        }
    }
}

impl Row {
    /// What a certificate in DER says of itself, at `now`, Unix time.
    ///
    /// # Errors
    /// When it is not a certificate.
    pub fn of_certificate(der: &[u8], now: i64) -> Result<Self, DescriptionError> {
        let facts = description::Facts::read(der)?;
        Ok(Self {
            principal: facts.principal,
            state: State::at(facts.valid_from, facts.expires, now),
            serial: facts.serial,
            fingerprint: description::fingerprint(der),
            purpose: facts.purpose,
            groups: facts.groups,
            names: facts.names,
            subject: facts.subject,
            issuer: facts.issuer,
            authority: None,
            issued_by: None,
            issued: None,
            valid_from: facts.valid_from,
            expires: facts.expires,
            days_left: days(facts.expires - now),
            revoked: None,
            key: facts.key,
            key_sha256: facts.key_sha256,
            device: None,
            user_agent: None,
            first_seen: None,
            last_used: None,
            in_use: None,
            last_source: None,
            sessions: None,
            refused: None,
            access: None,
        })
    }

    /// What the index of an authority knows of a certificate, at `now`, Unix time.
    ///
    /// # Errors
    /// When what the index holds is not a certificate.
    pub fn of_entry(entry: &Entry, now: i64) -> Result<Self, DescriptionError> {
        let row = Self::of_certificate(&entry.certificate, now)?;
        Ok(Self {
            principal: entry.principal.clone(),
            state: entry.state(now),
            purpose: entry.purpose.to_string(),
            groups: entry.groups.clone(),
            issued_by: Some(entry.issued_by.clone()),
            issued: Some(entry.created),
            revoked: entry.revoked.as_ref().map(Revoked::from),
            device: entry.device.clone(),
            ..row
        })
    }

    /// When the certificate was used last, or might have been first. Unix time.
    fn idle_since(&self) -> i64 {
        let begun = self.first_seen.or(self.issued).unwrap_or(self.valid_from);
        self.last_used.unwrap_or(begun)
    }

    /// Whether it could be used and was not for so many days. Where nobody looks, as for gateways, it is not.
    fn is_unused(&self, days: u32, now: i64) -> bool {
        self.state == State::Valid
            && self.in_use == Some(false)
            && now.saturating_sub(self.idle_since()) >= i64::from(days) * DAY
    }

    /// Whether it could be used, now or later, and will end within so many days.
    fn is_expiring(&self, days: u32, now: i64) -> bool {
        matches!(self.state, State::Valid | State::NotYetValid)
            && self.expires.saturating_sub(now) <= i64::from(days) * DAY
    }
}

/// Whole days, towards the past: a certificate that ended an hour ago has -1 left.
fn days(seconds: i64) -> i64 {
    seconds.div_euclid(DAY)
}

/// Seconds.
const DAY: i64 = 86_400;

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    /// The moment for which all rows of the tests are made.
    pub(crate) const NOW: i64 = 1_800_000_000;

    /// Rows of all kinds, consistent in what a row's state depends on.
    pub(crate) fn row() -> impl Strategy<Value = Row> {
        let text = || "[ -~äß,\"\n=+@-]{0,12}";
        let moment = || NOW - 400 * DAY..NOW + 400 * DAY;
        let past = || NOW - 400 * DAY..=NOW;
        let access =
            (text(), text(), text()).prop_map(|(rule, place, text)| Access { rule, place, text });
        let who = (
            text(),
            "[0-9a-f]{1,40}",
            vec("[ab]", 0..3),
            vec(text(), 0..3),
            prop_oneof!["client", "gateway"],
        );
        let life = (moment(), 0..800 * DAY, of(past()), of(text()), of(text()));
        let gone = (
            of((of(past()), of(text()), of(text()), of(text()))),
            of((past(), text(), text())),
        );
        let used = (
            of(past()),
            of(past()),
            of(any::<bool>()),
            of(any::<u64>()),
            of(text()),
            of(text()),
        );
        (who, life, gone, used, of(vec(access, 0..3))).prop_map(
            |(
                (principal, serial, groups, names, purpose),
                (valid_from, life, issued, issued_by, authority),
                (revoked, refused),
                (first_seen, last_used, in_use, sessions, last_source, device),
                access,
            )| Row {
                state: match revoked {
                    Some(_) => State::Revoked,
                    None => State::at(valid_from, valid_from + life, NOW),
                },
                fingerprint: serial.repeat(2),
                subject: format!("CN={principal}"),
                principal,
                serial,
                purpose,
                groups,
                names,
                issuer: "CN=Example".to_owned(),
                authority,
                issued_by,
                issued,
                valid_from,
                expires: valid_from + life,
                days_left: days(valid_from + life - NOW),
                revoked: revoked.map(|(at, reason, by, with)| Revoked {
                    at,
                    reason,
                    by,
                    with,
                }),
                key: "Ed25519".to_owned(),
                key_sha256: "00".repeat(32),
                user_agent: device.clone(),
                device,
                first_seen,
                last_used,
                in_use,
                last_source,
                sessions,
                refused: refused.map(|(at, reason, source)| Refused { at, reason, source }),
                access,
            },
        )
    }

    #[test]
    fn days_left_are_whole_and_below_zero_as_soon_as_it_is_over() {
        let counted = [2 * DAY, 2 * DAY - 1, 0, -1, -DAY, -DAY - 1].map(days);
        assert_eq!(counted, [2, 1, 0, -1, -1, -2]);
    }

    #[test]
    fn the_index_adds_who_issued_it_and_who_took_it_back() {
        let authority = crate::Authority::ephemeral("Example Corp", 1_800_000_000).unwrap();
        let request =
            crate::IssueRequest::client("alice@example.com", 1_800_000_000).with_groups(["eng"]);
        let issued = authority.issue(&request, 1_800_000_000).unwrap();
        let entry = Entry {
            certificate: issued.certificate_der.clone(),
            revoked: Some(Revocation {
                at: NOW,
                reason: crate::Reason::KeyCompromise,
                by: "olga@host".to_owned(),
            }),
            ..crate::index::tests::entry(&issued.serial)
        };
        let row = Row::of_entry(&entry, NOW).unwrap();
        assert_eq!(row.state, State::Revoked);
        assert_eq!(row.names, ["email:alice@example.com"]);
        assert_eq!(row.issued_by.as_deref(), Some("root@host"));
        let revoked = row.revoked.unwrap();
        assert_eq!(revoked.reason.as_deref(), Some("keyCompromise"));
        assert_eq!(row.fingerprint, issued.fingerprint);
        assert!(Row::of_certificate(b"no certificate", NOW).is_err());
    }

    proptest! {
        #[test]
        fn json_is_read_back_as_it_was_written(rows in vec(row(), 0..4)) {
            let json = Format { json: true, csv: false }.render(&rows, NOW);
            let read: Vec<Row> = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read, rows);
        }
    }
}
