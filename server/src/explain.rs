//! `adit-server explain`: why a flow may be or may not, and what is there of it now.
//!
//! The policy answers, asked with the certificate of the open session or with the one described. Around that
//! stands what only a running gateway knows: the session, what its client was told, its live flows.

use std::fmt::Write as _;

use adit_core::flow::FlowReport;
use adit_core::identity::Principal;
use adit_core::policy::{self, Direction, Explanation, Flow, Policy, Question};
use adit_core::table::leases::LeaseEntry;
use adit_net::clock;
use adit_net::exit::Failure;
use adit_tunnel::{Findings, Inquiry};
use serde::{Deserialize, Serialize};

use crate::cli::Asked;
use crate::config::ServerConfig;
use crate::control::Control;
use crate::load;
use crate::state::State;

/// The answer, as plain data for people and scripts.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Answer {
    /// What the policy says.
    #[serde(flatten)]
    explanation: Explanation,
    /// Who answers.
    answered_by: Source,
    /// What was assumed of the certificate.
    certificate: Certificate,
    /// The leased addresses, if there are any.
    lease: Option<Lease>,
    /// The open session, if there is one.
    session: Option<Session>,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    Gateway,
    Files,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Certificate {
    groups: Vec<String>,
    /// Empty when unknown.
    authority: String,
    /// Whether it is that of the open session, with nothing replaced.
    of_session: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Lease {
    addresses: Vec<String>,
    /// Whether a session uses it; else it is kept until it is needed.
    in_use: bool,
    /// When it was last granted or released, in local time of the policy.
    last_used: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Session {
    id: u64,
    remote: String,
    /// In local time of the policy.
    since: String,
    /// When it ends unless it moves to another connection before, in local time of the policy.
    ends: String,
    /// Serial number of its certificate.
    serial: String,
    /// What the client was told.
    addresses: Vec<String>,
    /// The route towards the far end that the client was told.
    route: Option<String>,
    /// Whether it may begin such a flow now, whatever was asked.
    allowed_now: bool,
    /// Live flows that began as the one asked about, the most recently used first.
    flows: Vec<Live>,
    /// How many more there are.
    more_flows: usize,
}

/// A flow that is there.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Live {
    /// The port at the other end than the one asked about; the identifier of an ICMP query.
    port: u16,
    state: String,
    idle_s: u64,
    packets_from_client: u64,
    bytes_from_client: u64,
    packets_to_client: u64,
    bytes_to_client: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error("{name:?} is no principal: {error}")]
    Principal { name: String, error: String },
    #[error("{message}")]
    Wrong { message: String, hint: &'static str },
    #[error("the gateway is stopping")]
    Stopping,
}

impl From<ExplainError> for Failure {
    fn from(error: ExplainError) -> Self {
        match &error {
            ExplainError::Principal { .. } => {
                Self::input(&error).with_hint(Some("write it as `adit-server status` shows it"))
            }
            ExplainError::Wrong { hint, .. } => Self::input(&error).with_hint(Some(*hint)),
            ExplainError::Stopping => Self::environment(&error),
        }
    }
}

/// A question that makes sense.
struct Checked {
    principal: Principal,
    flow: Flow,
    at: i64,
}

impl Control<'_> {
    /// Answers a question by the policy that counts and the sessions that are open.
    ///
    /// # Errors
    /// When the question is wrong, or the gateway is stopping.
    pub async fn explain(&self, asked: &Asked) -> Result<Answer, Failure> {
        let policy = &self.loaded.policy;
        let checked = check(policy, asked)?;
        let inquiry = Inquiry {
            principal: checked.principal.clone(),
            flow: checked.flow,
        };
        let findings = self.engines.inquire(inquiry).await;
        let findings = findings.ok_or(ExplainError::Stopping)?;
        let leases = self.desk.leases().await.ok_or(ExplainError::Stopping)?;
        let facts = Facts {
            source: Source::Gateway,
            leases: &leases,
            findings: findings.as_ref(),
        };
        Ok(answer(policy, asked, &checked, &facts))
    }
}

/// Answers a question by the files of a gateway that does not run. A policy whose tests fail is explained too:
/// that is when one wants to know.
///
/// # Errors
/// When the question or a file is wrong.
pub fn from_files(config: &ServerConfig, asked: &Asked) -> Result<Answer, Failure> {
    let policy = load::policy(config)?;
    let checked = check(&policy, asked)?;
    let leases = State::at_rest(&config.state_directory).leases();
    let leases = leases.map_err(|error| Failure::environment(&error))?;
    let facts = Facts {
        source: Source::Files,
        leases: &leases,
        findings: None,
    };
    Ok(answer(&policy, asked, &checked, &facts))
}

/// What is known beside the policy.
struct Facts<'a> {
    source: Source,
    leases: &'a [LeaseEntry],
    findings: Option<&'a Findings>,
}

fn check(policy: &Policy, asked: &Asked) -> Result<Checked, ExplainError> {
    let principal =
        Principal::parse(&asked.principal).map_err(|error| ExplainError::Principal {
            name: asked.principal.clone(),
            error: error.to_string(),
        })?;
    let direction = match asked.from {
        true => Direction::ToClient,
        false => Direction::FromClient,
    };
    let wrong = |(message, hint)| ExplainError::Wrong { message, hint };
    let flow = Flow::parse(direction, asked.address, &asked.service).map_err(wrong)?;
    let at = match &asked.at {
        Some(at) => policy.moment(at).map_err(wrong)?,
        None => clock::unix_seconds(),
    };
    Ok(Checked {
        principal,
        flow,
        at,
    })
}

