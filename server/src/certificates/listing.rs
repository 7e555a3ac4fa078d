//! `adit-server certs`: every certificate there is, in the words of the inventory.
//!
//! Joined are what the gateway has seen, what the authorities whose folders are here have issued, the
//! revocation lists in force, the intermediates above each, the open sessions, and the policy. Without a
//! running gateway the files answer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use adit_core::identity::Principal;
use adit_core::identity::revocation::{Revoked as Entry, Signer};
use adit_core::policy::{Policy, RuleText};
use adit_core::session::UserAgent;
use adit_net::clock;
use adit_net::exit::Failure;
use adit_pki::index::{Entry as Issued, Index, State};
use adit_pki::inventory::{Access, Filter, Refused, Revoked, Row};
use adit_pki::store::{CERTIFICATE, INDEX};
use adit_tunnel::tls::Authorities;
use serde::{Deserialize, Serialize};

use super::issuers::Intermediates;
use super::store::{Known, Source};
use super::{Certificates, path};
use crate::config::{AuthorityConfig, ServerConfig};
use crate::lists;
use crate::load::{self, Loaded};

/// The answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Listing {
    /// The certificates that were asked for, by principal.
    pub rows: Vec<Row>,
    /// When this was true, since 1970.
    pub now: i64,
    /// What a reader should know of it.
    pub notes: Vec<String>,
}

/// A question about certificates with all that counted when it was asked, to be answered where nobody waits for it:
/// of fifty thousand certificates that takes a second.
#[derive(Debug)]
pub struct Question {
    known: Source,
    /// By fingerprint, from where the open sessions come.
    live: BTreeMap<String, String>,
    config: ServerConfig,
    authorities: Arc<Authorities>,
    policy: Arc<Policy>,
    /// Since 1970.
    now: i64,
}

impl Certificates {
    /// Asks by everything that counts at `now`, since 1970. What was learned is written down first.
    ///
    /// # Errors
    /// When what was seen cannot be read.
    pub fn question(&mut self, loaded: &Loaded, now: i64) -> Result<Question, Failure> {
        self.save(now);
        let live = self.live().into_iter();
        Ok(Question {
            known: self.store.source().map_err(|error| unreadable(&error))?,
            live: live
                .map(|(fingerprint, live)| (fingerprint.to_owned(), live.source.clone()))
                .collect(),
            config: loaded.config.clone(),
            authorities: Arc::clone(&loaded.authorities),
            policy: Arc::clone(&loaded.policy),
            now,
        })
    }
}

/// Lists certificates by the files of a gateway that does not run; `what` as in [`Question::answer`].
///
/// # Errors
/// When a file is wrong.
pub fn from_files(
    config: ServerConfig,
    what: Option<&str>,
    filter: &Filter,
) -> Result<Listing, Failure> {
    let question = Question {
        known: Source::File(path(&config.state_directory)),
        live: BTreeMap::new(),
        policy: Arc::new(load::policy(&config)?),
        authorities: Arc::new(load::authorities(&config)?),
        config,
        now: clock::unix_seconds(),
    };
    let mut listing = question.answer(what, filter)?;
    let note = "no gateway runs; this is by its files".to_owned();
    listing.notes.insert(0, note);
    Ok(listing)
}

