//! The intermediates above certificates: whoever is under one that is revoked is revoked with it.
//!
//! They are known from handshakes, in which clients show them, and from the folders of authorities. Names lead from a
//! certificate to those above it; signatures are verified only where one of those is revoked, which is seldom.

use std::collections::BTreeMap;

use adit_core::identity::revocation::Signer;
use adit_pki::description::is_signed_by;
use adit_pki::inventory::{Revoked, Row};

/// What of the certificates that were shown together stands above `certificate`, the nearest first; by their names
/// alone, and not more than a chain has.
pub(super) fn above(certificate: &[u8], shown: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut path: Vec<Vec<u8>> = Vec::new();
    let mut below = Signer::read(certificate);
    while let Some(signer) = below.take().filter(|signer| signer.issuer != signer.name) {
        let issuer = shown
            .iter()
            .filter(|der| der.len() <= LARGEST && !path.contains(der))
            .find_map(|der| {
                Some((
                    der,
                    Signer::read(der).filter(|above| above.name == signer.issuer)?,
                ))
            });
        if let Some((der, above)) = issuer
            && path.len() < LONGEST
        {
            path.push(der.clone());
            below = Some(above);
        }
    }
    path
}

/// Intermediates, by the authority under which they vouch and by their name.
#[derive(Default)]
pub(super) struct Intermediates(BTreeMap<(String, Vec<u8>), Vec<Intermediate>>);

/// An authority's certificate, and what is known of it.
struct Intermediate {
    der: Vec<u8>,
    row: Row,
}

impl Intermediates {
    /// Adds one; `row` says whether it is revoked, and which authority vouches for it. One that is there already is
    /// not added twice, but if either is revoked it is.
    pub(super) fn add(&mut self, der: &[u8], row: Row) {
        let (Some(signer), Some(authority)) = (Signer::read(der), row.authority.clone()) else {
            return;
        };
        if signer.name == signer.issuer || !signer.is_authority {
            return;
        }
        let same_name = self.0.entry((authority, signer.name)).or_default();
        match same_name.iter_mut().find(|one| one.der == der) {
            Some(known) if known.row.revoked.is_none() => known.row.revoked = row.revoked,
            Some(_) => {}
            None => same_name.push(Intermediate {
                der: der.to_vec(),
                row,
            }),
        }
    }

    /// Whether any of them is revoked.
    pub(super) fn are_revoked(&self) -> bool {
        let mut all = self.0.values().flatten();
        all.any(|one| one.row.revoked.is_some())
    }

    /// What revoked the certificate, in DER, by revoking what is above it. `None` if a way up is left: an intermediate
    /// that was certified twice is as good as the better of its certificates.
    pub(super) fn revoked_above(&self, authority: &str, der: &[u8]) -> Option<Revoked> {
        self.look_up(authority, der, LONGEST)
    }

    fn look_up(&self, authority: &str, der: &[u8], levels: usize) -> Option<Revoked> {
        let issuer = Signer::read(der)?.issuer;
        let candidates = self.0.get(&(authority.to_owned(), issuer))?;
        let levels = levels.checked_sub(1)?;
        let judged = candidates.iter().map(|one| {
            let own = one.row.revoked.clone().map(|revoked| Revoked {
                with: Some(one.row.subject.clone()),
                ..revoked
            });
            (
                one,
                own.or_else(|| self.look_up(authority, &one.der, levels)),
            )
        });
        let judged: Vec<(&Intermediate, Option<Revoked>)> = judged.collect();
        if judged.iter().all(|(_, revoked)| revoked.is_none()) {
            return None;
        }
        let mut signed = judged
            .into_iter()
            .filter(|(one, _)| is_signed_by(der, &one.der))
            .map(|(_, revoked)| revoked);
        let first = signed.next()??;
        signed.all(|revoked| revoked.is_some()).then_some(first)
    }
}

/// More levels than any authority has.
const LONGEST: usize = 8;
/// A certificate of an authority is a kilobyte or two.
const LARGEST: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use adit_pki::{Authority, AuthorityParams, CertificateRequest, IssueRequest};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    /// A root, the certificates of an intermediate that it certified twice, and one of a client under that.
    fn certified_twice() -> (Vec<u8>, [Vec<u8>; 2], Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("online");
        let root = Authority::ephemeral("Example Corp", NOW).unwrap();
        let params = AuthorityParams::under(&root, "Online", NOW);
        let request = Authority::request(&folder, &params).unwrap();
        let request = std::fs::read_to_string(request.path).unwrap();
        let request = CertificateRequest::from_pem(&request).unwrap();
        let both = [(); 2].map(|()| {
            let signed = root.sign_authority(&request, &params, NOW);
            signed.unwrap().certificate_der
        });
        let above = root.certificate_der().to_vec();
        let given = [both[0].clone(), above.clone()];
        let online = Authority::complete(&folder, &given, None, NOW).unwrap();
        let client = online.issue(&IssueRequest::client("alice@example.com", NOW), NOW);
        (above, both, client.unwrap().certificate_der.clone())
    }

    fn row(der: &[u8], is_revoked: bool) -> Row {
        Row {
            authority: Some("adit".to_owned()),
            revoked: is_revoked.then_some(Revoked {
                at: Some(1),
                reason: None,
                by: None,
                with: None,
            }),
            ..Row::of_certificate(der, 0).unwrap()
        }
    }

    #[test]
    fn names_lead_from_a_certificate_upwards_and_past_everything_else() {
        let (root, [online, _], client) = certified_twice();
        let (_, [stranger, _], _) = certified_twice();
        let shown = [
            b"junk".to_vec(),
            root.clone(),
            client.clone(),
            online.clone(),
        ];
        assert_eq!(above(&client, &shown), [online, root.clone()]);
        assert_eq!(above(&root, &shown), Vec::<Vec<u8>>::new());
        assert_eq!(above(b"junk", &shown), Vec::<Vec<u8>>::new());
        // Of the same name: the signature is looked at when it matters.
        let only = std::slice::from_ref(&stranger);
        assert_eq!(above(&client, only), only);
    }

    #[test]
    fn an_intermediate_that_was_certified_twice_is_revoked_with_both_of_its_certificates() {
        let (_, [one, other], client) = certified_twice();
        for (revoked, expected) in [
            ([false, false], false),
            ([true, false], false),
            ([false, true], false),
            ([true, true], true),
        ] {
            let mut all = Intermediates::default();
            all.add(&one, row(&one, revoked[0]));
            all.add(&other, row(&other, revoked[1]));
            let found = all.revoked_above("adit", &client);
            assert_eq!(found.is_some(), expected, "{revoked:?}");
            assert_eq!(all.revoked_above("another", &client), None);
        }
    }

    #[test]
    fn an_intermediate_of_the_same_name_and_another_key_revokes_nobody() {
        let (_, [own, _], client) = certified_twice();
        let (_, [stranger, _], _) = certified_twice();
        let mut all = Intermediates::default();
        all.add(&stranger, row(&stranger, true));
        assert_eq!(all.revoked_above("adit", &client), None);
        all.add(&own, row(&own, false));
        assert_eq!(all.revoked_above("adit", &client), None);
        // It turns out to be revoked as well.
        all.add(&own, row(&own, true));
        let revoked = all.revoked_above("adit", &client).unwrap();
        assert_eq!(revoked.with, Some(row(&own, true).subject));
    }
}
