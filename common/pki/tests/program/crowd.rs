//! Many operators in one folder at once.

use std::collections::BTreeSet;

use adit_pki::Authority;
use adit_pki::index::State;

use crate::desk::Desk;

#[test]
fn twenty_operators_issue_and_revoke_and_nothing_is_lost() {
    const OPERATORS: usize = 20;
    const EACH: usize = 3;
    let desk = Desk::with_authority();
    desk.at_once(OPERATORS, |operator| {
        for number in 0..EACH {
            let principal = format!("user{number}.{operator}@example.com");
            desk.run(&["issue", &principal, "--gateway", "vpn.example.com"])
                .expect(0);
            if number % 2 == 1 {
                desk.run(&["revoke", &principal]).expect(0);
            }
        }
    });
    let authority = Authority::open(&desk.path("ca")).unwrap();
    assert!(authority.repairs().is_empty(), "{:?}", authority.repairs());
    let entries = authority.entries().unwrap();
    let serials: BTreeSet<_> = entries.iter().map(|entry| &entry.serial).collect();
    assert_eq!(
        (entries.len(), serials.len()),
        (OPERATORS * EACH, OPERATORS * EACH)
    );
    let now = entries[0].created;
    let revoked = entries
        .iter()
        .filter(|entry| entry.state(now) == State::Revoked);
    assert_eq!(revoked.count(), OPERATORS);
    let list = authority.list().unwrap().unwrap();
    assert_eq!(list.entries, OPERATORS);
    // One for the beginning, and one for each revocation.
    assert_eq!(list.number, 1 + i64::try_from(OPERATORS).unwrap());
    let published = pem::parse(desk.read("ca/crl.pem")).unwrap();
    assert_eq!(published.contents(), list.der);
    for entry in entries {
        let profile = desk.read(&format!("{}.toml", entry.principal));
        assert!(
            adit_pki::description::first_certificate(profile.as_bytes())
                .is_some_and(|der| der == entry.certificate)
        );
    }
}
