//! The control plane: events are written down, questions answered, signals obeyed. It may wait; packets do not.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use adit_core::close::Refusal;
use adit_core::dataplane::{Denied, TokenBucket};
use adit_core::flow::RuleAccounts;
use adit_core::session::UserAgent;
use adit_core::status::{GatewayStatus, RuleTexts, Traffic, Usage, rules_traffic};
use adit_core::table::leases::LeaseEntry;
use adit_net::host::Host;
use adit_net::signals::{Signal, Signals};
use adit_net::{clock, control_socket};
use adit_tunnel::{GatewayEvent, Holder, SessionId, SessionInfo};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use crate::accounting::Accounting;
use crate::admin;
use crate::audit::{self, Audit, Event};
use crate::certificates::{self, Certificates, Reminders, Warning};
use crate::conversations::{Conversations, Heard, Message};
use crate::desk::Desk;
use crate::engines::Engines;
use crate::issuing::Decision;
use crate::lease_store::LeaseStore;
use crate::lists::{self, Ages, Newest, Watch};
use crate::load::Loaded;
use crate::network::Machine;
use crate::resigning::Resigning;
use crate::state::{Keys, State};

/// What the control plane knows and holds.
pub struct Control<'a> {
    /// The configuration file.
    pub path: &'a Path,
    /// What it and the files it names said when they were read last.
    pub loaded: Loaded,
    /// The machine.
    pub machine: Machine,
    /// The gateway's part of the host.
    pub host: &'a mut Host,
    /// What survives a restart.
    pub state: State,
    /// The keys in it.
    pub keys: Keys,
    /// Where questions come.
    pub admin: control_socket::Listener,
    /// Where those who come there are heard and answered.
    pub conversations: Conversations,
    /// What they say.
    pub heard: UnboundedReceiver<Heard>,
    /// The packet threads.
    pub engines: Engines,
    /// The front desk.
    pub desk: Desk,
    /// The audit log.
    pub audit: Audit,
    /// The accounts.
    pub accounting: Accounting,
    /// What is known of certificates.
    pub certificates: Certificates,
    /// The leases as they were told last.
    pub leases: Vec<LeaseEntry>,
    /// Where they are saved.
    pub lease_store: LeaseStore,
    /// Where what the authority decided is told, and heard.
    pub decided: UnboundedSender<Decision>,
    /// The other end.
    pub decisions: UnboundedReceiver<Decision>,
    /// What may be told of refusals.
    pub refusals: RefusalLog,
    /// The newest revocation lists.
    pub newest: Newest,
    /// Their files.
    pub watch: Watch,
    /// How old the lists were when it was told last.
    pub ages: Ages,
    /// Whether that of the authority which issues is to be signed anew.
    pub resigning: Resigning,
    /// Which certificates that end soon have been told of.
    pub reminders: Reminders,
}

