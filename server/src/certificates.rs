//! The gateway's inventory: which certificates it has seen, used by whom, from where, on which device.
//!
//! Learned from handshakes and sessions alone, whoever issued the certificates. The control plane hears of
//! them, and writes them down at most once a second; nothing that carries packets waits for it. A certificate
//! that is refused is known too if one of the authorities signed it, and of those only so many.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_core::close::Refusal;
use adit_core::identity::Identity;
use adit_core::session::UserAgent;
use adit_core::status::GatewayStatus;
use adit_pki::description::fingerprint;
use adit_tunnel::{Holder, SessionId, SessionInfo};
use tracing::warn;

mod expiry;
mod issuers;
mod listing;
mod store;

pub use expiry::{Reminders, Warning, warnings};
pub use listing::{Listing, Question, from_files};
pub use store::StoreError;

use store::{Known, Store, Use};

use crate::state::State;

/// What is known of certificates, and what happened since it was saved.
#[derive(Debug)]
pub struct Certificates {
    store: Store,
    /// By fingerprint, to be written.
    pending: BTreeMap<String, Known>,
    /// By number.
    sessions: BTreeMap<SessionId, Live>,
    /// When it was tried to write last.
    written: Option<Instant>,
    /// Whether that failed, which is told once.
    failing: bool,
}

/// An open session.
#[derive(Clone, Debug)]
struct Live {
    fingerprint: String,
    identity: Identity,
    certificate: Arc<[u8]>,
    issuers: Arc<[Vec<u8>]>,
    source: String,
    user_agent: Option<UserAgent>,
}

