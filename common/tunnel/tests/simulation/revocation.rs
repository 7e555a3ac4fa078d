//! Revoked certificates, at the handshake and in the middle of a session, and lists that are not to be believed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_core::close::RefusalKind;
use adit_core::identity::{self, revocation::ListError};
use adit_tunnel::ClientEvent;
use adit_tunnel::tls::{
    Algorithms, Authority, ClientAuth, Credentials, CrlPolicy, KeyHash, ListRefusal, TlsError,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, CrlIssuingDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ED25519, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use time::OffsetDateTime;

use super::POLICY;
use super::link::Conditions;
use super::packets;
use super::pki::Pki;
use super::world::{Revoked, START, World};

const SECOND: Duration = Duration::from_secs(1);
const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@example.com";

/// An authority made for one test, whose lists the test can sign.
type Root = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = day(-1);
    params.not_after = day(365);
    params
}

fn ca_params(name: &str, serial: u64) -> CertificateParams {
    let mut params = params(name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

fn root(name: &str) -> Root {
    CertifiedIssuer::self_signed(ca_params(name, 1), key()).unwrap()
}

/// A chain of intermediates under `issuer`, and a client under the last of them.
fn client(
    principal: &str,
    serial: u64,
    issuer: &Issuer<'_, KeyPair>,
    intermediates: &[&Root],
) -> Credentials {
    let mut params = params(principal);
    params.serial_number = Some(SerialNumber::from(serial));
    params.subject_alt_names = vec![SanType::Rfc822Name(principal.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = key();
    let leaf = params.signed_by(&key, issuer).unwrap();
    let mut chain = vec![leaf.der().clone()];
    chain.extend(intermediates.iter().map(|issuer| issuer.der().clone()));
    Credentials {
        chain,
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
    }
}

fn day(day: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(START).unwrap() + time::Duration::days(day)
}

fn list_params(
    number: u64,
    serials: &[u64],
    from: i64,
    to: i64,
) -> CertificateRevocationListParams {
    let revoked = serials.iter().map(|&serial| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: day(from),
        reason_code: None,
        invalidity_date: None,
    });
    CertificateRevocationListParams {
        this_update: day(from),
        next_update: day(to),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

/// A list that is good for a week from the start of the calendar.
fn list(issuer: &Issuer<'_, KeyPair>, serials: &[u64]) -> CertificateRevocationListDer<'static> {
    let list = list_params(1, serials, -1, 6).signed_by(issuer);
    list.unwrap().into()
}

/// A list that should have been replaced yesterday.
fn stale(issuer: &Issuer<'_, KeyPair>, serials: &[u64]) -> CertificateRevocationListDer<'static> {
    let list = list_params(1, serials, -8, -1).signed_by(issuer);
    list.unwrap().into()
}

fn authority(anchors: &[&Root]) -> Authority {
    let provider = Arc::new(Algorithms::for_this_cpu().provider());
    let anchors = anchors.iter().map(|root| root.der().clone()).collect();
    Authority::new(Pki::shared().rule(), anchors, &provider).unwrap()
}

/// What the authority says about a client, at the beginning of the calendar.
fn verdict(authority: &Authority, client: &Credentials) -> Result<(), RefusalKind> {
    use adit_tunnel::tls::Authorities;
    use rustls::pki_types::UnixTime;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(START.unsigned_abs()));
    let vouched =
        Authorities::new(vec![authority.clone()], ClientAuth::Mandatory).vouch(&client.chain, now);
    vouched.map(|_| ()).map_err(|refusal| refusal.kind)
}

fn with(
    authority: &Authority,
    policy: CrlPolicy,
    lists: &[(CertificateRevocationListDer<'static>, &[CertificateDer<'_>])],
) -> Authority {
    let read = |(list, beside): &(CertificateRevocationListDer<'static>, &[CertificateDer<'_>])| {
        authority.read_list(list.clone(), beside).unwrap()
    };
    authority
        .revoking(policy, lists.iter().map(read).collect())
        .unwrap()
}

use CrlPolicy::{Hard, Soft};
use RefusalKind::{CertificateRevoked, RevocationUnknown};

#[test]
fn a_listed_leaf_is_revoked_and_its_neighbour_is_not() {
    let root = root("Root");
    let (alice, bob) = (client(ALICE, 7, &root, &[]), client(BOB, 8, &root, &[]));
    let plain = authority(&[&root]);
    assert_eq!(verdict(&plain, &alice), Ok(()));
    for policy in [Soft, Hard] {
        let authority = with(&plain, policy, &[(list(&root, &[7]), &[])]);
        assert_eq!(verdict(&authority, &alice), Err(CertificateRevoked));
        assert_eq!(verdict(&authority, &bob), Ok(()));
    }
}

#[test]
fn a_revoked_intermediate_takes_everybody_below_it_along() {
    let root = root("Root");
    let middle = CertifiedIssuer::signed_by(ca_params("Middle", 5), key(), &root).unwrap();
    let other = CertifiedIssuer::signed_by(ca_params("Other", 6), key(), &root).unwrap();
    let alice = client(ALICE, 7, &middle, &[&middle]);
    let bob = client(BOB, 7, &other, &[&other]);
    let plain = authority(&[&root]);
    let soft = with(&plain, Soft, &[(list(&root, &[5]), &[])]);
    assert_eq!(verdict(&soft, &alice), Err(CertificateRevoked));
    assert_eq!(verdict(&soft, &bob), Ok(()));

    // The intermediates have lists of their own, by which one revokes the serial number both gave.
    let beside = [middle.der().clone(), other.der().clone()];
    let lists = [
        (list(&root, &[]), &[][..]),
        (list(&middle, &[7]), &beside),
        (list(&other, &[]), &beside),
    ];
    for policy in [Soft, Hard] {
        let authority = with(&plain, policy, &lists);
        assert_eq!(verdict(&authority, &alice), Err(CertificateRevoked));
        assert_eq!(verdict(&authority, &bob), Ok(()));
    }
    let incomplete = with(&plain, Hard, &lists[..2]);
    assert_eq!(verdict(&incomplete, &bob), Err(RevocationUnknown));
}

#[test]
fn a_stale_list_still_revokes_and_refuses_the_others_only_where_the_policy_is_hard() {
    let root = root("Root");
    let (alice, bob) = (client(ALICE, 7, &root, &[]), client(BOB, 8, &root, &[]));
    let plain = authority(&[&root]);
    let soft = with(&plain, Soft, &[(stale(&root, &[7]), &[])]);
    assert_eq!(verdict(&soft, &alice), Err(CertificateRevoked));
    assert_eq!(verdict(&soft, &bob), Ok(()));
    let hard = with(&plain, Hard, &[(stale(&root, &[7]), &[])]);
    assert!(verdict(&hard, &alice).is_err());
    assert_eq!(verdict(&hard, &bob), Err(RevocationUnknown));
    let none = plain.revoking(Hard, Vec::new());
    assert!(matches!(none, Err(TlsError::NoList { .. })));
}

#[test]
fn lists_of_others_are_refused_when_they_are_read() {
    let (root, namesake, stranger) = (root("Root"), root("Root"), root("Stranger"));
    let authority = authority(&[&root]);
    let read = |list, beside: &[_]| authority.read_list(list, beside).map(|_| ());
    assert!(matches!(
        read(list(&stranger, &[]), &[]),
        Err(ListRefusal::Foreign { issuer }) if issuer == "CN=Stranger"
    ));
    assert!(matches!(
        read(list(&namesake, &[]), &[]),
        Err(ListRefusal::Signature { .. })
    ));
    // Its own certificate beside it proves nothing.
    let beside = [stranger.der().clone()];
    assert_eq!(
        read(list(&stranger, &[]), &beside),
        Err(ListRefusal::Beside)
    );
    // A leaf of the authority signs no lists.
    let mut posing = params("Root");
    posing.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let posing = CertifiedIssuer::signed_by(posing, key(), &root).unwrap();
    let beside = [posing.der().clone()];
    assert_eq!(read(list(&root, &[]), &beside), Err(ListRefusal::Beside));
    // Neither does an intermediate that may sign certificates only.
    let mut middle = ca_params("Middle", 5);
    middle.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let signer = CertifiedIssuer::signed_by(middle.clone(), key(), &root).unwrap();
    let signed = list(&signer, &[]);
    middle.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let shown = middle.signed_by(signer.key(), &root).unwrap();
    let beside = [shown.der().clone()];
    assert!(matches!(
        read(signed, &beside),
        Err(ListRefusal::Signature { .. })
    ));
    assert_eq!(read(list(&root, &[]), &[]), Ok(()));
}

#[test]
fn a_changed_and_a_partial_list_are_refused_when_they_are_read() {
    let root = root("Root");
    let authority = authority(&[&root]);
    let whole = list(&root, &[7]);
    for at in 0..whole.len() {
        let mut changed = whole.to_vec();
        changed[at] ^= 1;
        assert!(
            authority.read_list(changed.into(), &[]).is_err(),
            "byte {at}"
        );
    }
    let mut partial = list_params(1, &[], -1, 6);
    partial.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint {
            uris: vec!["http://example.com/1.crl".to_owned()],
        },
        scope: None,
    });
    let partial = partial.signed_by(&root).unwrap().into();
    assert_eq!(
        authority.read_list(partial, &[]).map(|_| ()),
        Err(ListRefusal::List(ListError::Partial))
    );
}

#[test]
fn two_keys_of_one_name_have_a_list_each() {
    let (old, new) = (root("Root"), root("Root"));
    let (alice, bob) = (client(ALICE, 7, &old, &[]), client(BOB, 7, &new, &[]));
    let plain = authority(&[&old, &new]);
    for policy in [Soft, Hard] {
        let lists = [(list(&old, &[7]), &[][..]), (list(&new, &[]), &[])];
        let authority = with(&plain, policy, &lists);
        assert_eq!(verdict(&authority, &alice), Err(CertificateRevoked));
        assert_eq!(verdict(&authority, &bob), Ok(()));
    }
    let one = with(&plain, Soft, &[(list(&old, &[7]), &[])]);
    assert_eq!(verdict(&one, &bob), Ok(()));
    let one = with(&plain, Hard, &[(list(&old, &[7]), &[])]);
    assert!(verdict(&one, &bob).is_err());
    let twice = [&old, &old].map(|root| plain.read_list(list(root, &[]), &[]).unwrap());
    assert!(matches!(
        plain.revoking(Soft, twice.to_vec()),
        Err(TlsError::SecondList { .. })
    ));
}

#[test]
fn an_intermediate_replaced_under_its_own_name_locks_nobody_out_and_lets_nobody_in() {
    let root = root("Root");
    let middle = |serial| CertifiedIssuer::signed_by(ca_params("Middle", serial), key(), &root);
    let (old, new) = (middle(5).unwrap(), middle(6).unwrap());
    // Both gave the same serial number, and one of them revoked it.
    let (alice, bob) = (
        client(ALICE, 7, &old, &[&old]),
        client(BOB, 7, &new, &[&new]),
    );
    let plain = authority(&[&root]);
    let beside = [old.der().clone(), new.der().clone()];
    let whole = (list(&root, &[]), &[][..]);
    let of_old = (list(&old, &[7]), &beside[..]);
    let of_new = (list(&new, &[]), &beside[..]);
    for policy in [Soft, Hard] {
        for lists in [[&of_old, &of_new], [&of_new, &of_old]] {
            let lists = [whole.clone(), lists[0].clone(), lists[1].clone()];
            let authority = with(&plain, policy, &lists);
            assert_eq!(verdict(&authority, &alice), Err(CertificateRevoked));
            assert_eq!(verdict(&authority, &bob), Ok(()));
            // Showing the other one, too, helps nobody and harms nobody.
            for chain in [[&old, &new], [&new, &old]] {
                let show = |client: &Credentials| {
                    let mut client = client.clone();
                    client.chain.truncate(1);
                    client.chain.extend(chain.map(|shown| shown.der().clone()));
                    verdict(&authority, &client)
                };
                assert_eq!(
                    (show(&alice), show(&bob)),
                    (Err(CertificateRevoked), Ok(()))
                );
            }
        }
    }
    // The list of one says nothing of what the other issued.
    for (policy, expected) in [(Soft, Ok(())), (Hard, Err(RevocationUnknown))] {
        let one = with(&plain, policy, &[whole.clone(), of_old.clone()]);
        assert_eq!(verdict(&one, &alice), Err(CertificateRevoked));
        assert_eq!(verdict(&one, &bob), expected);
        let one = with(&plain, policy, &[whole.clone(), of_new.clone()]);
        assert_eq!(verdict(&one, &alice), expected);
    }
}

#[test]
fn revoked_by_one_authority_is_not_accepted_by_another_of_the_same_anchor() {
    use adit_tunnel::tls::Authorities;
    use rustls::pki_types::UnixTime;
    let root = root("Root");
    let alice = client(ALICE, 7, &root, &[]);
    let (plain, now) = (
        authority(&[&root]),
        UnixTime::since_unix_epoch(Duration::from_secs(START.unsigned_abs())),
    );
    let revoking = with(&plain, Soft, &[(list(&root, &[7]), &[])]);
    for order in [[&plain, &revoking], [&revoking, &plain]] {
        let authorities = Authorities::new(order.map(Clone::clone).to_vec(), ClientAuth::Mandatory);
        let refusal = authorities.vouch(&alice.chain, now).unwrap_err();
        assert_eq!(refusal.kind, CertificateRevoked);
    }
}

#[test]
fn a_revoked_key_counts_for_nothing_whatever_certificate_it_stands_in() {
    let root = root("Root");
    let middle = CertifiedIssuer::signed_by(ca_params("Middle", 5), key(), &root).unwrap();
    // The same key under the same name in another certificate, which no list mentions.
    let again = ca_params("Middle", 6)
        .signed_by(middle.key(), &root)
        .unwrap();
    let (alice, bob) = (client(ALICE, 7, &root, &[]), client(BOB, 8, &root, &[]));
    let carol = client(CAROL, 9, &middle, &[&middle]);
    let mut crossed = carol.clone();
    crossed.chain[1] = again.der().clone();
    let plain = authority(&[&root]);
    for client in [&alice, &bob, &carol, &crossed] {
        assert_eq!(verdict(&plain, client), Ok(()));
    }
    let hashes = [&alice.chain[0], middle.der()].map(|der| KeyHash::of(der).unwrap());
    let authority = plain.refusing_keys(hashes.into());
    for client in [&alice, &carol, &crossed] {
        assert_eq!(verdict(&authority, client), Err(CertificateRevoked));
    }
    assert_eq!(verdict(&authority, &bob), Ok(()));
}

/// A number for the serial number of a certificate that the shared authority issued.
fn serial(credentials: &Credentials) -> SerialNumber {
    let identity = identity::extract(&credentials.chain[0], &Pki::shared().rule()).unwrap();
    let digits = identity.serial.as_bytes().chunks(2);
    let bytes =
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    SerialNumber::from_slice(&bytes.collect::<Vec<_>>())
}

fn revoked(policy: CrlPolicy, certificates: &[&Credentials], from: i64, to: i64) -> Revoked {
    let mut params = list_params(1, &[], from, to);
    params.revoked_certs = certificates
        .iter()
        .map(|credentials| RevokedCertParams {
            serial_number: serial(credentials),
            revocation_time: day(from),
            reason_code: None,
            invalidity_date: None,
        })
        .collect();
    let list = Pki::shared().list(&params);
    Revoked {
        policy,
        lists: vec![(list, Vec::new())],
    }
}

fn stopped(world: &World, client: usize) -> Option<RefusalKind> {
    let mut events = world.clients[client].events.iter();
    events.find_map(|event| match event {
        ClientEvent::Stopped(refusal) => Some(refusal.kind),
        _ => None,
    })
}

fn lost(world: &World, client: usize) -> usize {
    let events = world.clients[client].events.iter();
    let lost = events.filter(|event| matches!(event, ClientEvent::Lost { .. }));
    lost.count()
}

fn a_revoked_session_ends_at_once_for_good_and_the_others_lose_nothing(engines: u8) {
    let mut world = World::new(POLICY, engines);
    let credentials = [ALICE, BOB, CAROL].map(|name| Pki::shared().client(name));
    let clients = [0, 1, 2].map(|n| {
        let seed = n as u64;
        let client = world.add_client_with(credentials[n].clone(), Conditions::CLEAN, seed);
        assert!(world.run_until(5 * SECOND, |world| world.clients[client].is_ready()));
        client
    });
    let [alice, bob, carol] = clients;
    world.revoked = revoked(Soft, &[], -1, 6);
    let difference = world.reload(POLICY);
    assert!(difference.is_empty(), "{}", difference.render());
    assert_eq!(difference.unchanged, 3);

    let own = world.clients[alice].v4().unwrap();
    let office: IpAddr = "10.0.0.7".parse().unwrap();
    for number in 0..20 {
        if number == 10 {
            world.revoked = revoked(Soft, &[&credentials[1]], -1, 6);
            let difference = world.reload(POLICY);
            assert_eq!((difference.ended.len(), difference.unchanged), (1, 2));
            assert_eq!(difference.ended[0].reason, "the certificate was revoked");
        }
        world.send_from_client(alice, &packets::udp(own, office, number, 100));
        world.run_for(Duration::from_millis(20));
    }
    assert_eq!(
        stopped(&world, bob),
        Some(CertificateRevoked),
        "within 200 ms"
    );
    world.run_for(SECOND);
    assert_eq!(world.office.len(), 20);
    for client in [alice, carol] {
        assert_eq!((stopped(&world, client), lost(&world, client)), (None, 0));
    }
    // It does not come back by itself, and is refused if it is started again.
    let again = world.add_client_with(credentials[1].clone(), Conditions::CLEAN, 9);
    world.run_for(5 * SECOND);
    assert_eq!(stopped(&world, again), Some(CertificateRevoked));
    assert_eq!(world.gateway().census().sessions, 2);
}

fn a_stale_list_ends_no_session_and_keeps_newcomers_out_only_where_it_is_hard(engines: u8) {
    for policy in [Soft, Hard] {
        let mut world = World::new(POLICY, engines);
        let alice = world.add_client(ALICE, Conditions::CLEAN, 1);
        assert!(world.run_until(5 * SECOND, |world| world.clients[alice].is_ready()));
        world.revoked = revoked(policy, &[], -8, -1);
        assert!(world.reload(POLICY).is_empty());
        let bob = world.add_client(BOB, Conditions::CLEAN, 2);
        world.run_for(5 * SECOND);
        assert_eq!((stopped(&world, alice), lost(&world, alice)), (None, 0));
        assert_eq!(world.clients[bob].is_ready(), policy == Soft);
        // It keeps trying: a fresh list lets it in.
        assert_eq!(stopped(&world, bob), None);
        world.revoked = revoked(policy, &[], -1, 6);
        assert!(world.reload(POLICY).is_empty());
        assert!(world.run_until(60 * SECOND, |world| world.clients[bob].is_ready()));
    }
}

with_one_engine_and_with_three!(
    a_revoked_session_ends_at_once_for_good_and_the_others_lose_nothing,
    a_stale_list_ends_no_session_and_keeps_newcomers_out_only_where_it_is_hard,
);
