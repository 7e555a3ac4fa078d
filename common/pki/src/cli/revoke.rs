//! `adit-ca revoke` and `adit-ca crl`: taking certificates back, and the list that says so.

use std::path::Path;

use adit_pki::index::{Entry, List, State};
use adit_pki::{Reason, description, store};
use time::Duration;

use super::failure::Failure;
use super::{Answer, Console, Desk, now};

pub(super) fn revoke(
    desk: &Desk<'_>,
    what: &str,
    reason: Reason,
    days: u32,
) -> Result<Answer, Failure> {
    let authority = desk.open()?;
    let Desk {
        console, folder, ..
    } = *desk;
    let life = Duration::days(days.into());
    let now = now();
    let serial = what.replace(':', "").to_ascii_lowercase();
    let matching: Vec<Entry> = authority
        .entries()?
        .into_iter()
        .filter(|entry| entry.serial == serial || entry.principal == what)
        .collect();
    let usable = |entry: &&Entry| matches!(entry.state(now), State::Valid | State::NotYetValid);
    let one = matching.iter().find(|entry| entry.serial == serial);
    let (revoked, withdrawn, list) = match one {
        Some(entry) if usable(&entry) => {
            let list = authority.revoke(&[serial], reason, life, now)?;
            (vec![entry.clone()], 0, Some(list))
        }
        Some(_) => (Vec::new(), 0, None),
        None => {
            let stopped = authority.revoke_principal(what, reason, life, now)?;
            (stopped.revoked, stopped.withdrawn, stopped.list)
        }
    };
    let Some(list) = list else {
        return nothing_left(console, folder, what, &matching);
    };
    let mut text = String::new();
    for entry in &revoked {
        text.push_str(&format!(
            "revoked {} of {} ({}, valid until {})\n",
            entry.serial,
            entry.principal,
            entry.purpose,
            description::date(entry.not_after),
        ));
    }
    if withdrawn > 0 {
        text.push_str(&format!(
            "open invitations of {what} withdrawn: {withdrawn}\n"
        ));
    }
    text.push_str(&facts(folder, &list));
    console.data(&text)?;
    Ok(Answer::Yes)
}

pub(super) fn crl(desk: &Desk<'_>, days: u32) -> Result<Answer, Failure> {
    let list = desk
        .open()?
        .renew_list(Duration::days(days.into()), now())?;
    desk.console.data(&facts(desk.folder, &list))?;
    Ok(Answer::Yes)
}

/// Done before, or never to be done.
fn nothing_left(
    console: &Console,
    folder: &Path,
    what: &str,
    matching: &[Entry],
) -> Result<Answer, Failure> {
    let newest = matching.iter().filter_map(|entry| entry.revoked.as_ref());
    if let Some(revocation) = newest.max_by_key(|revocation| revocation.at) {
        console.note(&format!(
            "`{what}` has been revoked already, at {} by {} ({})",
            description::instant(revocation.at),
            revocation.by,
            revocation.reason,
        ));
        return Ok(Answer::Yes);
    }
    console.note(&if matching.is_empty() {
        format!(
            "`{what}` is no serial number and no principal in {}; nothing was revoked",
            folder.display()
        )
    } else {
        format!("every certificate of `{what}` has expired; nothing was revoked")
    });
    Ok(Answer::No)
}

fn facts(folder: &Path, list: &List) -> String {
    format!(
        "{}: number {}, {} revoked, signed at {}, next due by {}\n",
        folder.join(store::LIST).display(),
        list.number,
        list.entries,
        description::instant(list.this_update),
        description::instant(list.next_update),
    )
}
