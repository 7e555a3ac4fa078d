//! The front desk's thread: handshakes, certificates and policy, beside the packets and not before them.
//!
//! ```text
//! packet threads ── datagrams of nobody's, ended sessions ──► desk ── handshakes ──► socket
//! packet threads ◄── admitted sessions ────────────────────── desk ── events ─────► control plane
//! lease store    ◄── tables, and when they are saved ──────── desk
//! ```
//!
//! The thread runs at a lower priority than the packets: a storm of handshakes takes what is left.
//! What the packet threads hand over is bounded; datagrams above that are lost, as datagrams may be.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use adit_core::admission::diff::Difference;
use adit_core::close::Refusal;
use adit_core::session::certificate::Issued;
use adit_core::status::Traffic;
use adit_core::table::leases::LeaseEntry;
use adit_net::udp::{Transmit, UdpSender};
use adit_tunnel::{GatewayEvent, Reception, Rehearsal, Renewal, Ticket, ToReception};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::engines::Engines;
use crate::lease_store::LeaseStore;
use crate::pipeline::Command;

/// What the front desk is told.
enum Note {
    Engine(ToReception),
    Leases(oneshot::Sender<Vec<LeaseEntry>>),
    /// The table of this revision is saved; `None` when the one that was to be saved is not.
    LeasesSaved(Option<u64>),
    Status(oneshot::Sender<DeskStatus>),
    Rehearse(Box<Renewal>, oneshot::Sender<Rehearsal>),
    Reload(Box<Renewal>, oneshot::Sender<Difference>),
    Answer(Ticket, Result<Box<Issued>, Refusal>),
    Shutdown,
}

/// What the front desk adds to `status`.
#[derive(Debug, Default)]
pub struct DeskStatus {
    /// Connections that have no session yet, or were refused one.
    pub connections: usize,
    /// What they sent, dropped for that.
    pub traffic: Traffic,
}

/// The way to the front desk; one per thread that talks to it.
#[derive(Clone)]
pub struct Desk {
    notes: Sender<Note>,
    /// Datagrams on their way.
    waiting: Arc<AtomicUsize>,
}

/// The desk's own end.
pub struct Inbox {
    notes: Receiver<Note>,
    waiting: Arc<AtomicUsize>,
}

/// A way to the front desk that does not run yet.
pub fn desk() -> (Desk, Inbox) {
    let (sender, receiver) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let desk = Desk {
        notes: sender,
        waiting: Arc::clone(&waiting),
    };
    let inbox = Inbox {
        notes: receiver,
        waiting,
    };
    (desk, inbox)
}

