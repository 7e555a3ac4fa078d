//! The one thread that moves packets: waits for input, feeds the engine, writes what it says.
//!
//! ```text
//! outside → inside   recvmmsg ─ datagrams ─► engine ─ packets ─► TUN
//! inside → outside   TUN ─ packets ─► engine ─ batches of datagrams ─► sendmsg with UDP_SEGMENT
//! ```
//!
//! No lock, no channel and no other thread between the two devices. What cannot be served at once waits
//! in a [`FairQueue`] on either side, where it is served by sessions and flows in turn, and where the
//! one who sends too much is the one who loses. The kernel's queues, which know no sessions, stay short.
//! When the socket is full, the batch at hand is kept.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Instant;

use adit_core::fair::{self, FairQueue, Lane};
use adit_core::offload::Offload;
use bytes::{Bytes, BytesMut};
use quinn_udp::EcnCodepoint;

use crate::foothold::Foothold;
use crate::poll::{Poller, Watch};
use crate::tun::{Tun, Waiting};
use crate::udp::{Received, Transmit, Udp};

/// What the loop drives: an engine with its commands and events.
///
/// After any number of `handle_*` calls the loop calls `handle_timeout` once and then drains the polls.
pub trait Engine {
    /// Spare bytes the engine wants in front of every packet from the TUN device.
    const HEADROOM: usize;
    /// One datagram from outside.
    fn handle_udp(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local_ip: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        datagram: BytesMut,
    );
    /// One packet of up to 64 KiB from the TUN device, with [`Self::HEADROOM`] bytes in front, and what
    /// is left to be done on it.
    fn handle_inside(&mut self, now: Instant, packet: BytesMut, offload: Offload);
    /// Whose turn a packet from the TUN device takes; `seed` is for [`fair::lane_of`].
    fn lane(&self, packet: &[u8], seed: u64) -> Lane;
    /// So many packets from the TUN device were dropped unseen, because more came than could be served.
    fn handle_overflow(&mut self, packets: usize);
    /// Whether what waits for a transmit fills one.
    fn has_full_batch(&self) -> bool;
    /// Somebody used the loop's waker, or more was left: look for commands. `Break` ends the loop after a last drain.
    fn handle_wake(&mut self, now: Instant) -> ControlFlow<(), Commands>;
    /// Time has passed, or input was given.
    fn handle_timeout(&mut self, now: Instant);
    /// The next datagrams to send, written to `buf`.
    fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Outgoing>;
    /// The next packet for the TUN device.
    fn poll_inside(&mut self) -> Option<Bytes>;
    /// The TUN device refused so many packets of `poll_inside`: they are lost, and should be counted.
    fn handle_refused(&mut self, packets: usize);
    /// Passes events on to the control plane.
    fn report(&mut self, now: Instant);
    /// When `handle_timeout` must be called at the latest.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// What [`Engine::handle_wake`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commands {
    /// Every command there was is served.
    Served,
    /// Packets have their turn before the rest.
    More,
}

/// Where datagrams in a transmit buffer go.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// The peer.
    pub destination: SocketAddr,
    /// The address of ours to send from.
    pub src_ip: Option<IpAddr>,
    /// The length of each datagram but the last; `None` for a single one.
    pub segment_size: Option<usize>,
}

/// The devices and what waits for them.
#[derive(Debug)]
pub struct DataLoop {
    udp: Udp,
    tun: Tun,
    poller: Poller,
    received: Vec<Received>,
    /// Read from the socket and not yet served.
    outside: FairQueue<Received>,
    /// Read from the TUN device and not yet served.
    inside: FairQueue<(BytesMut, Offload)>,
    /// Whether packets came from the TUN device in the turn before.
    flows: bool,
    answers: Answers,
    /// Keeps others from choosing whose turn they share.
    seed: u64,
    batch: Vec<u8>,
    /// A batch the socket had no room for.
    kept: Option<Outgoing>,
}

impl DataLoop {
    /// A loop over these devices, which waits with `poller`.
    pub fn new(udp: Udp, tun: Tun, poller: Poller) -> Self {
        Self {
            udp,
            tun,
            poller,
            received: Vec::new(),
            outside: FairQueue::new(BACKLOG),
            inside: FairQueue::new(BACKLOG),
            flows: false,
            answers: Answers::default(),
            seed: RandomState::new().build_hasher().finish(),
            batch: Vec::new(),
            kept: None,
        }
    }

