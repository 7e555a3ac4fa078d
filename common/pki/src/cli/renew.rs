//! `adit-ca renew`: the next certificate of somebody, for a new key or for that of a request.

use std::path::PathBuf;

use adit_pki::index::{Entry, State};
use adit_pki::{Authority, IssueRequest, Purpose};
use clap::Args;

use super::failure::Failure;
use super::issue::Plan;
use super::sign::{self, Output, signed};
use super::{Answer, DAY, Delivery, Desk, IssueArgs, now};

/// The arguments of `renew`.
#[derive(Args, Debug)]
pub(super) struct RenewArgs {
    /// The serial number of the last certificate, or its principal if there is one device
    what: String,
    /// A request with the key of the new certificate; without it, a new key is made as by `issue`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["gateways", "server_name"])]
    csr: Option<PathBuf>,
    /// Days until the certificate ends [default: as many as the last one had]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
    #[command(flatten)]
    delivery: Delivery,
}

pub(super) fn run(desk: &Desk<'_>, args: &RenewArgs) -> Result<Answer, Failure> {
    let authority = desk.open()?;
    let Some(last) = last(desk, &authority, &args.what)? else {
        return Ok(Answer::No);
    };
    let days = args.days.unwrap_or_else(|| days(&last));
    let names = last.names.iter().filter(|name| **name != last.principal);
    let Some(csr) = &args.csr else {
        let args = IssueArgs {
            principal: last.principal.clone(),
            purpose: last.purpose,
            groups: last.groups.clone(),
            days,
            names: names.cloned().collect(),
            device: last.device.clone(),
            delivery: args.delivery.clone(),
        };
        return Plan::of(&args)?.carry_out(desk, &authority, &args);
    };
    let output = Output::new(args.delivery.output.clone(), args.delivery.force);
    output.check()?;
    let csr = sign::read(csr)?;
    let now = now();
    let mut request = IssueRequest::new(last.purpose, last.principal.clone(), now)
        .with_groups(last.groups.iter().cloned())
        .with_names(names.cloned());
    request.not_after = now + i64::from(days) * DAY;
    request.device.clone_from(&last.device);
    let issued = authority.sign(&csr, &request, now)?;
    signed(desk.console, &issued);
    output.write(desk.console, &issued.certificate_pem)?;
    Ok(Answer::Yes)
}

/// The certificate to go by; `None` if there is none that may be renewed.
fn last(desk: &Desk<'_>, authority: &Authority, what: &str) -> Result<Option<Entry>, Failure> {
    let serial = what.replace(':', "").to_ascii_lowercase();
    let mut matching: Vec<Entry> = authority
        .entries()?
        .into_iter()
        .filter(|entry| entry.serial == serial || entry.principal == what)
        .filter(|entry| entry.state(i64::MIN) != State::Revoked)
        .collect();
    if matching.is_empty() {
        desk.console.note(&format!(
            "there is no certificate of `{what}` in {} that was not revoked",
            desk.folder.display()
        ));
        return Ok(None);
    }
    if let Some(entry) = matching
        .iter()
        .find(|entry| entry.purpose == Purpose::Authority)
    {
        return Err(Failure::input(format!("{} is an authority", entry.serial))
            .with_hint("make a new one with `adit-ca init --under`"));
    }
    matching.sort_by_key(|entry| entry.created);
    let mut devices: Vec<_> = matching.iter().map(|entry| &entry.device).collect();
    devices.sort_unstable();
    devices.dedup();
    if devices.len() > 1 {
        let serials: Vec<_> = matching.iter().map(|entry| entry.serial.as_str()).collect();
        return Err(
            Failure::input(format!("`{what}` has {} devices", devices.len()))
                .with_hint(format!("give one of {}", serials.join(", "))),
        );
    }
    Ok(matching.pop())
}

/// As many whole days as the certificate had.
fn days(entry: &Entry) -> u32 {
    let days = (entry.not_after - entry.not_before) / DAY;
    u32::try_from(days).unwrap_or(1).clamp(1, 3650)
}