impl Desk {
    /// Passes on what the engine says; never waits. A datagram too many is dropped.
    pub fn tell(&self, message: ToReception) {
        if matches!(message, ToReception::Datagram(_)) {
            if self.waiting.load(Ordering::Relaxed) >= MAX_WAITING {
                return;
            }
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
        // The desk is gone only while the process ends.
        let _ = self.notes.send(Note::Engine(message));
    }

    /// Who holds which address, whether that is saved or not; `None` when the desk has closed.
    pub async fn leases(&self) -> Option<Vec<LeaseEntry>> {
        let (reply, answer) = oneshot::channel();
        self.notes.send(Note::Leases(reply)).ok()?;
        answer.await.ok()
    }

    /// The table of this revision is saved; `None` when the one that was to be saved is not.
    pub fn leases_saved(&self, revision: Option<u64>) {
        // The desk is gone only while the process ends.
        let _ = self.notes.send(Note::LeasesSaved(revision));
    }

    /// What `status` shows of it.
    pub async fn status(&self) -> Option<DeskStatus> {
        let (reply, answer) = oneshot::channel();
        self.notes.send(Note::Status(reply)).ok()?;
        answer.await.ok()
    }

    /// What [`Self::reload`] would do to the sessions; nothing is done.
    pub async fn rehearse(&self, renewal: Renewal) -> Option<Rehearsal> {
        let (reply, answer) = oneshot::channel();
        let note = Note::Rehearse(Box::new(renewal), reply);
        self.notes.send(note).ok()?;
        answer.await.ok()
    }

    /// Goes over to something else; answers when the engines have been told what their sessions have now.
    pub async fn reload(&self, renewal: Renewal) -> Option<Difference> {
        let (reply, answer) = oneshot::channel();
        let note = Note::Reload(Box::new(renewal), reply);
        self.notes.send(note).ok()?;
        answer.await.ok()
    }

    /// Tells somebody what became of a request for a certificate.
    pub fn answer(&self, ticket: Ticket, outcome: Result<Box<Issued>, Refusal>) {
        // The desk is gone only while the process ends.
        let _ = self.notes.send(Note::Answer(ticket, outcome));
    }

    /// Refuses whoever still waits, and ends the thread.
    pub fn close(&self) {
        let _ = self.notes.send(Note::Shutdown);
    }
}

/// Starts the thread.
///
/// # Errors
/// When the system has no thread to give.
pub fn start(
    reception: Reception,
    inbox: Inbox,
    socket: UdpSender,
    engines: Engines,
    leases: LeaseStore,
    events: UnboundedSender<GatewayEvent>,
) -> io::Result<JoinHandle<()>> {
    let mut thread = Thread {
        reception,
        inbox,
        socket,
        engines,
        leases,
        events,
        reloads: Vec::new(),
        batch: Vec::new(),
    };
    std::thread::Builder::new()
        .name("desk".to_owned())
        .spawn(move || {
            adit_net::priority::yield_to_others();
            thread.run();
        })
}

struct Thread {
    reception: Reception,
    inbox: Inbox,
    socket: UdpSender,
    engines: Engines,
    leases: LeaseStore,
    events: UnboundedSender<GatewayEvent>,
    /// Answers to reloads, of which not all engines have heard.
    reloads: Vec<(oneshot::Sender<Difference>, Difference)>,
    batch: Vec<u8>,
}

impl Thread {
    fn run(&mut self) {
        let mut open = true;
        while open {
            let now = Instant::now();
            let first = match self.reception.poll_timeout() {
                None => self
                    .inbox
                    .notes
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => self
                    .inbox
                    .notes
                    .recv_timeout(due.saturating_duration_since(now)),
            };
            let now = Instant::now();
            match first {
                Ok(note) => open = self.take(now, note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
            // One answer for the datagrams of one flight, and no more work than that in a row.
            for _ in 0..NOTES {
                match self.inbox.notes.try_recv() {
                    Ok(note) => open &= self.take(now, note),
                    Err(_) => break,
                }
            }
            if !open {
                self.reception.shutdown(now);
            }
            self.reception.handle_timeout(now);
            self.drain(now);
        }
    }

    /// Does what a note says; returns whether the desk stays open.
    fn take(&mut self, now: Instant, note: Note) -> bool {
        match note {
            Note::Engine(message) => {
                if matches!(message, ToReception::Datagram(_)) {
                    self.inbox.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                self.reception.handle_message(now, message);
            }
            // Who asked may have gone away meanwhile; then nobody misses the answer.
            Note::Leases(reply) => drop(reply.send(self.reception.leases(now))),
            Note::LeasesSaved(Some(revision)) => self.reception.leases_saved(now, revision),
            Note::LeasesSaved(None) => self.reception.leases_not_saved(now),
            Note::Status(reply) => {
                let status = DeskStatus {
                    connections: self.reception.census().connections,
                    traffic: Traffic::from(self.reception.counters()),
                };
                drop(reply.send(status));
            }
            Note::Rehearse(renewal, reply) => {
                drop(reply.send(self.reception.rehearse(now, &renewal)));
            }
            Note::Reload(renewal, reply) => {
                let difference = self.reception.reload(now, *renewal);
                self.reloads.push((reply, difference));
                self.drain(now);
            }
            Note::Answer(ticket, outcome) => self.reception.answer(ticket, outcome),
            Note::Shutdown => return false,
        }
        true
    }

    fn drain(&mut self, now: Instant) {
        while let Some((engine, message)) = self.reception.poll_message() {
            self.engines.tell(engine, Command::Desk(message));
        }
        if !self.reception.is_holding() {
            for (reply, difference) in self.reloads.drain(..) {
                let _ = reply.send(difference);
            }
        }
        if let Some(table) = self.reception.poll_leases(now) {
            self.leases.save(table);
        }
        while let Some(transmit) = self.reception.poll_transmit(now, &mut self.batch) {
            // What a full socket does not take is lost, and QUIC sends it again.
            let _ = self.socket.send(&Transmit {
                destination: transmit.destination,
                ecn: None,
                contents: &self.batch,
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            });
        }
        while let Some(event) = self.reception.poll_event() {
            let _ = self.events.send(event);
        }
    }
}

/// Datagrams that wait for the desk: a second of handshakes on one core, some 3 MiB.
const MAX_WAITING: usize = 2048;
/// Notes taken before their answers are sent: one handshake's flights cost up to a millisecond.
const NOTES: usize = 16;
