//! `adit-server invite` and `invitations`: codes that are worth a certificate, once.
//!
//! The running gateway makes the code, so that its records have it; where none runs, the authority's folder is
//! opened directly. A code names the gateway's key besides its secret, which is how a laptop that trusts nobody
//! yet knows the gateway.

use std::fmt::Write as _;

use adit_core::identity;
use adit_core::policy::Policy;
use adit_net::clock;
use adit_net::exit::Failure;
use adit_pki::AuthorityError;
use adit_tunnel::tls::Credentials;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::admin::{self, Request};
use crate::audit::{Audit, Event};
use crate::cli::{GatewayArgs, Invited};
use crate::config::ServerConfig;
use crate::issuing::{self, Guest, Issuing};
use crate::load::{self, LoadError};

/// A code and what to do with it.
#[derive(Debug, Deserialize, Serialize)]
pub struct Answer {
    /// Whose certificate it will be.
    pub principal: String,
    /// Groups of the certificate.
    pub groups: Vec<String>,
    /// The code; whoever has it can be that principal.
    pub code: String,
    /// Until when it is good, Unix time.
    pub expires: i64,
    /// What to type on the laptop.
    pub command: String,
    /// Why the certificate would be of no use at present.
    pub warning: Option<String>,
}

/// An invitation that may still be redeemed.
#[derive(Debug, Deserialize, Serialize)]
pub struct Pending {
    /// Its number; says nothing about the code.
    pub number: i64,
    /// Whose certificate it will be.
    pub principal: String,
    /// Groups of the certificate.
    pub groups: Vec<String>,
    /// Until when it is good, Unix time.
    pub expires: i64,
}

impl Answer {
    /// What the audit log says of it: all but the code.
    pub fn event(&self) -> Event<'_> {
        Event::Invite {
            principal: &self.principal,
            groups: &self.groups,
            expires: self.expires,
        }
    }

    fn render(&self) -> String {
        let Self {
            principal,
            code,
            command,
            ..
        } = self;
        let left = lasting(self.expires - clock::unix_seconds());
        let mut text = String::new();
        if let Some(warning) = &self.warning {
            let _ = writeln!(text, "warning: {warning}");
        }
        let _ = write!(
            text,
            "{code}\n\nOnce, within {left}, on the device of {principal}:\n\n  sudo {command}\n\n\
             Whoever has the code can be {principal}: tell it to nobody else, over a channel you trust.\n"
        );
        text
    }
}

impl Pending {
    /// What the audit log says when it is taken back.
    pub fn event(&self) -> Event<'_> {
        Event::Withdraw {
            invitation: self.number,
            principal: &self.principal,
        }
    }
}

/// Makes a code, to be redeemed at `gateway` as [`gateway_name`] gives it.
///
/// # Errors
/// When the names are not fit for a certificate, or the authority cannot write them down.
pub fn make(
    issuing: &Issuing,
    gateway: &str,
    config: &ServerConfig,
    policy: &Policy,
    invited: &Invited,
    now: i64,
) -> Result<Answer, Failure> {
    let guest = Guest {
        principal: invited.principal.clone(),
        groups: invited.groups.clone(),
        code_life: invited.expires,
        validity: invited.validity,
    };
    let (code, expires) = issuing.invite(&guest, now).map_err(authority)?;
    let warning = issuing::access(config, policy, &guest, now)
        .err()
        .map(|refusal| format!("with this certificate {refusal}"));
    Ok(Answer {
        command: format!("adit enroll {gateway} {code}"),
        principal: guest.principal,
        groups: guest.groups,
        code,
        expires,
        warning,
    })
}

/// The invitations that may still be redeemed.
///
/// # Errors
/// When the authority cannot be read.
pub fn pending(issuing: &Issuing, now: i64) -> Result<Vec<Pending>, Failure> {
    let open = issuing.authority().invitations(now).map_err(authority)?;
    Ok(open
        .into_iter()
        .map(|open| Pending {
            number: open.number,
            principal: open.principal,
            groups: open.groups,
            expires: open.expires,
        })
        .collect())
}

/// Takes an invitation back.
///
/// # Errors
/// When there is no such invitation.
pub fn take_back(issuing: &Issuing, number: i64, now: i64) -> Result<Pending, Failure> {
    let mut open = pending(issuing, now)?.into_iter();
    let found = open.find(|open| open.number == number);
    // It may be redeemed in this very moment; then there is nothing to take back.
    match found {
        Some(found)
            if issuing
                .authority()
                .withdraw(number, now)
                .map_err(authority)? =>
        {
            Ok(found)
        }
        Some(_) | None => Err(Failure::no(format!(
            "no invitation that is open has the number {number}"
        ))
        .with_hint(Some("`adit-server invitations` lists those that are"))),
    }
}