impl Question {
    /// Lists certificates; `what` is a principal, a serial number or a fingerprint.
    ///
    /// # Errors
    /// When what was seen cannot be read.
    pub fn answer(&self, what: Option<&str>, filter: &Filter) -> Result<Listing, Failure> {
        let mut notes = Vec::new();
        let known = self.known.read().map_err(|error| unreadable(&error))?;
        let known = known.unwrap_or_else(|| {
            let path = path(&self.config.state_directory);
            let path = path.display();
            notes.push(format!(
                "no gateway has seen a certificate yet: there is no {path}"
            ));
            Vec::new()
        });
        let lists = Lists::of(&self.authorities);
        let issued = self.issued(&mut notes);
        let mut rows = BTreeMap::new();
        for known in &known {
            if let Some(row) = self.seen(known, &lists) {
                rows.insert(row.fingerprint.clone(), row);
            }
        }
        for (name, entries) in &issued {
            self.add_issued(&mut rows, name, entries, &lists, &mut notes);
        }
        for row in rows.values_mut() {
            self.revoke_by_key(row);
        }
        self.revoke_below(&mut rows, &known, &issued, &lists);
        let mut rows: Vec<Row> = rows.into_values().collect();
        for row in &mut rows {
            self.add_access(row);
        }
        rows.retain(|row| what.is_none_or(|what| is(row, what)) && filter.takes(row, self.now));
        rows.sort_by(|a, b| {
            let key = |row: &Row| (row.principal.clone(), row.valid_from, row.serial.clone());
            key(a).cmp(&key(b))
        });
        Ok(Listing {
            rows,
            now: self.now,
            notes,
        })
    }

    /// A certificate that the gateway has seen.
    fn seen(&self, known: &Known, lists: &Lists) -> Option<Row> {
        let row = Row::of_certificate(&known.certificate, self.now).ok()?;
        let live = self.live.get(&known.fingerprint);
        let user_agent = known.user_agent.clone();
        let agent = user_agent.as_ref().map(String::as_bytes);
        let agent = agent.and_then(UserAgent::read);
        let mut row = Row {
            principal: known.principal.clone(),
            groups: known.groups.clone(),
            authority: Some(known.authority.clone()),
            device: agent.map(|agent| agent.device().to_owned()),
            user_agent,
            first_seen: Some(known.first_seen),
            last_used: match live {
                Some(_) => Some(self.now),
                None => known.used.as_ref().map(|used| used.at),
            },
            in_use: Some(live.is_some()),
            last_source: match live {
                Some(source) => Some(source.clone()),
                None => known.used.as_ref().map(|used| used.source.clone()),
            },
            sessions: Some(known.sessions),
            refused: known.refused.as_ref().map(|refused| Refused {
                at: refused.at,
                reason: refused.reason.clone(),
                source: refused.source.clone(),
            }),
            ..row
        };
        lists.revoke(&mut row, &known.certificate);
        Some(row)
    }

    /// What the authorities know whose folders are here.
    fn issued(&self, notes: &mut Vec<String>) -> Vec<(&str, Vec<Issued>)> {
        let mut issued = Vec::new();
        for (name, folder) in self.folders() {
            let path = folder.join(INDEX);
            match Index::open_read_only(&path).and_then(|index| index.entries()) {
                Ok(entries) => issued.push((name, entries)),
                Err(error) => {
                    let failure = Failure::environment(&error);
                    notes.push(format!(
                        "what {name} issued and nobody used is missing: {}: {}",
                        path.display(),
                        failure.message()
                    ));
                }
            }
        }
        issued
    }

    /// Adds what an authority knows, and certificates that nobody has used yet.
    fn add_issued(
        &self,
        rows: &mut BTreeMap<String, Row>,
        name: &str,
        entries: &[Issued],
        lists: &Lists,
        notes: &mut Vec<String>,
    ) {
        let mut unlisted = 0;
        for entry in entries {
            // What was seen has been read already.
            if !rows.contains_key(&entry.fingerprint) {
                let Ok(issued) = Row::of_entry(entry, self.now) else {
                    continue;
                };
                let is_client = entry.purpose == adit_pki::Purpose::Client;
                let row = Row {
                    authority: Some(name.to_owned()),
                    in_use: is_client.then_some(false),
                    sessions: is_client.then_some(0),
                    ..issued
                };
                rows.insert(entry.fingerprint.clone(), row);
            }
            let Some(row) = rows.get_mut(&entry.fingerprint) else {
                continue;
            };
            row.issued_by = Some(entry.issued_by.clone());
            row.issued = Some(entry.created);
            if row.device.is_none() {
                row.device.clone_from(&entry.device);
            }
            if let Some(revocation) = &entry.revoked {
                let over = entry.not_after < self.now;
                unlisted += u32::from(!over && !lists.contain(row, &entry.certificate));
                row.revoked = Some(revocation.into());
                row.state = State::Revoked;
            }
        }
        if unlisted > 0 {
            notes.push(format!(
                "{name} has revoked certificates ({unlisted}) that no list says here: bring its newest crl.pem"
            ));
        }
    }