    /// Runs until the engine ends it or a device is gone.
    ///
    /// # Errors
    /// When a device is unusable. One packet or datagram that the kernel refuses is not such a case.
    pub fn run<E: Engine>(&mut self, engine: &mut E) -> io::Result<()> {
        let mut commands = Commands::Served;
        let mut foothold = Foothold::new(Instant::now());
        loop {
            let now = Instant::now();
            let serves = commands == Commands::More
                || !self.outside.is_empty()
                || (!self.inside.is_empty() && self.kept.is_none());
            let deadline = if serves {
                Some(now)
            } else {
                engine.poll_timeout()
            };
            let watch = Watch {
                udp: &self.udp,
                until_writable: self.kept.is_some(),
                tun: &self.tun,
            };
            let ready = self.poller.wait(watch, now, deadline)?;
            let now = Instant::now();
            let mut ends = false;
            if ready.woken || commands == Commands::More {
                match engine.handle_wake(now) {
                    ControlFlow::Continue(rest) => commands = rest,
                    ControlFlow::Break(()) => ends = true,
                }
            }
            if ready.udp && !is_enough(&self.outside) {
                self.read_outside()?;
            }
            // While the socket is full nothing is served, and a device that is not read would end every wait.
            let mut flows = !ready.tun.is_empty();
            if flows && (self.kept.is_some() || !is_enough(&self.inside)) {
                self.read_inside(engine, ready.tun)?;
            }
            self.outside_to_inside(engine, now);
            flows |= self.read_answers(engine)?;
            self.flows = flows;
            self.inside_to_outside(engine, now);
            engine.handle_timeout(now);
            self.transmit(engine);
            self.deliver(engine);
            engine.report(now);
            foothold.review(now);
            if ends {
                return Ok(());
            }
        }
    }

    /// Reads a turn's worth, or all there is if several compete for it: whoever is to wait, or to lose
    /// something, is then chosen here and not by the kernel.
    fn read_outside(&mut self) -> io::Result<()> {
        for _ in 0..READS {
            let more = self.udp.recv(&mut self.received)?;
            for batch in self.received.drain(..) {
                let session = match batch.remote.ip() {
                    IpAddr::V4(ip) => fair::hash(self.seed, &ip.octets()),
                    IpAddr::V6(ip) => fair::hash(self.seed, &ip.octets()),
                };
                let lane = Lane {
                    session: session ^ u64::from(batch.remote.port()),
                    flow: 0,
                };
                // QUIC notices what is lost.
                self.outside.push(lane, batch.data.len(), batch);
            }
            if !more || is_enough(&self.outside) {
                break;
            }
        }
        Ok(())
    }