impl Certificates {
    /// Goes on where the last run stopped. What cannot be kept on the disk is known until the gateway ends.
    ///
    /// # Errors
    /// When there is not even memory for it.
    pub fn open(state: &State) -> Result<Self, StoreError> {
        let path = path(state.directory());
        let store = match Store::open(&path) {
            Ok(store) => store,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                warn!(
                    path = %path.display(),
                    %error,
                    cause,
                    "what is learned of certificates will be forgotten when the gateway ends"
                );
                Store::in_memory()?
            }
        };
        Ok(Self {
            store,
            pending: BTreeMap::new(),
            sessions: BTreeMap::new(),
            written: None,
            failing: false,
        })
    }

    /// A session began at `now`, Unix time.
    pub fn opened(&mut self, session: &SessionInfo, now: i64) {
        let live = Live {
            fingerprint: fingerprint(&session.certificate),
            identity: session.identity.clone(),
            certificate: Arc::clone(&session.certificate),
            issuers: Arc::clone(&session.issuers),
            source: source(session.remote),
            user_agent: session.user_agent.clone(),
        };
        let known = self.used(&live, now);
        known.sessions += 1;
        self.sessions.insert(session.id, live);
    }

    /// A session goes on with another certificate, and under another number, at `now`, Unix time.
    pub fn handed_over(&mut self, before: SessionId, session: &SessionInfo, now: i64) {
        if let Some(live) = self.sessions.remove(&before) {
            self.used(&live, now);
        }
        self.opened(session, now);
    }

    /// A session ended at `now`, Unix time.
    pub fn closed(&mut self, session: &SessionInfo, now: i64) {
        if let Some(mut live) = self.sessions.remove(&session.id) {
            live.source = source(session.remote);
            self.used(&live, now);
        }
    }

    /// Somebody was refused at `now`, Unix time, with a certificate that an authority signed.
    pub fn refused(&mut self, remote: SocketAddr, holder: &Holder, refusal: &Refusal, now: i64) {
        let fingerprint = fingerprint(&holder.certificate);
        let shown = (&*holder.certificate, &*holder.issuers);
        let known = self.seen(&fingerprint, &holder.identity, shown, now);
        known.refused = Some(store::Refusal {
            at: now,
            reason: refusal.kind.text().to_owned(),
            source: source(remote),
        });
    }

    /// Sessions that are open use their certificates until `now`, Unix time: what a gateway that is killed forgets
    /// is what happened since the last call.
    pub fn in_use(&mut self, status: &GatewayStatus, now: i64) {
        for session in &status.sessions {
            let Some(mut live) = self.sessions.get(&SessionId(session.id)).cloned() else {
                continue;
            };
            // A laptop that changes its network keeps its session.
            if let Ok(remote) = session.remote.parse() {
                live.source = source(remote);
            }
            self.used(&live, now);
            self.sessions.insert(SessionId(session.id), live);
        }
    }

    /// Writes down what is new, unless that was done within the last second; `unix` is the calendar's time.
    pub fn save_in_time(&mut self, now: Instant, unix: i64) {
        let rested = |written| now.saturating_duration_since(written) >= BETWEEN_WRITES;
        if !self.pending.is_empty() && self.written.is_none_or(rested) {
            self.written = Some(now);
            self.save(unix);
        }
    }

    /// Writes down what is new at `now`, Unix time. What cannot be written is kept, and tried again.
    pub fn save(&mut self, now: i64) {
        if self.pending.is_empty() {
            return;
        }
        let written = self.store.write(self.pending.values(), now);
        match written {
            Ok(()) => {
                self.pending.clear();
                self.failing = false;
            }
            Err(error) => {
                if !self.failing {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    warn!(%error, cause, "the inventory of certificates was not saved; it is tried again");
                }
                self.failing = true;
                while self.pending.len() > MAX_PENDING {
                    self.pending.pop_first();
                }
            }
        }
    }

    /// Goes on in another state directory, with all that is known. What cannot be moved stays where it is, and is
    /// gone on with there. `now` is Unix time.
    pub fn move_to(&mut self, state: &State, now: i64) {
        self.save(now);
        let path = path(state.directory());
        match self.store.copy_to(&path).and_then(|()| Store::open(&path)) {
            Ok(store) => self.store = store,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                warn!(path = %path.display(), %error, cause, "the inventory of certificates stays where it was");
            }
        }
    }

    /// By fingerprint, where the open sessions are.
    fn live(&self) -> BTreeMap<&str, &Live> {
        let sessions = self.sessions.values();
        sessions
            .map(|live| (live.fingerprint.as_str(), live))
            .collect()
    }

    fn used(&mut self, live: &Live, now: i64) -> &mut Known {
        let shown = (&*live.certificate, &*live.issuers);
        let known = self.seen(&live.fingerprint, &live.identity, shown, now);
        known.used = Some(Use {
            at: now,
            source: live.source.clone(),
        });
        if let Some(user_agent) = &live.user_agent {
            known.user_agent = Some(user_agent.to_string());
        }
        known
    }

    fn seen(
        &mut self,
        fingerprint: &str,
        identity: &Identity,
        (certificate, with): (&[u8], &[Vec<u8>]),
        now: i64,
    ) -> &mut Known {
        let known = self.pending.entry(fingerprint.to_owned());
        let known = known.or_insert_with(|| Known {
            fingerprint: fingerprint.to_owned(),
            certificate: certificate.to_vec(),
            issuers: issuers::above(certificate, with),
            principal: String::new(),
            authority: String::new(),
            groups: Vec::new(),
            first_seen: now,
            sessions: 0,
            used: None,
            user_agent: None,
            refused: None,
        });
        known.principal = identity.principal.to_string();
        known.authority.clone_from(&identity.authority);
        known.groups.clone_from(&identity.groups);
        known
    }
}

/// The name of its file in the state directory.
pub const FILE: &str = "certificates.db";

/// The file of a gateway with this state directory.
fn path(state_directory: &Path) -> PathBuf {
    state_directory.join(FILE)
}

/// Where somebody comes from. Ports say nothing of a device.
fn source(remote: SocketAddr) -> String {
    remote.ip().to_canonical().to_string()
}

/// A storm of connections is one write a second.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);
/// Certificates that wait for a disk to take writes again: some megabytes.
const MAX_PENDING: usize = 5000;