    /// Revokes whoever is under an intermediate that is revoked, as the gateway does.
    fn revoke_below(
        &self,
        rows: &mut BTreeMap<String, Row>,
        known: &[Known],
        issued: &[(&str, Vec<Issued>)],
        lists: &Lists,
    ) {
        let intermediates = self.intermediates(rows, known, issued, lists);
        if !intermediates.are_revoked() {
            return;
        }
        let entries = issued.iter().flat_map(|(_, entries)| entries);
        let entries = entries.map(|entry| (&entry.fingerprint, &entry.certificate));
        let seen = known.iter();
        let seen = seen.map(|known| (&known.fingerprint, &known.certificate));
        for (fingerprint, der) in seen.chain(entries) {
            let Some(row) = rows.get_mut(fingerprint) else {
                continue;
            };
            let authority = row.authority.as_deref().unwrap_or_default();
            if row.revoked.is_none()
                && let Some(revoked) = intermediates.revoked_above(authority, der)
            {
                row.revoked = Some(revoked);
                row.state = State::Revoked;
            }
        }
    }

    /// Every intermediate that is known.
    fn intermediates(
        &self,
        rows: &BTreeMap<String, Row>,
        known: &[Known],
        issued: &[(&str, Vec<Issued>)],
        lists: &Lists,
    ) -> Intermediates {
        let shown = known.iter().flat_map(|known| {
            let issuers = known.issuers.iter();
            issuers.map(|der| (known.authority.as_str(), Cow::Borrowed(der.as_slice())))
        });
        let own = self.folders().into_iter().flat_map(|(name, folder)| {
            let certificates = lists::certificates_in(folder).into_iter();
            certificates.map(move |der| (name, Cow::Owned(der.to_vec())))
        });
        let certified = issued.iter().flat_map(|(name, entries)| {
            let entries = entries.iter();
            entries
                .filter(|entry| entry.purpose == adit_pki::Purpose::Authority)
                .map(|entry| (*name, Cow::Borrowed(entry.certificate.as_slice())))
        });
        // Most clients show the same one.
        let once: BTreeSet<(&str, Cow<'_, [u8]>)> = shown.chain(own).chain(certified).collect();
        let mut all = Intermediates::default();
        for (authority, der) in once {
            let Ok(row) = Row::of_certificate(&der, self.now) else {
                continue;
            };
            let known = rows.get(&row.fingerprint);
            let mut row = Row {
                authority: Some(authority.to_owned()),
                revoked: known.and_then(|known| known.revoked.clone()),
                ..row
            };
            if row.revoked.is_none() {
                lists.revoke(&mut row, &der);
            }
            self.revoke_by_key(&mut row);
            all.add(&der, row);
        }
        all
    }

    /// The folders that are here, each with the authority in whose name it issues.
    fn folders(&self) -> Vec<(&str, &Path)> {
        let authorities = &self.config.authorities;
        let mut folders: Vec<(&str, &Path)> = authorities
            .iter()
            .filter_map(|one| Some((one.rule.name.as_str(), one.folder.as_deref()?)))
            .collect();
        if let Some(enrolment) = &self.config.enrolment {
            let folder = enrolment.folder.as_path();
            // An intermediate's list stands beside that of its root.
            let believes =
                |one: &&AuthorityConfig| one.crls.iter().any(|list| list.starts_with(folder));
            let believer = authorities
                .iter()
                .find(believes)
                .or_else(|| authorities.first());
            // Whose certificates are renewed here issued in the same name.
            let former = enrolment.renews.iter().filter_map(|path| {
                let in_folder = path.file_name() == Some(CERTIFICATE.as_ref());
                path.parent()
                    .filter(|folder| in_folder && folder.join(INDEX).exists())
            });
            for folder in std::iter::once(folder).chain(former) {
                if let Some(one) = believer
                    && !folders.iter().any(|(_, known)| *known == folder)
                {
                    folders.push((&one.rule.name, folder));
                }
            }
        }
        folders
    }

    /// What the operator revoked here, by its key.
    fn revoke_by_key(&self, row: &mut Row) {
        let mut authorities = self.config.authorities.iter();
        let authority = authorities
            .find(|authority| row.authority.as_deref() == Some(authority.rule.name.as_str()));
        let mut keys = authority
            .iter()
            .flat_map(|authority| &authority.revoked_keys);
        if row.revoked.is_none() && keys.any(|key| key.to_string() == row.key_sha256) {
            row.state = State::Revoked;
            row.revoked = Some(Revoked {
                at: None,
                reason: None,
                by: None,
                with: None,
            });
        }
    }

    /// What the policy gives, and the groups it adds.
    fn add_access(&self, row: &mut Row) {
        if row.sessions.is_none() {
            return;
        }
        let mut authorities = self.config.authorities.iter();
        let name = row.authority.clone().unwrap_or_default();
        let is_trusted = authorities.any(|authority| authority.rule.name == name);
        let could_be_used = matches!(row.state, State::Valid | State::NotYetValid);
        let Ok(principal) = Principal::parse(&row.principal) else {
            return;
        };
        let standing = self
            .policy
            .standing(&principal, &name, &row.groups, self.now);
        row.groups = standing.groups;
        let rules = standing.rules.into_iter();
        let rules = rules.filter(|_| is_trusted && could_be_used);
        let rules = rules.map(|RuleText { name, place, text }| Access {
            rule: name,
            place,
            text,
        });
        row.access = Some(rules.collect());
    }
}

/// What is revoked by the lists in force, by authority, issuer and serial number.
struct Lists(BTreeMap<(String, Vec<u8>, String), Entry>);

impl Lists {
    fn of(authorities: &Authorities) -> Self {
        let mut all = BTreeMap::new();
        for authority in authorities.all() {
            for list in authority.lists() {
                for revoked in list.revoked() {
                    let issuer = list.facts().issuer.clone();
                    let key = (authority.name().to_owned(), issuer, revoked.serial.clone());
                    all.insert(key, revoked);
                }
            }
        }
        Self(all)
    }

