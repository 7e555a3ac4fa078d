//! The list of the authority that the gateway issues with: nobody signs it anew but the gateway.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_core::identity::revocation::Revoked;
use adit_pki::index::{Index, List};
use adit_pki::{Authority, IssueRequest, Reason, store};
use adit_tests::lab::{Layout, internet, until};
use adit_tests::probe::ping::Ping;
use adit_tests::programs::{Programs, Setup};
use anyhow::{Context, Result, ensure};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;

use crate::bed::{Bed, audit, note};

pub(crate) fn in_time(programs: &Programs) -> Result<()> {
    let mut lost = BTreeSet::new();
    let mut bed = Bed::with(programs, Layout::default(), |setup| {
        lost.insert(revoked(setup, "bob@example.com")?);
        Ok(())
    })?;
    let alice = bed.alice(0)?;
    let steady = Ping::to(internet::OFFICE_V4)
        .every(Duration::from_millis(20))
        .start(bed.internet.laptop())?;
    let first = list(&bed.setup)?;
    let second = follows(&bed, &first, &lost)?;
    follows(&bed, &second, &lost)?;
    // An operator at work in the folder is not in the way, and what he revokes stays revoked.
    lost.insert(revoked(&bed.setup, "carol@example.com")?);
    let fourth = list(&bed.setup)?;
    follows(&bed, &fourth, &lost)?;
    bed.gateway.process().still_runs()?;
    let steady = steady.stop()?;
    ensure!(steady.lost.is_empty(), "alice lost {:?}", steady.lost);
    alice.stop()?;
    Ok(())
}

/// Waits until the gateway has signed the list after `old`, and goes by it.
fn follows(bed: &Bed, old: &List, lost: &BTreeSet<String>) -> Result<List> {
    let new = until(PATIENCE, || {
        let new = list(&bed.setup)?;
        Ok((new.number > old.number).then_some(new))
    })
    .context("the list is not signed anew")?;
    let (age, life) = (new.this_update - old.this_update, LIFE.as_secs());
    note(&format!(
        "list {} was signed {age} s after list {}, which was good for {life} s",
        new.number, old.number
    ));
    let life = i64::try_from(life)?;
    ensure!(age >= life / 2 && age <= life, "after {age} s");
    ensure!(new.number == old.number + 1 && new.next_update - new.this_update == life);
    let pem = fs::read(bed.setup.issuing().join(store::LIST))?;
    let der = CertificateRevocationListDer::from_pem_slice(&pem)?;
    let serials = Revoked::all(&der).into_iter().map(|one| one.serial);
    ensure!(
        serials.collect::<BTreeSet<_>>() == *lost,
        "not the same entries"
    );
    let number = new.number.to_string();
    until(PATIENCE, || {
        let counts = audit(bed)?.into_iter().any(|event| {
            event["event"] == "revoke"
                && event["list"] == number.as_str()
                && event["certificates"] == lost.len()
        });
        Ok(counts.then_some(()))
    })
    .context("the gateway does not go by its own list")?;
    Ok(new)
}

/// Issues and revokes a certificate, as an operator does, with a list that is soon too old.
fn revoked(setup: &Setup, principal: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let now = i64::try_from(now)?;
    let authority = Authority::open(&setup.issuing())?;
    let issued = authority.issue(&IssueRequest::client(principal, now), now)?;
    let serial = issued.serial.clone();
    let serials = [serial.clone()];
    authority.revoke(&serials, Reason::KeyCompromise, LIFE.try_into()?, now)?;
    Ok(serial)
}

fn list(setup: &Setup) -> Result<List> {
    let index = Index::open_read_only(&setup.issuing().join(store::INDEX))?;
    index.list()?.context("there is no list")
}

/// Long enough for a gateway on a busy machine to start.
const LIFE: Duration = Duration::from_secs(20);
/// A list's life, and what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(40);
