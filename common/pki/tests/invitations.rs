//! Invitations and renewals: one code, one certificate, whatever happens at the same time.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use adit_pki::csr::{self, RequestError};
use adit_pki::index::State;
use adit_pki::invitation::{Code, Invitation, RedeemError, RenewError};
use adit_pki::revocation::LIST_LIFE;
use adit_pki::{
    Authority, AuthorityError, AuthorityParams, CertificateRequest, IssueRequest, Issued, KeyType,
    Reason,
};
use time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY: i64 = 86_400;

/// The moment at which everything here happens, Unix time.
const NOW: i64 = 1_800_000_000;

fn request() -> CertificateRequest {
    let device = csr::make(None, KeyType::Ed25519).unwrap();
    CertificateRequest::from_pem(&device.request_pem).unwrap()
}

fn to_alice() -> Invitation {
    Invitation {
        principal: "alice@example.com".to_owned(),
        groups: vec!["eng".to_owned(), "ops".to_owned()],
        validity: Duration::days(90),
        expires: NOW + DAY,
    }
}

fn invited(authority: &Authority) -> Code {
    authority.invite(&to_alice(), [7; 16], NOW).unwrap()
}

fn enrolled(authority: &Authority) -> Issued {
    let code = invited(authority);
    authority
        .redeem(code.secret(), &request(), Some("laptop"), NOW)
        .unwrap()
}

fn ephemeral() -> Authority {
    Authority::ephemeral("Example Corp", NOW).unwrap()
}

fn create(folder: &Path) -> Authority {
    Authority::create(folder, &AuthorityParams::new("Example Corp", NOW), NOW).unwrap()
}

#[test]
fn a_code_gets_what_the_invitation_says() {
    let authority = ephemeral();
    let code: Code = invited(&authority).to_string().parse().unwrap();
    assert_eq!(code.pin(), &[7; 16]);
    let request = request();
    let issued = authority
        .redeem(code.secret(), &request, Some("alice's laptop"), NOW)
        .unwrap();
    let (_, certificate) = X509Certificate::from_der(&issued.certificate_der).unwrap();
    assert_eq!(certificate.public_key().raw, request.public_key_der());
    let entry = authority.entries().unwrap().pop().unwrap();
    assert_eq!(entry.principal, "alice@example.com");
    assert_eq!(entry.groups, ["eng", "ops"]);
    assert_eq!(entry.device.as_deref(), Some("alice's laptop"));
    assert_eq!(entry.state(NOW), State::Valid);
    assert!((entry.not_after - NOW - 90 * DAY).abs() < 60);
    assert!(authority.invitations(NOW).unwrap().is_empty());
}

#[test]
fn a_code_is_good_once() {
    let authority = ephemeral();
    let code = invited(&authority);
    let first = request();
    let issued = authority.redeem(code.secret(), &first, None, NOW).unwrap();
    let again = authority.redeem(code.secret(), &request(), None, NOW);
    assert!(matches!(again, Err(RedeemError::Used)), "{again:?}");
    // The answer was lost, and the same device asks again.
    let same = authority.redeem(code.secret(), &first, None, NOW).unwrap();
    assert_eq!(same.certificate_pem, issued.certificate_pem);
    assert_eq!(authority.entries().unwrap().len(), 1);
    let late = authority.redeem(code.secret(), &first, None, NOW + 2 * DAY);
    assert!(matches!(late, Err(RedeemError::Used)), "{late:?}");
    authority
        .revoke(&[issued.serial], Reason::KeyCompromise, LIST_LIFE, NOW)
        .unwrap();
    let revoked = authority.redeem(code.secret(), &first, None, NOW);
    assert!(matches!(revoked, Err(RedeemError::Used)), "{revoked:?}");
}

#[test]
fn unknown_expired_and_withdrawn_codes_get_nothing() {
    let authority = ephemeral();
    let code = invited(&authority);
    let redeem = |secret: &[u8; 16], at: i64| authority.redeem(secret, &request(), None, at);
    assert!(matches!(redeem(&[0; 16], NOW), Err(RedeemError::Unknown)));
    let late = redeem(code.secret(), to_alice().expires + 60);
    assert!(matches!(late, Err(RedeemError::Expired)), "{late:?}");
    let open = authority.invitations(NOW).unwrap();
    assert_eq!(
        (open.len(), open[0].principal.as_str()),
        (1, "alice@example.com")
    );
    assert!(authority.invitations(NOW + 2 * DAY).unwrap().is_empty());
    assert!(authority.withdraw(open[0].number, NOW).unwrap());
    assert!(!authority.withdraw(open[0].number, NOW).unwrap());
    let withdrawn = redeem(code.secret(), NOW);
    assert!(
        matches!(withdrawn, Err(RedeemError::Withdrawn)),
        "{withdrawn:?}"
    );
    assert!(authority.entries().unwrap().is_empty());
}