    fn revoke(&self, row: &mut Row, certificate: &[u8]) {
        if let Some(revoked) = self.get(row, certificate) {
            row.state = State::Revoked;
            row.revoked = Some(Revoked {
                at: Some(revoked.at),
                reason: revoked.reason.map(str::to_owned),
                by: None,
                with: None,
            });
        }
    }

    fn contain(&self, row: &Row, certificate: &[u8]) -> bool {
        self.get(row, certificate).is_some()
    }

    fn get(&self, row: &Row, certificate: &[u8]) -> Option<&Entry> {
        let issuer = Signer::read(certificate)?.issuer;
        let authority = row.authority.clone()?;
        self.0.get(&(authority, issuer, row.serial.clone()))
    }
}

/// Whether a row is the one meant, or one of them.
fn is(row: &Row, what: &str) -> bool {
    let digits = what.replace(':', "").to_ascii_lowercase();
    row.principal == what || row.serial == digits || row.fingerprint == digits
}

fn unreadable(error: &dyn std::error::Error) -> Failure {
    Failure::environment(error).while_doing("cannot read the inventory of certificates")
}

#[cfg(test)]
mod tests {
    use adit_pki::{Authority, AuthorityParams, Credential, IssueRequest, Reason};
    use adit_tunnel::SessionInfo;
    use time::Duration;

