//! One admitted session: who, what it may do, what it does, and what passed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_core::admission::Grant;
use adit_core::dataplane::{Counters, Denials, TokenBucket};
use adit_core::flow::{FlowTable, Handle, HashKey, RuleAccounts};
use adit_core::identity::Identity;
use adit_core::policy::Direction;
use adit_core::session::{Assignment, UserAgent};
use adit_core::wire::ip::IpPacket;
use ipnet::IpNet;

use super::term::Term;
use crate::epoch::Epoch;
use crate::holder::Holder;
use crate::path::{InnerMtu, Ipv6};

/// A session's number, never used again while the gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What an operator wants to know of a session when it opens and when it ends.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Its number.
    pub id: SessionId,
    /// Whose it is.
    pub identity: Identity,
    /// The certificate, in DER.
    pub certificate: Arc<[u8]>,
    /// What was shown with it: the intermediates above it, in DER.
    pub issuers: Arc<[Vec<u8>]>,
    /// What the client says about itself.
    pub user_agent: Option<UserAgent>,
    /// Groups of certificate and policy.
    pub groups: Vec<String>,
    /// Inner addresses and site networks.
    pub addresses: Vec<IpNet>,
    /// The outer address of the client.
    pub remote: SocketAddr,
    /// When it opened, in seconds since 1970.
    pub since: i64,
}

/// What an engine knows of an admitted client, its link apart.
pub(crate) struct Session {
    pub(super) id: SessionId,
    pub(super) identity: Identity,
    pub(super) certificate: Arc<[u8]>,
    pub(super) issuers: Arc<[Vec<u8>]>,
    pub(super) user_agent: Option<UserAgent>,
    pub(super) grant: Grant,
    /// The request stream the datagrams belong to.
    pub(super) stream: u64,
    pub(super) since_unix: i64,
    pub(super) term: Term,
    pub(super) mtu: InnerMtu,
    pub(super) ipv6: Ipv6,
    pub(super) counters: Counters,
    pub(super) answers: TokenBucket,
    pub(super) flows: FlowTable,
    /// What passed by the rules of filters that decide no more.
    past: RuleAccounts,
    /// What the policy has refused, and nobody was told yet.
    pub(super) denials: Denials,
    /// The flow of the last packet that went inside.
    pub(super) passed: Option<Passed>,
}

/// A flow that was let inside. The flow table knows whether its next packet may pass; that it goes
/// inside too is good for as long as the table of owners stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    flow: Handle,
    /// The generation of the table of owners.
    tables: u64,
}

/// What a session had before it went over to another link.
pub(super) struct Predecessor {
    pub(super) grant: Grant,
    /// The serial number of its certificate.
    pub(super) serial: String,
}

impl Session {
    /// A session that nothing has passed yet, and that ends with the client's own certificate.
    pub(crate) fn new(
        now: Instant,
        id: SessionId,
        holder: Holder,
        grant: Grant,
        mtu: InnerMtu,
        hash: HashKey,
        epoch: &Epoch,
    ) -> Self {
        Self {
            id,
            term: Term::new(now, id, holder.identity.not_after, grant.maximum, epoch),
            identity: holder.identity,
            certificate: holder.certificate,
            issuers: holder.issuers,
            user_agent: holder.user_agent,
            grant,
            stream: mtu.stream(),
            since_unix: epoch.unix(now),
            ipv6: mtu.ipv6(now),
            mtu,
            counters: Counters::default(),
            answers: answer_limit(now),
            flows: FlowTable::new(now, hash),
            past: RuleAccounts::default(),
            denials: Denials::default(),
            passed: None,
        }
    }

    /// The same, with certificates that count until the calendar reaches `ends`.
    pub(crate) fn ending(self, now: Instant, ends: i64, epoch: &Epoch) -> Self {
        let term = Term::new(now, self.id, ends, self.grant.maximum, epoch);
        Self { term, ..self }
    }

    /// From now on the session may do this, and nothing else: its flows are judged again as they come.
    /// Returns what it had.
    pub(super) fn replace_grant(&mut self, grant: Grant) -> Grant {
        let passed = self.flows.filter_changed();
        self.past.add(&self.grant.filter, &passed);
        std::mem::replace(&mut self.grant, grant)
    }

    /// The session goes on as the one that has arrived: with its number, its link, its certificate and what that may
    /// do. What has passed so far, and what is open, stays. Returns what it had.
    pub(super) fn take_over(&mut self, arrived: Self) -> Predecessor {
        let serial = std::mem::replace(&mut self.identity, arrived.identity).serial;
        let grant = self.replace_grant(arrived.grant);
        self.certificate = arrived.certificate;
        self.issuers = arrived.issuers;
        self.user_agent = arrived.user_agent;
        self.id = arrived.id;
        self.stream = arrived.stream;
        self.term = arrived.term;
        self.mtu = arrived.mtu;
        self.ipv6 = arrived.ipv6;
        self.passed = None;
        Predecessor { grant, serial }
    }

    /// Whether this is the next packet of the flow that went inside last, so that it goes there too.
    pub(super) fn follows(&mut self, now: Instant, packet: &IpPacket<'_>, tables: u64) -> bool {
        let Some(passed) = self.passed.filter(|passed| passed.tables == tables) else {
            return false;
        };
        self.flows
            .follow(now, Direction::FromClient, passed.flow, packet)
    }

    /// The packet of the client that the flow table has judged last went inside.
    pub(super) fn went_inside(&mut self, tables: u64) {
        let flow = self.flows.last(Direction::FromClient);
        self.passed = flow.map(|flow| Passed { flow, tables });
    }

    /// What passed by each rule, those of earlier policies included.
    pub(super) fn accounts(&self) -> RuleAccounts {
        let mut accounts = self.past.clone();
        accounts.add(&self.grant.filter, &self.flows.totals_by_rule());
        accounts
    }

    pub(super) fn info(&self, remote: SocketAddr) -> SessionInfo {
        SessionInfo {
            id: self.id,
            identity: self.identity.clone(),
            certificate: Arc::clone(&self.certificate),
            issuers: Arc::clone(&self.issuers),
            user_agent: self.user_agent.clone(),
            groups: self.grant.groups.clone(),
            addresses: self.grant.addresses.clone(),
            remote,
            since: self.since_unix,
        }
    }

    /// What the client is told: IPv6 only where the path carries it.
    pub(crate) fn assignment(&self) -> Assignment {
        let carried = |v4: bool| v4 || self.ipv6 == Ipv6::Fits;
        Assignment {
            addresses: self
                .grant
                .addresses
                .iter()
                .filter(|prefix| carried(prefix.addr().is_ipv4()))
                .copied()
                .collect(),
            routes: self
                .grant
                .routes
                .iter()
                .filter(|range| carried(range.start().is_ipv4()))
                .cloned()
                .collect(),
            v6_pending: self.ipv6 == Ipv6::Pending,
        }
    }

    /// When the session needs a look without anything arriving.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let settles = (self.ipv6 == Ipv6::Pending).then(|| self.mtu.settles_at());
        [self.term.timeout(), settles].into_iter().flatten().min()
    }
}

pub(super) fn answer_limit(now: Instant) -> TokenBucket {
    TokenBucket::new(now, ANSWERS_PER_SECOND, ANSWER_BURST)
}

/// ICMP errors per second and session: enough for every application to fail at once, too few to
/// be worth reflecting (RFC 4443 §2.4(f)).
const ANSWERS_PER_SECOND: u32 = 100;
const ANSWER_BURST: u32 = 50;
