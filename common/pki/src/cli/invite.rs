//! `adit-ca invite`, `invitations` and `withdraw`: codes for people.

use std::path::PathBuf;

use adit_pki::description;
use adit_pki::invitation::{self, Invitation, OpenInvitation};
use adit_pki::store::StoreError;
use clap::Args;
use time::Duration;

use super::failure::Failure;
use super::{Answer, Desk, now};

/// The arguments of `invite`.
#[derive(Args, Debug)]
pub(super) struct InviteArgs {
    /// Whom the certificate will be for: user@example.com or spiffe://example.com/name
    principal: String,
    /// The certificate of the gateway where the code will be used: the code tells it from an impostor
    #[arg(long, value_name = "FILE")]
    gateway_certificate: PathBuf,
    /// A group (repeatable)
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Days that the certificate will be valid
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Hours that the code can be used
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
    hours: u32,
}

pub(super) fn invite(desk: &Desk<'_>, args: &InviteArgs) -> Result<Answer, Failure> {
    let path = &args.gateway_certificate;
    let text = std::fs::read(path).map_err(|source| StoreError::Read {
        path: path.to_owned(),
        source,
    })?;
    let pin = description::first_certificate(&text)
        .and_then(|der| invitation::pin(&der))
        .ok_or_else(|| Failure::input(format!("{} contains no certificate", path.display())))?;
    let invitation = Invitation {
        principal: args.principal.clone(),
        groups: args.groups.clone(),
        validity: Duration::days(args.days.into()),
        expires: now() + i64::from(args.hours) * 3600,
    };
    let code = desk.open()?.invite(&invitation, pin, now())?;
    desk.console.note(&format!(
        "good once, until {}; whoever has it becomes {}",
        description::instant(invitation.expires),
        invitation.principal
    ));
    desk.console.data(&format!("{code}\n"))?;
    Ok(Answer::Yes)
}

pub(super) fn list(desk: &Desk<'_>, json: bool) -> Result<Answer, Failure> {
    let open = desk.open()?.invitations(now())?;
    let text = if json {
        serde_json::to_string_pretty(&open)
            .map(|text| text + "\n")
            .map_err(|error| Failure::environment(error, "cannot write the list"))?
    } else {
        open.iter().map(line).collect()
    };
    desk.console.data(&text)?;
    Ok(Answer::Yes)
}

pub(super) fn withdraw(desk: &Desk<'_>, number: i64) -> Result<Answer, Failure> {
    if desk.open()?.withdraw(number, now())? {
        desk.console
            .data(&format!("withdrew invitation {number}\n"))?;
        return Ok(Answer::Yes);
    }
    desk.console.note(&format!(
        "there is no open invitation {number} in {}",
        desk.folder.display()
    ));
    Ok(Answer::No)
}

fn line(open: &OpenInvitation) -> String {
    let groups = if open.groups.is_empty() {
        "-".to_owned()
    } else {
        open.groups.join(",")
    };
    format!(
        "{}  {}  {groups}  until {}  by {}\n",
        open.number,
        open.principal,
        description::instant(open.expires),
        open.invited_by
    )
}