    use super::super::store::{Use, tests::seen};
    use super::super::tests::{certificates as in_memory, session};
    use super::*;
    use crate::init::init;

    const POLICY: &str = "[pool]\nv4 = \"10.99.0.0/24\"\n\n[groups]\nstaff = [\"alice@example.com\"]\n\n\
        [[allow]]\nname = \"intranet\"\nwho = [\"group:staff\"]\nto = [\"10.0.0.0/16\"]\n";

    /// The moment of everything here, Unix time.
    const NOW: i64 = 1_800_000_000;

    /// A gateway's directory with an authority in it.
    struct Desk {
        folder: tempfile::TempDir,
        authority: Authority,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let params = AuthorityParams::new("Example Corp", NOW);
            let authority = Authority::create(&folder.path().join("ca"), &params, NOW).unwrap();
            Self { folder, authority }
        }

        fn path(&self) -> &Path {
            self.folder.path()
        }

        fn issue(&self, principal: &str) -> Credential {
            let request = IssueRequest::client(principal, NOW).with_groups(["eng"]);
            self.authority.issue(&request, NOW).unwrap()
        }

        fn list(&self, known: Vec<Known>, change: impl FnOnce(&mut ServerConfig)) -> Listing {
            let text = include_str!("../../../config/server.toml");
            let mut config = ServerConfig::parse(text, &self.path().join("server.toml")).unwrap();
            // There is no intermediate on this desk.
            config.enrolment = None;
            config.authorities[0].crls.truncate(1);
            change(&mut config);
            let authorities = load::authorities(&config).unwrap();
            let policy = Policy::parse(POLICY, "policy.toml").unwrap();
            let question = Question {
                known: Source::Rows(known),
                live: BTreeMap::new(),
                config,
                authorities: Arc::new(authorities),
                policy: Arc::new(policy),
                now: NOW,
            };
            question.answer(None, &Filter::default()).unwrap()
        }
    }

    fn used(issued: &Credential, authority: &str) -> Known {
        Known {
            fingerprint: issued.fingerprint.clone(),
            certificate: issued.certificate_der.clone(),
            principal: issued.principal.clone(),
            authority: authority.to_owned(),
            used: Some(Use {
                at: 1_800_000_000,
                source: "192.0.2.1".to_owned(),
            }),
            ..seen("a", 3, 10)
        }
    }

    #[test]
    fn what_was_issued_and_what_was_seen_is_one_list_without_anything_twice() {
        let desk = Desk::new();
        let (alice, _bob) = (
            desk.issue("alice@example.com"),
            desk.issue("bob@example.com"),
        );
        let gateway = IssueRequest::gateway("vpn.example.com", NOW);
        desk.authority.issue(&gateway, NOW).unwrap();
        let listing = desk.list(vec![used(&alice, "adit")], |_| {});
        assert!(listing.notes.is_empty(), "{:?}", listing.notes);
        let [alice, bob, gateway] = &listing.rows[..] else {
            panic!("{:#?}", listing.rows);
        };
        assert_eq!(alice.principal, "alice@example.com");
        assert_eq!((alice.sessions, alice.in_use), (Some(3), Some(false)));
        assert_eq!(alice.device.as_deref(), Some("laptop"));
        assert_eq!(alice.groups, ["eng", "staff"]);
        assert!(alice.issued_by.is_some() && alice.last_used == Some(1_800_000_000));
        let access = alice.access.as_ref().unwrap();
        assert_eq!(
            (access[0].rule.as_str(), access[0].place.as_str()),
            ("intranet", "policy.toml:7")
        );
        assert_eq!((bob.sessions, bob.last_used), (Some(0), None));
        assert_eq!(bob.access, Some(Vec::new()));
        assert_eq!((gateway.sessions, &gateway.access), (None, &None));
    }