#[test]
fn a_request_for_more_is_refused_and_leaves_the_code_as_it_was() {
    let authority = ephemeral();
    let code = invited(&authority);
    let bob = csr::make(Some("bob@example.com"), KeyType::Ed25519).unwrap();
    let bob = CertificateRequest::from_pem(&bob.request_pem).unwrap();
    let refused = authority.redeem(code.secret(), &bob, None, NOW);
    let asks = RequestError::AsksForMore("the common name `bob@example.com`".to_owned());
    assert!(matches!(refused, Err(RedeemError::Request(error)) if error == asks));
    authority
        .redeem(code.secret(), &request(), None, NOW)
        .unwrap();
}

#[test]
fn a_device_may_call_itself_anything_and_what_fits_is_kept() {
    let authority = ephemeral();
    let said = format!("a\nb{}", "c".repeat(100));
    let code = invited(&authority);
    authority
        .redeem(code.secret(), &request(), Some(&said), NOW)
        .unwrap();
    let kept = authority.entries().unwrap()[0].device.clone();
    assert_eq!(kept, Some(format!("ab{}", "c".repeat(62))));
}

#[test]
fn what_could_not_be_issued_is_no_invitation() {
    let authority = ephemeral();
    for change in [
        (|invitation: &mut Invitation| invitation.principal = "no name".to_owned()) as fn(&mut _),
        |invitation| invitation.groups = vec!["a b".to_owned()],
        |invitation| invitation.validity = Duration::ZERO,
        |invitation| invitation.expires = 1,
    ] {
        let mut invitation = to_alice();
        change(&mut invitation);
        assert!(
            authority.invite(&invitation, [0; 16], NOW).is_err(),
            "{invitation:?}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let root = create(&folder.path().join("root"));
    let params = AuthorityParams::under(&root, "Example Corp", NOW);
    let online =
        Authority::create_under(&root, &folder.path().join("online"), &params, NOW).unwrap();
    let mut site = to_alice();
    site.principal = "branch.example.com".to_owned();
    let refused = online.invite(&site, [0; 16], NOW);
    assert!(
        matches!(refused, Err(AuthorityError::ExcludedName)),
        "{refused:?}"
    );
    assert!(online.invitations(NOW).unwrap().is_empty());
    assert_eq!(enrolled(&online).authority_pem, root.certificate_pem());
}

#[test]
fn the_index_keeps_no_code() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("ca");
    let code = invited(&create(&folder));
    let content = std::fs::read(folder.join("index.db")).unwrap();
    let holds = |needle: &[u8]| content.windows(needle.len()).any(|part| part == needle);
    assert!(holds(b"alice@example.com"));
    assert!(!holds(code.secret()));
    assert!(!holds(code.to_string().as_bytes()));
}

#[test]
fn of_ten_devices_with_one_code_one_gets_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("ca");
    let code = invited(&create(&folder));
    let results: Vec<_> = std::thread::scope(|scope| {
        let devices: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    let authority = Authority::open(&folder).unwrap();
                    authority.redeem(code.secret(), &request(), None, NOW)
                })
            })
            .collect();
        devices
            .into_iter()
            .map(|device| device.join().unwrap())
            .collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let used = |result: &&Result<_, _>| matches!(result, Err(RedeemError::Used));
    assert_eq!(results.iter().filter(used).count(), 9);
    assert_eq!(
        Authority::open(&folder).unwrap().entries().unwrap().len(),
        1
    );
}

#[test]
fn a_renewed_certificate_says_the_same_for_as_long() {
    let authority = ephemeral();
    let old = enrolled(&authority);
    let later = NOW + 60 * DAY;
    let request = request();
    let new = authority
        .renew(&old.certificate_der, &request, None, later)
        .unwrap();
    let entries = authority.entries().unwrap();
    let [first, second] = &entries[..] else {
        panic!("{entries:?}");
    };
    assert_eq!(second.serial, new.serial);
    assert_eq!(
        (
            &first.principal,
            &first.names,
            &first.groups,
            &first.device,
            &first.issued_by
        ),
        (
            &second.principal,
            &second.names,
            &second.groups,
            &second.device,
            &second.issued_by
        ),
    );
    assert_eq!(
        second.not_after - second.not_before,
        first.not_after - first.not_before
    );
    assert_eq!(second.created, later);
    let (_, certificate) = X509Certificate::from_der(&new.certificate_der).unwrap();
    assert_eq!(certificate.public_key().raw, request.public_key_der());
    // And so on, a year and more.
    let third = authority.renew(
        &new.certificate_der,
        &request,
        Some("new"),
        later + 60 * DAY,
    );
    assert_eq!(third.unwrap().not_after - new.not_after, 60 * DAY);
    assert_eq!(
        authority.entries().unwrap()[2].device.as_deref(),
        Some("new")
    );
}