fn answer(policy: &Policy, asked: &Asked, checked: &Checked, facts: &Facts<'_>) -> Answer {
    let identity = facts.findings.map(|findings| &findings.session.identity);
    let certificate = Certificate {
        groups: match identity {
            Some(identity) if asked.groups.is_empty() => identity.groups.clone(),
            Some(_) | None => asked.groups.clone(),
        },
        authority: match (&asked.authority, identity) {
            (Some(authority), _) => authority.clone(),
            (None, Some(identity)) => identity.authority.clone(),
            (None, None) => String::new(),
        },
        of_session: identity.is_some() && asked.groups.is_empty() && asked.authority.is_none(),
    };
    let explanation = policy.explain(&Question {
        principal: &checked.principal,
        authority: &certificate.authority,
        groups: &certificate.groups,
        not_after: identity.map(|identity| identity.not_after),
        flow: checked.flow,
        now: checked.at,
    });
    let lease = facts.leases.iter();
    let mut lease = lease.filter(|entry| entry.principal == checked.principal);
    Answer {
        explanation,
        answered_by: facts.source,
        certificate,
        lease: lease.next().map(|entry| Lease {
            addresses: entry
                .addresses()
                .map(|address| address.to_string())
                .collect(),
            in_use: facts.findings.is_some(),
            last_used: policy.local_time(entry.last_used),
        }),
        session: facts
            .findings
            .map(|findings| Session::of(policy, &checked.flow, findings)),
    }
}

impl Answer {
    /// Whether the flow is allowed.
    pub fn is_allowed(&self) -> bool {
        self.explanation.allowed
    }

    /// In words, a line for each fact, the verdict first.
    pub fn render(&self) -> String {
        let mut text = policy::render(&self.explanation);
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<14}{value}");
        };
        line(
            "answered by",
            match self.answered_by {
                Source::Gateway => "the running gateway",
                Source::Files => "the files; no gateway runs",
            },
        );
        line("certificate", &self.certificate.to_string());
        if let Some(lease) = &self.lease {
            let addresses = lease.addresses.join(", ");
            let use_of_it = match lease.in_use {
                true => "in use".to_owned(),
                false => format!("kept, last used {}", lease.last_used),
            };
            line("lease", &format!("{addresses} ({use_of_it})"));
        }
        let Some(session) = &self.session else {
            if self.answered_by == Source::Gateway {
                line("session", "none is open");
            }
            return text;
        };
        line("session", &session.to_string());
        line("ends", &session.ends);
        line("has", &session.addresses.join(", "));
        let route = session.route.as_deref();
        line("was told", route.unwrap_or("no route that leads there"));
        for live in &session.flows {
            line("live", &live.describe(session.allowed_now));
        }
        match (session.flows.len(), session.more_flows) {
            (0, _) => line("live", "no such flow"),
            (_, 0) => {}
            (_, more) => line("", &format!("and {more} more")),
        }
        text
    }
}

impl std::fmt::Display for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.groups.as_slice() {
            [] => f.write_str("without groups")?,
            groups => write!(f, "with the groups {}", groups.join(", "))?,
        }
        match self.authority.as_str() {
            "" => f.write_str(", authority unknown")?,
            authority => write!(f, ", of the authority {authority}")?,
        }
        f.write_str(match self.of_session {
            true => " (of the open session)",
            false => " (as asked)",
        })
    }
}

impl Session {
    fn of(policy: &Policy, flow: &Flow, findings: &Findings) -> Self {
        let Findings {
            session,
            ends,
            told,
            allowed,
            flows,
            more,
        } = findings;
        let mut routes = told.routes.iter();
        let route = routes.find(|route| {
            route.contains(flow.inside) && [0, flow.protocol].contains(&route.protocol())
        });
        Self {
            id: session.id.0,
            remote: session.remote.to_string(),
            since: policy.local_time(session.since),
            ends: policy.local_time(*ends),
            serial: session.identity.serial.clone(),
            addresses: told.addresses.iter().map(ToString::to_string).collect(),
            route: route.map(ToString::to_string),
            allowed_now: *allowed,
            flows: flows.iter().map(Live::of).collect(),
            more_flows: *more,
        }
    }
}

impl std::fmt::Display for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            id,
            remote,
            since,
            serial,
            ..
        } = self;
        write!(f, "{id}, from {remote} since {since}, certificate {serial}")
    }
}

impl Live {
    fn of(flow: &FlowReport) -> Self {
        Self {
            port: match flow.started_by {
                Direction::FromClient => flow.client.1,
                Direction::ToClient => flow.far.1,
            },
            state: flow.phase.to_string(),
            idle_s: flow.idle.as_secs(),
            packets_from_client: flow.from_client.packets,
            bytes_from_client: flow.from_client.bytes,
            packets_to_client: flow.to_client.packets,
            bytes_to_client: flow.to_client.bytes,
        }
    }

    fn describe(&self, allowed: bool) -> String {
        let Self {
            port,
            state,
            idle_s,
            packets_from_client,
            bytes_from_client,
            packets_to_client,
            bytes_to_client,
        } = self;
        // Judged again when it comes.
        let end = if allowed {
            ""
        } else {
            ", ends with its next packet"
        };
        format!(
            "{state}, from port {port}, {bytes_from_client} bytes in {packets_from_client} packets from the \
             client, {bytes_to_client} in {packets_to_client} to it, silent for {idle_s}s{end}"
        )
    }
}