    #[test]
    fn a_question_is_answered_while_the_gateway_goes_on_learning() {
        let desk = Desk::new();
        let etc = desk.path().join("etc");
        let listen = "[::]:443".parse().unwrap();
        init(&etc, &["vpn.example.com".to_owned()], listen).unwrap();
        let loaded = load::load(&etc.join("server.toml")).unwrap();
        let state = crate::state::State::open(&desk.path().join("state")).unwrap();
        for mut certificates in [Certificates::open(&state).unwrap(), in_memory()] {
            let used = |id, issued: &Credential| SessionInfo {
                certificate: issued.certificate_der.as_slice().into(),
                ..session(id, &issued.principal)
            };
            let alice = desk.issue("alice@example.com");
            certificates.opened(&used(1, &alice), NOW);
            let question = certificates.question(&loaded, NOW);
            certificates.closed(&used(1, &alice), NOW);
            certificates.opened(&used(2, &desk.issue("bob@example.com")), NOW);
            certificates.save(NOW);
            let listing = question.unwrap().answer(None, &Filter::default()).unwrap();
            let mut rows = listing.rows.iter();
            let row = rows.find(|row| row.fingerprint == alice.fingerprint);
            // It was so when it was asked.
            assert_eq!(row.unwrap().in_use, Some(true));
            assert!(listing.notes.is_empty(), "{:?}", listing.notes);
        }
    }

    #[test]
    fn the_lists_in_force_count_and_an_authority_that_knows_more_is_told_of() {
        let desk = Desk::new();
        let alice = desk.issue("alice@example.com");
        let known = vec![used(&alice, "adit")];
        let crl = desk.path().join("ca/crl.pem");
        let before = std::fs::read(&crl).unwrap();
        let week = Duration::days(7);
        let list = desk.authority.revoke(
            std::slice::from_ref(&alice.serial),
            Reason::Superseded,
            week,
            NOW,
        );
        list.unwrap();
        // By the list alone, where the folder is elsewhere.
        let row = &desk
            .list(known.clone(), |config| config.authorities[0].folder = None)
            .rows[0];
        let revoked = row.revoked.as_ref().unwrap();
        assert_eq!(
            (row.state, revoked.reason.as_deref()),
            (State::Revoked, Some("superseded"))
        );
        assert_eq!((&revoked.by, &row.access), (&None, &Some(Vec::new())));
        // By both.
        let listing = desk.list(known.clone(), |_| {});
        assert!(listing.notes.is_empty() && listing.rows[0].revoked.as_ref().unwrap().by.is_some());
        // The gateway has not heard of it.
        std::fs::write(&crl, before).unwrap();
        let listing = desk.list(known, |_| {});
        assert_eq!(listing.rows[0].state, State::Revoked);
        assert!(
            listing.notes[0].contains("bring its newest crl.pem"),
            "{:?}",
            listing.notes
        );
    }