    /// The same from the TUN device.
    fn read_inside<E: Engine>(&mut self, engine: &mut E, mut waiting: Waiting) -> io::Result<()> {
        for read in 1..=PACKETS_CONTENDED {
            match self.tun.recv_waiting(&mut waiting, E::HEADROOM) {
                Ok(Some((packet, offload))) => {
                    let lane = engine.lane(&packet[E::HEADROOM..], self.seed);
                    let is_small = packet.len() <= SMALL;
                    let dropped = self.inside.push(lane, packet.len(), (packet, offload));
                    if dropped > 0 {
                        engine.handle_overflow(dropped);
                    }
                    // The first of its kind does not wait for a look whether another follows.
                    if is_small && !self.flows {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => return Err(error),
            }
            let enough = is_enough(&self.inside) && self.kept.is_none();
            if enough || (read >= PACKETS && !self.inside.is_contended()) {
                break;
            }
        }
        Ok(())
    }

    /// Reads what the kernel answers by itself to what it was just given, without a wait in between; gives whether it
    /// did.
    fn read_answers<E: Engine>(&mut self, engine: &mut E) -> io::Result<bool> {
        let answered = self.tun.answered();
        let has_room = self.kept.is_none() && !is_enough(&self.inside);
        if answered.is_empty() || !has_room || !self.answers.are_likely() {
            return Ok(false);
        }
        let before = self.inside.bytes();
        self.read_inside(engine, answered)?;
        let found = self.inside.bytes() > before;
        self.answers.learn(found);
        Ok(found)
    }

    /// Serves a turn's worth of what came from outside.
    fn outside_to_inside(&mut self, engine: &mut impl Engine, now: Instant) {
        let mut bytes = 0;
        while bytes < TURN
            && let Some(mut batch) = self.outside.pop()
        {
            bytes += batch.data.len();
            while let Some(datagram) = batch.next_datagram() {
                engine.handle_udp(now, batch.remote, batch.local_ip, batch.ecn, datagram);
            }
        }
        if bytes > 0 {
            engine.handle_timeout(now);
            self.deliver(engine);
        }
    }

    /// Serves a turn's worth of what came from inside.
    fn inside_to_outside<E: Engine>(&mut self, engine: &mut E, now: Instant) {
        let mut bytes = 0;
        while bytes < TURN
            && self.kept.is_none()
            && let Some((packet, offload)) = self.inside.pop()
        {
            bytes += packet.len();
            engine.handle_inside(now, packet, offload);
            // Sent while it is in the cache, and before the queue holds more than a batch or two.
            self.transmit_while(engine, E::has_full_batch);
        }
    }

    fn transmit<E: Engine>(&mut self, engine: &mut E) {
        self.transmit_while(engine, |_| true);
    }

    /// Sends what waits, batch by batch, as long as the engine is as `more` asks and the socket has room.
    fn transmit_while<E: Engine>(&mut self, engine: &mut E, more: impl Fn(&E) -> bool) {
        while more(engine) {
            let outgoing = match self.kept.take() {
                Some(kept) => kept,
                // The pacer lets so many bytes pass per moment: each batch has its own.
                None => match engine.poll_transmit(Instant::now(), &mut self.batch) {
                    Some(outgoing) => outgoing,
                    None => break,
                },
            };
            let sent = self.udp.send(&Transmit {
                destination: outgoing.destination,
                ecn: None,
                contents: &self.batch,
                segment_size: outgoing.segment_size,
                src_ip: outgoing.src_ip,
            });
            if sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                self.kept = Some(outgoing);
                break;
            }
        }
    }

    fn deliver(&mut self, engine: &mut impl Engine) {
        while let Some(packet) = engine.poll_inside() {
            self.tun.send(packet);
        }
        let refused = self.tun.flush();
        if refused > 0 {
            engine.handle_refused(refused);
        }
    }
}

/// Whether looking for answers at once pays: where packets go on into a network, none is there yet.
#[derive(Debug, Default)]
struct Answers {
    /// Turns without one, in a row.
    without: u32,
}

impl Answers {
    fn are_likely(&mut self) -> bool {
        let likely = self.without < PATIENT || self.without.is_multiple_of(SELDOM);
        self.without = self.without.wrapping_add(1);
        likely
    }

    fn learn(&mut self, found: bool) {
        if found {
            self.without = 0;
        }
    }
}

/// Whether a queue has what a turn serves, and nobody else who would have to wait for it.
fn is_enough<T>(queue: &FairQueue<T>) -> bool {
    queue.bytes() >= TURN && !queue.is_contended()
}

/// Bytes served from one side before the other has its turn: what one way sends is what the other waits.
const TURN: usize = 256 * 1024;
/// Bytes that wait on either side: some milliseconds of work. Above it, the longest flow loses.
const BACKLOG: usize = 4 * 1024 * 1024;
/// Receive calls in a row: more than a turn serves, so that a backlog builds up here.
const READS: usize = 2;
/// Turns without an answer before it is looked for in one of [`SELDOM`] only: an answer or two may be late.
const PATIENT: u32 = 8;
/// A look that finds nothing is a system call; this many turns hide it.
const SELDOM: u32 = 64;
/// What voice, a keystroke or a question is made of, in bytes.
const SMALL: usize = 512;
/// Packets from the TUN device in a row. More small ones would arrive at the other end in bursts that overrun the
/// buffers of programs: with 512, one in twenty of 100,000 a second was lost there.
const PACKETS: usize = 64;
/// The same when several compete: more than anybody sends while a turn is served, or the kernel's queue, which
/// knows no sessions, would choose who loses.
const PACKETS_CONTENDED: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_answered_at_once_that_is_seldom_looked_for() {
        let mut answers = Answers::default();
        let looks = (0..1000).filter(|_| answers.are_likely()).count();
        assert!((8..30).contains(&looks), "{looks} looks in 1000 turns");
        answers.learn(true);
        let likely = (0..8).all(|_| answers.are_likely());
        assert!(likely && !answers.are_likely());
    }
}