impl Control<'_> {
    /// Serves until a signal says stop, or until `ended` resolves, whose result is returned.
    pub async fn serve<T>(
        &mut self,
        signals: &mut Signals,
        events: &mut UnboundedReceiver<GatewayEvent>,
        ended: impl Future<Output = T>,
    ) -> Option<T> {
        let mut minute = tokio::time::interval(SAVE_EVERY);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut minutes: u32 = 0;
        let mut ended = std::pin::pin!(ended);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle_events(event, events).await,
                    None => return None,
                },
                decision = self.decisions.recv() => {
                    if let Some(decision) = decision {
                        self.record(&decision);
                    }
                }
                accepted = self.conversations.accept(&self.admin) => {
                    if let Err(error) = accepted {
                        warn!(%error, "an admin connection failed");
                    }
                }
                heard = self.heard.recv() => {
                    if let Some((message, conversation)) = heard {
                        admin::answer(message, conversation, self).await;
                    }
                }
                signal = signals.next() => match signal {
                    // Its outcome is in the log; nobody waits for an answer.
                    Signal::Reload => drop(self.reload("signal").await),
                    Signal::Stop(signal) => {
                        info!(signal, "stopping");
                        return None;
                    }
                },
                _ = look.tick() => {
                    let now = clock::unix_seconds();
                    self.certificates.save_in_time(Instant::now(), now);
                    self.resigning.look(self.loaded.issuing.as_ref(), now);
                    if self.watch.changed(&self.loaded.config) {
                        self.follow_lists().await;
                    }
                }
                _ = minute.tick() => {
                    let now = clock::unix_seconds();
                    self.ages.tell(self.ageing(now), now);
                    self.reminders.tell(self.ending(now), now);
                    if let Some(status) = self.engines.status().await {
                        self.accounting.save(&self.state, &status, &self.loaded.policy);
                        if minutes.is_multiple_of(MINUTES_BETWEEN_USES) {
                            self.certificates.in_use(&status, now);
                        }
                    }
                    minutes = minutes.wrapping_add(1);
                }
                result = &mut ended => return Some(result),
            }
        }
    }

    /// Writes down the revocation lists that did not count before, and remembers them, so that no older ones count
    /// after a restart.
    pub fn remember_lists(&mut self) {
        let news = self.newest.remember(&self.loaded.authorities);
        if news.is_empty() {
            return;
        }
        for (authority, list) in news {
            let facts = list.facts();
            self.audit.write(&Event::Revoke {
                authority: authority.name(),
                issuer: &facts.issuer_name,
                list: facts.number.to_string(),
                certificates: facts.entries,
            });
        }
        if let Err(error) = self.state.save_newest_lists(&self.newest) {
            warn!(%error, "a restart would not know the newest revocation lists");
        }
    }

    /// Writes down how everything ended, after the engines have.
    pub fn finish(&mut self, events: &mut UnboundedReceiver<GatewayEvent>) {
        while let Ok(event) = events.try_recv() {
            self.handle_event(event);
        }
        while let Ok(decision) = self.decisions.try_recv() {
            self.record(&decision);
        }
        while let Ok((message, conversation)) = self.heard.try_recv() {
            match message {
                Message::Invited(outcome) => self.invited(outcome, conversation),
                Message::Withdrawn(outcome) => self.withdrawn(outcome, conversation),
                // Who asks is told by the end of the connection.
                Message::Asked(_) => {}
            }
        }
        let nobody = GatewayStatus::default();
        self.accounting
            .save(&self.state, &nobody, &self.loaded.policy);
        self.certificates.save(clock::unix_seconds());
        self.audit.write(&Event::Stop);
    }

    /// Everything `status` shows; `None` when an engine has ended.
    pub async fn status(&self) -> Option<GatewayStatus> {
        let mut status = self.engines.status().await?;
        status.listen = self.loaded.config.listen.to_string();
        if let Some(more) = self.desk.status().await {
            status.connections += more.connections;
            status.total.add(&more.traffic);
        }
        status.warnings = self.warnings();
        Some(status)
    }

    /// What an operator should do something about.
    fn warnings(&self) -> Vec<String> {
        let now = clock::unix_seconds();
        let mut warnings = self.ageing(now);
        warnings.extend(self.ending(now).into_iter().map(|warning| warning.text));
        warnings
    }

    /// Revocation lists that grow old, and the one that cannot be signed anew.
    fn ageing(&self, now: i64) -> Vec<String> {
        let mut warnings = lists::warnings(&self.loaded.authorities, now);
        warnings.extend(self.resigning.warning().map(str::to_owned));
        warnings
    }

    /// Certificates that end soon.
    fn ending(&self, now: i64) -> Vec<Warning> {
        let mut ending = certificates::warnings(&self.loaded, now);
        ending.extend(self.certificates.ending(now));
        ending
    }

    /// Everything `usage` shows; `None` when an engine has ended.
    pub async fn usage(&self) -> Option<Usage> {
        let status = self.engines.status().await?;
        Some(self.accounting.total(&status))
    }

    /// Writes down what happened, and whose addresses are others, once for everything that waits.
    async fn handle_events(
        &mut self,
        first: GatewayEvent,
        more: &mut UnboundedReceiver<GatewayEvent>,
    ) {
        let mut leases_changed = false;
        let mut next = Some(first);
        while let Some(event) = next {
            leases_changed |= matches!(event, GatewayEvent::LeasesChanged);
            self.handle_event(event);
            next = more.try_recv().ok();
        }
        self.certificates
            .save_in_time(Instant::now(), clock::unix_seconds());
        if leases_changed && let Some(leases) = self.desk.leases().await {
            self.audit.write_leases(&self.leases, &leases);
            self.leases = leases;
        }
    }

    fn handle_event(&mut self, event: GatewayEvent) {
        match event {
            GatewayEvent::Opened(session) => self.opened(&session),
            GatewayEvent::Refused {
                remote,
                holder,
                refusal,
            } => self.refused(remote, holder.as_deref(), &refusal),
            GatewayEvent::HandedOver {
                session,
                before,
                serial,
            } => self.handed_over(&session, before, &serial),
            GatewayEvent::Closed {
                session,
                counters,
                rules,
                reason,
            } => self.closed(&session, &Traffic::from(&*counters), &rules, &reason),
            GatewayEvent::Denied { session, denied } => self.denied(&session, &denied),
            GatewayEvent::Regranted(difference) => {
                info!("the policy says something else now: {difference}");
                let sessions = &difference;
                self.audit.write(&Event::Regrant { sessions });
            }
            GatewayEvent::CertificateAsked(question) => self.decide(*question),
            GatewayEvent::GuessRefused { remote } => self.guessed(remote),
            GatewayEvent::LeasesChanged => {}
        }
    }

    fn opened(&mut self, session: &SessionInfo) {
        info!(
            principal = %session.identity.principal,
            serial = session.identity.serial,
            addresses = ?session.addresses,
            remote = %session.remote,
            device = session.user_agent.as_ref().map(UserAgent::device),
            "session opened"
        );
        self.accounting.open_session(session);
        self.certificates.opened(session, clock::unix_seconds());
        self.audit.write(&Event::Connect {
            session: audit::Session::from(session),
            groups: &session.groups,
        });
    }

    fn handed_over(&mut self, session: &SessionInfo, before: SessionId, serial: &str) {
        info!(
            principal = %session.identity.principal,
            serial = session.identity.serial,
            addresses = ?session.addresses,
            remote = %session.remote,
            "session goes on over a new connection"
        );
        self.certificates
            .handed_over(before, session, clock::unix_seconds());
        self.audit.write(&Event::Handover {
            session: audit::Session::from(session),
            before: before.0,
            serial_before: serial,
            groups: &session.groups,
        });
    }

    fn closed(
        &mut self,
        session: &SessionInfo,
        traffic: &Traffic,
        accounts: &RuleAccounts,
        reason: &str,
    ) {
        info!(
            principal = %session.identity.principal,
            remote = %session.remote,
            reason,
            "session closed"
        );
        let mut texts = RuleTexts::new();
        let rules = rules_traffic(accounts, &mut texts);
        self.accounting
            .close_session(session, traffic, &rules, &texts);
        self.certificates.closed(session, clock::unix_seconds());
        self.audit.write(&Event::Disconnect {
            session: audit::Session::from(session),
            reason,
            seconds: (clock::unix_seconds() - session.since).max(0),
            traffic,
            rules: &rules,
        });
    }

    fn denied(&mut self, session: &SessionInfo, denied: &Denied) {
        for (denial, packets) in &denied.kinds {
            debug!(
                principal = %session.identity.principal,
                direction = ?denial.direction,
                far = %denial.far,
                protocol = denial.protocol,
                port = denial.port,
                rule = denial.rule.as_ref().map(|rule| rule.name()),
                packets,
                "packets denied"
            );
        }
        self.audit.write(&Event::Denied {
            session: audit::Session::from(session),
            kinds: denied.kinds.iter().map(audit::Kind::from).collect(),
            others: denied.others,
        });
    }

    fn refused(&mut self, remote: SocketAddr, holder: Option<&Holder>, refusal: &Refusal) {
        if let Some(holder) = holder {
            self.certificates
                .refused(remote, holder, refusal, clock::unix_seconds());
        }
        let Some(suppressed) = self.refusals.take(Instant::now()) else {
            return;
        };
        let principal = holder.map(|holder| holder.identity.principal.as_str());
        warn!(%remote, principal, reason = %refusal, suppressed, "connection refused");
        self.audit.write(&Event::Refuse {
            remote,
            principal,
            kind: refusal.kind.name(),
            reason: refusal.to_string(),
            suppressed,
        });
    }
}