    #[test]
    fn who_is_under_a_revoked_intermediate_is_revoked_with_it() {
        let desk = Desk::new();
        let params = AuthorityParams::under(&desk.authority, "Online", NOW);
        let folder = desk.path().join("issuing");
        let online = Authority::create_under(&desk.authority, &folder, &params, NOW).unwrap();
        let issue = |who| online.issue(&IssueRequest::client(who, NOW), NOW).unwrap();
        let (alice, _never_seen) = (issue("alice@example.com"), issue("bob@example.com"));
        let carol = desk.issue("carol@example.com");
        let known = vec![
            Known {
                issuers: vec![online.certificate_der().to_vec()],
                ..used(&alice, "adit")
            },
            used(&carol, "adit"),
        ];
        let with_folder = |config: &mut ServerConfig| {
            // Both folders are of one authority.
            config.authorities.push(AuthorityConfig {
                folder: Some(folder.clone()),
                crls: Vec::new(),
                ..config.authorities[0].clone()
            });
        };
        let states = |listing: &Listing| -> Vec<(String, State)> {
            let rows = listing.rows.iter();
            let clients = rows.filter(|row| row.sessions.is_some());
            clients
                .map(|row| (row.principal.clone(), row.state))
                .collect()
        };
        let before = desk.list(known.clone(), with_folder);
        assert!(
            states(&before)
                .iter()
                .all(|(_, state)| *state == State::Valid)
        );
        let serial = desk.authority.entries().unwrap()[0].serial.clone();
        let week = Duration::days(7);
        let list = desk
            .authority
            .revoke(&[serial], Reason::CaCompromise, week, NOW);
        list.unwrap();
        let after = desk.list(known.clone(), with_folder);
        assert_eq!(
            states(&after),
            [
                ("alice@example.com".to_owned(), State::Revoked),
                ("bob@example.com".to_owned(), State::Revoked),
                ("carol@example.com".to_owned(), State::Valid),
            ]
        );
        // Without any folder the handshake and the list say as much.
        let listing = desk.list(known, |config| config.authorities[0].folder = None);
        let row = &listing.rows[0];
        let revoked = row.revoked.as_ref().unwrap();
        assert_eq!(row.principal, "alice@example.com");
        assert_eq!(
            (row.state, &row.access),
            (State::Revoked, &Some(Vec::new()))
        );
        assert_eq!(revoked.reason.as_deref(), Some("cACompromise"));
        assert_eq!(revoked.with.as_ref(), Some(&row.issuer));
        assert_eq!(listing.rows[1].state, State::Valid);
    }

    #[test]
    fn a_key_that_the_operator_revoked_is() {
        let desk = Desk::new();
        let alice = desk.issue("alice@example.com");
        let known = vec![used(&alice, "adit")];
        let key = desk.list(known.clone(), |_| {}).rows[0].key_sha256.clone();
        let listing = desk.list(known, |config| {
            config.authorities[0]
                .revoked_keys
                .insert(key.parse().unwrap());
        });
        let row = &listing.rows[0];
        assert_eq!(
            (row.state, &row.access),
            (State::Revoked, &Some(Vec::new()))
        );
    }

    #[test]
    fn what_cannot_be_known_is_said_and_the_rest_is_listed() {
        let desk = Desk::new();
        let alice = desk.issue("alice@example.com");
        let broken = seen("b", 1, 1);
        let known = vec![used(&alice, "adit"), broken];
        let listing = desk.list(known, |config| {
            config.authorities[0].folder = Some(desk.path().join("gone"));
        });
        assert_eq!(listing.rows.len(), 1);
        let note = &listing.notes[0];
        assert!(
            note.contains("what adit issued") && note.contains("gone/index.db"),
            "{note}"
        );
    }

    #[test]
    fn an_authority_that_is_no_more_gives_access_to_nothing() {
        let desk = Desk::new();
        let alice = desk.issue("alice@example.com");
        let listing = desk.list(vec![used(&alice, "former")], |config| {
            config.authorities[0].folder = None;
        });
        assert_eq!(listing.rows[0].access, Some(Vec::new()));
        assert_eq!(listing.rows[0].state, State::Valid);
    }

    #[test]
    fn a_certificate_is_found_by_any_of_its_names() {
        let desk = Desk::new();
        let alice = desk.issue("alice@example.com");
        let rows = desk.list(vec![used(&alice, "adit")], |_| {}).rows;
        let colons: Vec<_> = alice
            .serial
            .as_bytes()
            .chunks(2)
            .map(String::from_utf8_lossy)
            .collect();
        for what in [
            "alice@example.com",
            &alice.serial,
            &alice.fingerprint.to_uppercase(),
            &colons.join(":"),
        ] {
            assert!(is(&rows[0], what), "{what}");
        }
        assert!(!is(&rows[0], "alice"));
    }
}