/// `adit-server invite`.
///
/// # Errors
/// When nobody can be invited.
pub fn invite(gateway: &GatewayArgs, invited: &Invited, json: bool) -> Result<(), Failure> {
    let answer: Answer = asked(gateway, &Request::Invite(invited.clone()), |files| {
        let now = clock::unix_seconds();
        let Files {
            config,
            policy,
            credentials,
            issuing,
        } = files;
        let name = gateway_name(config, credentials);
        let answer = make(issuing, &name, config, policy, invited, now)?;
        files.audit()?.write(&answer.event());
        Ok(answer)
    })?;
    admin::print(json, &answer, Answer::render)
}

/// `adit-server invitations`.
///
/// # Errors
/// When there is no such invitation, or nobody can tell.
pub fn invitations(
    gateway: &GatewayArgs,
    withdraw: Option<i64>,
    json: bool,
) -> Result<(), Failure> {
    let Some(number) = withdraw else {
        let request = Request::Invitations {};
        let open: Vec<Pending> = asked(gateway, &request, |files| {
            pending(&files.issuing, clock::unix_seconds())
        })?;
        return admin::print(json, &open, |open| render(open));
    };
    let request = Request::Withdraw { number };
    let withdrawn: Pending = asked(gateway, &request, |files| {
        let withdrawn = take_back(&files.issuing, number, clock::unix_seconds())?;
        files.audit()?.write(&withdrawn.event());
        Ok(withdrawn)
    })?;
    admin::print(json, &withdrawn, |withdrawn| {
        format!("{} is invited no more\n", withdrawn.principal)
    })
}

/// There is no section.
pub fn off() -> Failure {
    Failure::no("this gateway issues no certificates").with_hint(Some(
        "add the section [enrolment] to server.toml, as config/server.toml shows it, and reload",
    ))
}

/// What a running gateway would know.
struct Files {
    config: ServerConfig,
    policy: Policy,
    credentials: Credentials,
    issuing: Issuing,
}

impl Files {
    fn audit(&self) -> Result<Audit, Failure> {
        Ok(Audit::open(&self.config.audit_log).map_err(LoadError::from)?)
    }
}

/// Asks the running gateway, or the files where none runs.
fn asked<T: DeserializeOwned>(
    gateway: &GatewayArgs,
    request: &Request,
    from_files: impl FnOnce(&Files) -> Result<T, Failure>,
) -> Result<T, Failure> {
    admin::ask_or(gateway, request, |config| {
        let enrolment = config.enrolment.as_ref().ok_or_else(off)?;
        let credentials = load::credentials(&config)?;
        from_files(&Files {
            policy: load::policy(&config)?,
            issuing: Issuing::open(enrolment, &credentials)?,
            credentials,
            config,
        })
    })
}

/// What to give to `adit enroll`: a name in the gateway's certificate, and the port unless it is the usual one.
pub fn gateway_name(config: &ServerConfig, credentials: &Credentials) -> String {
    let configured = config
        .enrolment
        .as_ref()
        .and_then(|enrolment| enrolment.gateways.first());
    if let Some(gateway) = configured {
        return gateway.strip_suffix(":443").unwrap_or(gateway).to_owned();
    }
    let names = credentials
        .chain
        .first()
        .map(|leaf| identity::server_names(leaf));
    let name = names.and_then(|names| names.into_iter().next());
    let name = name.unwrap_or_else(|| "GATEWAY".to_owned());
    match config.listen.port() {
        443 => name,
        port if name.contains(':') => format!("[{name}]:{port}"),
        port => format!("{name}:{port}"),
    }
}

fn render(open: &[Pending]) -> String {
    if open.is_empty() {
        return "no invitation is open\n".to_owned();
    }
    let now = clock::unix_seconds();
    let mut text = format!(
        "{:<8} {:<32} {:<20} expires\n",
        "number", "principal", "groups"
    );
    for Pending {
        number,
        principal,
        groups,
        expires,
    } in open
    {
        let groups = groups.join(",");
        let left = lasting(expires - now);
        let _ = writeln!(text, "{number:<8} {principal:<32} {groups:<20} in {left}");
    }
    text
}

/// A span of time in the largest unit that tells enough.
fn lasting(seconds: i64) -> String {
    let (number, unit) = match seconds {
        172_800.. => ((seconds + 43_200) / 86_400, "days"),
        7200.. => ((seconds + 1800) / 3600, "hours"),
        _ => ((seconds.max(0) + 59) / 60, "minutes"),
    };
    format!("{number} {unit}")
}

fn authority(error: AuthorityError) -> Failure {
    Failure::input(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_one_unit() {
        for (seconds, text) in [
            (259_200, "3 days"),
            (259_190, "3 days"),
            (86_400, "24 hours"),
            (5400, "90 minutes"),
            (30, "1 minutes"),
            (-5, "0 minutes"),
        ] {
            assert_eq!(lasting(seconds), text);
        }
    }
}