#[test]
fn what_is_not_ours_or_not_usable_is_not_renewed() {
    let authority = ephemeral();
    let old = enrolled(&authority);
    let renew = |old: &Issued, at: i64| authority.renew(&old.certificate_der, &request(), None, at);
    let foreign = enrolled(&ephemeral());
    assert!(matches!(renew(&foreign, NOW), Err(RenewError::Unknown)));
    assert!(matches!(
        renew(&old, NOW + 91 * DAY),
        Err(RenewError::Expired)
    ));
    assert!(matches!(renew(&old, NOW - 1000), Err(RenewError::Expired)));
    let early = authority.renew(&old.certificate_der, &request(), None, old.not_before + 1);
    assert!(matches!(early, Err(RenewError::NothingGained)), "{early:?}");
    let bob = csr::make(Some("bob@example.com"), KeyType::Ed25519).unwrap();
    let bob = CertificateRequest::from_pem(&bob.request_pem).unwrap();
    let refused = authority.renew(&old.certificate_der, &bob, None, NOW + DAY);
    assert!(
        matches!(refused, Err(RenewError::Request(_))),
        "{refused:?}"
    );
    authority
        .revoke(
            std::slice::from_ref(&old.serial),
            Reason::KeyCompromise,
            LIST_LIFE,
            NOW,
        )
        .unwrap();
    assert!(matches!(renew(&old, NOW + DAY), Err(RenewError::Revoked)));
    assert_eq!(authority.entries().unwrap().len(), 1);
}

#[test]
fn a_revoked_principal_keeps_neither_certificates_nor_codes() {
    let authority = ephemeral();
    let old = enrolled(&authority);
    let open = invited(&authority);
    let bob = authority
        .issue(&IssueRequest::client("bob@example.com", NOW), NOW)
        .unwrap();
    let stopped = authority
        .revoke_principal("alice@example.com", Reason::KeyCompromise, LIST_LIFE, NOW)
        .unwrap();
    assert_eq!((stopped.revoked.len(), stopped.withdrawn), (1, 1));
    assert_eq!(stopped.list.unwrap().entries, 1);
    let redeemed = authority.redeem(open.secret(), &request(), None, NOW);
    assert!(
        matches!(redeemed, Err(RedeemError::Withdrawn)),
        "{redeemed:?}"
    );
    let renewed = authority.renew(&old.certificate_der, &request(), None, NOW + DAY);
    assert!(matches!(renewed, Err(RenewError::Revoked)), "{renewed:?}");
    authority
        .renew(&bob.certificate_der, &request(), None, NOW + DAY)
        .unwrap();
    // An operator may begin anew.
    let new = enrolled(&authority);
    authority
        .renew(&new.certificate_der, &request(), None, NOW + DAY)
        .unwrap();
    let nobody =
        authority.revoke_principal("carol@example.com", Reason::Unspecified, LIST_LIFE, NOW);
    assert_eq!(nobody.unwrap().list, None);
}

#[test]
fn the_end_of_the_authority_shortens_and_then_ends_renewals() {
    let mut params = AuthorityParams::new("Example Corp", NOW);
    params.not_after = NOW + 100 * DAY;
    let authority = Authority::ephemeral_with(&params).unwrap();
    let old = enrolled(&authority);
    let later = NOW + 60 * DAY;
    let new = authority
        .renew(&old.certificate_der, &request(), None, later)
        .unwrap();
    assert_eq!(new.not_after, authority.not_after());
    let last = authority.renew(&new.certificate_der, &request(), None, later + DAY);
    assert!(matches!(last, Err(RenewError::NothingGained)), "{last:?}");
}

#[test]
fn a_revocation_and_renewals_at_once_leave_nothing_usable() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("ca");
    let authority = create(&folder);
    for _ in 0..5 {
        let old = enrolled(&authority);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let authority = Authority::open(&folder).unwrap();
                    let mut newest = old.certificate_der.clone();
                    for day in 1..6 {
                        let at = NOW + day;
                        match authority.renew(&newest, &request(), None, at) {
                            Ok(issued) => newest = issued.certificate_der,
                            Err(RenewError::Revoked) => break,
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
            scope.spawn(|| {
                let authority = Authority::open(&folder).unwrap();
                authority
                    .revoke_principal("alice@example.com", Reason::KeyCompromise, LIST_LIFE, NOW)
                    .unwrap();
            });
        });
        let entries = authority.entries().unwrap();
        let list = authority.list().unwrap().unwrap();
        assert!(entries.iter().all(|entry| entry.revoked.is_some()));
        assert_eq!(list.entries, entries.len());
    }
}