#[cfg(test)]
mod tests {
    use adit_core::close::RefusalKind;
    use adit_core::identity::Principal;
    use adit_core::status::SessionStatus;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    pub(super) fn session(id: u64, name: &str) -> SessionInfo {
        SessionInfo {
            id: SessionId(id),
            identity: Identity {
                principal: Principal::parse(name).unwrap(),
                groups: vec!["eng".to_owned()],
                authority: "adit".to_owned(),
                serial: "01".to_owned(),
                not_before: 0,
                not_after: i64::MAX,
            },
            certificate: name.as_bytes().into(),
            issuers: [].into(),
            user_agent: Some(UserAgent::of_host("0.1.0", "linux", "laptop-7")),
            groups: Vec::new(),
            addresses: Vec::new(),
            remote: "[::ffff:192.0.2.1]:4000".parse().unwrap(),
            since: 0,
        }
    }

    pub(super) fn certificates() -> Certificates {
        Certificates {
            store: Store::in_memory().unwrap(),
            pending: BTreeMap::new(),
            sessions: BTreeMap::new(),
            written: None,
            failing: false,
        }
    }

    #[test]
    fn sessions_of_one_certificate_are_counted_and_the_last_source_is_kept() {
        let mut certificates = certificates();
        let mut alice = session(1, "alice@example.com");
        certificates.opened(&alice, NOW);
        certificates.save(NOW);
        certificates.opened(&session(2, "alice@example.com"), NOW);
        assert_eq!(certificates.live().len(), 1);
        alice.remote = "198.51.100.7:1".parse().unwrap();
        certificates.closed(&alice, NOW);
        certificates.save(NOW);
        let known = certificates.store.all().unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!((known[0].sessions, known[0].groups.len()), (2, 1));
        assert_eq!(known[0].used.as_ref().unwrap().source, "198.51.100.7");
        assert_eq!(
            known[0].user_agent.as_deref(),
            Some("adit/0.1.0 (linux; laptop-7)")
        );
    }

    #[test]
    fn an_open_session_that_moves_is_followed() {
        let mut certificates = certificates();
        certificates.opened(&session(1, "alice@example.com"), NOW);
        let status = |id, remote: &str| GatewayStatus {
            sessions: vec![SessionStatus {
                id,
                remote: remote.to_owned(),
                ..SessionStatus::default()
            }],
            ..GatewayStatus::default()
        };
        certificates.in_use(&status(7, "203.0.113.1:1"), NOW);
        certificates.in_use(&status(1, "203.0.113.9:1"), NOW);
        certificates.save(NOW);
        let known = certificates.store.all().unwrap();
        assert_eq!(known[0].used.as_ref().unwrap().source, "203.0.113.9");
        assert_eq!(known[0].sessions, 1);
    }

    #[test]
    fn a_refusal_is_known_and_is_no_use() {
        let mut certificates = certificates();
        let info = session(1, "lost@example.com");
        let holder = Holder {
            identity: info.identity,
            certificate: info.certificate,
            issuers: info.issuers,
            user_agent: None,
        };
        let refusal = Refusal::new(RefusalKind::CertificateRevoked, "");
        for _ in 0..1000 {
            certificates.refused(info.remote, &holder, &refusal, NOW);
        }
        assert_eq!(certificates.pending.len(), 1);
        certificates.save(NOW);
        let known = certificates.store.all().unwrap().remove(0);
        assert_eq!((known.sessions, known.used), (0, None));
        let refused = known.refused.unwrap();
        assert_eq!(refused.reason, "the certificate was revoked");
        assert_eq!(refused.source, "192.0.2.1");
    }

    #[test]
    fn a_storm_is_one_write_a_second() {
        let mut certificates = certificates();
        let start = Instant::now();
        certificates.opened(&session(1, "alice@example.com"), NOW);
        certificates.save_in_time(start, NOW);
        certificates.opened(&session(2, "bob@example.com"), NOW);
        certificates.save_in_time(start, NOW);
        assert_eq!(certificates.store.all().unwrap().len(), 1);
        certificates.save_in_time(start + BETWEEN_WRITES, NOW);
        assert_eq!(certificates.store.all().unwrap().len(), 2);
    }
}