/// Refusals that are told: all of them in ordinary times, a sample of a flood.
pub struct RefusalLog {
    allowance: TokenBucket,
    suppressed: u64,
}

impl RefusalLog {
    /// Nothing has been told yet.
    pub fn new(now: Instant) -> Self {
        Self {
            allowance: TokenBucket::new(now, REFUSALS_PER_SECOND, REFUSAL_BURST),
            suppressed: 0,
        }
    }

    /// How many have not been told since the last one; `None` when this one is not told either.
    pub(crate) fn take(&mut self, now: Instant) -> Option<u64> {
        if self.allowance.take(now) {
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }
}

/// Strangers must not be able to fill the disk.
const REFUSALS_PER_SECOND: u32 = 5;
const REFUSAL_BURST: u32 = 50;
/// A revoked principal must be out within a second; this costs a `stat` for each list.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What a gateway that is killed forgets of its accounts.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// And what it forgets of when certificates were used, whose sessions are open.
const MINUTES_BETWEEN_USES: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_told_in_part_with_the_number_of_the_rest() {
        let start = Instant::now();
        let mut log = RefusalLog::new(start);
        let told = (0..1000).filter(|_| log.take(start).is_some()).count();
        assert_eq!(told, 50);
        assert_eq!(log.take(start + Duration::from_secs(1)), Some(950));
        assert_eq!(log.take(start + Duration::from_secs(1)), Some(0));
    }
}
