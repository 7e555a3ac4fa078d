//! An authority that follows another renews what that one issued.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use adit_pki::csr;
use adit_pki::invitation::{Invitation, RenewError};
use adit_pki::revocation::LIST_LIFE;
use adit_pki::{
    Authority, AuthorityParams, CertificateRequest, IssueRequest, Issued, KeyType, Predecessor,
    Reason,
};
use time::Duration;

const DAY: i64 = 86_400;

/// The moment at which everything here begins, Unix time.
const NOW: i64 = 1_800_000_000;

/// A root, and two intermediates of the same name, of which the second follows the first.
struct House {
    folder: tempfile::TempDir,
    root: Authority,
    first: Authority,
}

impl House {
    /// With a first intermediate that is good for so many days.
    fn new(days: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let params = AuthorityParams::new("Example Corp", NOW);
        let root = Authority::create(&folder.path().join("root"), &params, NOW).unwrap();
        let mut params = AuthorityParams::under(&root, "Example Corp", NOW);
        params.not_after = NOW + days * DAY;
        let path = folder.path().join("first");
        let first = Authority::create_under(&root, &path, &params, NOW).unwrap();
        Self {
            folder,
            root,
            first,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn second(&self) -> Authority {
        let params = AuthorityParams::under(&self.root, "Example Corp", NOW);
        Authority::create_under(&self.root, &self.path("second"), &params, NOW).unwrap()
    }

    /// The second, which knows the folder of the first.
    fn following(&self) -> Authority {
        let first = Predecessor::read(&self.path("first/ca.pem")).unwrap();
        self.second().following(vec![first])
    }

    /// The second, which knows only the certificate of the first.
    fn following_a_certificate(&self) -> Authority {
        let copy = self.path("former.pem");
        fs::copy(self.path("first/ca.pem"), &copy).unwrap();
        let first = Predecessor::read(&copy).unwrap();
        self.second().following(vec![first])
    }
}

fn request() -> CertificateRequest {
    let device = csr::make(None, KeyType::Ed25519).unwrap();
    CertificateRequest::from_pem(&device.request_pem).unwrap()
}

fn enrolled(authority: &Authority) -> Issued {
    let invitation = Invitation {
        principal: "alice@example.com".to_owned(),
        groups: vec!["eng".to_owned()],
        validity: Duration::days(90),
        expires: NOW + DAY,
    };
    let code = authority.invite(&invitation, [7; 16], NOW).unwrap();
    authority
        .redeem(code.secret(), &request(), Some("laptop"), NOW)
        .unwrap()
}

fn renew(authority: &Authority, old: &Issued, now: i64) -> Result<Issued, RenewError> {
    authority.renew(&old.certificate_der, &request(), None, now)
}

#[test]
fn what_a_predecessor_issued_is_renewed_with_what_it_says_and_what_nobody_named_is_not() {
    let house = House::new(365);
    let old = enrolled(&house.first);
    let stranger = enrolled(&House::new(365).first);
    for second in [
        House::following as fn(&House) -> Authority,
        House::following_a_certificate,
    ] {
        let second = second(&house);
        let new = renew(&second, &old, NOW + 60 * DAY).unwrap();
        assert_eq!(new.principal, old.principal);
        assert_eq!(new.not_after - old.not_after, 60 * DAY);
        assert!(new.certificate_pem.contains(second.certificate_pem()));
        let entry = second.entries().unwrap().remove(0);
        assert_eq!(
            (entry.serial, &entry.groups[..]),
            (new.serial.clone(), &["eng".to_owned()][..])
        );
        // From now on it is the second's own.
        let next = renew(&second, &new, NOW + 120 * DAY).unwrap();
        assert_eq!(next.not_after - new.not_after, 60 * DAY);
        // Another authority of the same name is another authority.
        let refused = renew(&second, &stranger, NOW + 60 * DAY);
        assert!(matches!(refused, Err(RenewError::Unknown)), "{refused:?}");
        fs::remove_dir_all(house.path("second")).unwrap();
    }
    let refused = renew(&house.second(), &old, NOW + 60 * DAY);
    assert!(matches!(refused, Err(RenewError::Unknown)), "{refused:?}");
}

#[test]
fn what_a_predecessor_revoked_or_its_successor_stopped_is_not_renewed() {
    let house = House::new(365);
    let second = house.following();
    let old = enrolled(&house.first);
    let serials = std::slice::from_ref(&old.serial);
    let later = NOW + 60 * DAY;
    house
        .first
        .revoke(serials, Reason::KeyCompromise, LIST_LIFE, later)
        .unwrap();
    let refused = renew(&second, &old, later);
    assert!(matches!(refused, Err(RenewError::Revoked)), "{refused:?}");

    // Nobody says so at the first, whose folder may be gone; an operator says so at the second.
    let house = House::new(365);
    let second = house.following_a_certificate();
    let old = enrolled(&house.first);
    let reason = Reason::CessationOfOperation;
    let stopped = second.revoke_principal("alice@example.com", reason, LIST_LIFE, later);
    assert!(stopped.unwrap().revoked.is_empty());
    let refused = renew(&second, &old, later);
    assert!(matches!(refused, Err(RenewError::Stopped)), "{refused:?}");
    second
        .issue(&IssueRequest::client("alice@example.com", later), later)
        .unwrap();
    renew(&second, &old, later).unwrap();
}

#[test]
fn what_the_end_of_a_predecessor_cut_short_is_as_long_again_as_it_was_to_be() {
    let house = House::new(60);
    let old = enrolled(&house.first);
    assert_eq!(old.not_after, NOW + 60 * DAY);
    let new = renew(&house.following(), &old, NOW + 50 * DAY).unwrap();
    assert_eq!(new.not_after, NOW + 140 * DAY);
}

#[test]
fn a_file_without_an_authority_names_no_predecessor() {
    let house = House::new(365);
    let leaf = house.path("leaf.pem");
    fs::write(&leaf, enrolled(&house.first).certificate_pem).unwrap();
    let empty = house.path("empty.pem");
    fs::write(&empty, "").unwrap();
    for (path, why) in [
        (leaf, "not one of an authority"),
        (empty, "no certificate"),
        (house.path("none.pem"), "cannot read"),
    ] {
        let error = Predecessor::read(&path).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
