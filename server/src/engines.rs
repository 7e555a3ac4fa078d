//! The packet threads: one per engine, each with a socket, a TUN queue and an inbox of its own.
//!
//! ```text
//! control plane, front desk, other packet threads ── commands ──► inbox ─► packet thread ── events ──►
//! ```
//!
//! Whoever has something to say leaves it in the inbox and wakes the thread; nobody waits for anybody.
//! What neighbours hand over is bounded; what is above that is dropped and counted at its sender.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use adit_core::admission::diff::FlowLoss;
use adit_core::status::GatewayStatus;
use adit_net::data_loop::DataLoop;
use adit_net::poll::{Poller, Waker};
use adit_net::tun::Tun;
use adit_net::udp::{Udp, UdpSender};
use adit_tunnel::{Findings, Gateway, GatewayEvent, Inquiry, Stake, ToNeighbour};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::desk::Desk;
use crate::pipeline::{Command, Pipeline};

/// The ways to all packet threads, by number.
#[derive(Clone, Default)]
pub struct Engines {
    ways: Vec<Way>,
}

/// The way to one packet thread.
#[derive(Clone)]
struct Way {
    commands: Sender<Command>,
    waker: Waker,
    waiting: Arc<AtomicUsize>,
}

/// A packet thread that does not run yet.
pub struct Prepared {
    engine: Gateway,
    udp: Udp,
    tun: Tun,
    poller: Poller,
    inbox: Inbox,
}

/// A packet thread's own end.
pub struct Inbox {
    commands: Receiver<Command>,
    /// Bytes from neighbours.
    waiting: Arc<AtomicUsize>,
}

/// The number of engines on a machine with so many cores, of which `asked` were asked for; 0 leaves it to the machine.
pub fn number(asked: u8, cores: usize) -> u8 {
    match (asked, cores) {
        // One session is one engine's. On two cores the other one is the kernel's: interrupts, forwarding.
        (0, 0..=2) => 1,
        (0, cores) => u8::try_from(cores).unwrap_or(u8::MAX).min(MOST_UNASKED),
        (asked, _) => asked,
    }
}

/// Gives each engine its devices, and everybody else the way to it.
///
/// # Errors
/// When the system has nothing to wait with.
pub fn prepare(
    parts: impl Iterator<Item = (Gateway, Udp, Tun)>,
) -> io::Result<(Engines, Vec<Prepared>)> {
    let (mut ways, mut threads) = (Vec::new(), Vec::new());
    for (engine, udp, tun) in parts {
        let poller = Poller::new()?;
        let (commands, inbox) = inbox();
        ways.push(Way {
            commands,
            waker: poller.waker(),
            waiting: Arc::clone(&inbox.waiting),
        });
        threads.push(Prepared {
            engine,
            udp,
            tun,
            poller,
            inbox,
        });
    }
    Ok((Engines { ways }, threads))
}

/// An inbox, and the end that fills it.
pub fn inbox() -> (Sender<Command>, Inbox) {
    let (sender, receiver) = channel();
    let inbox = Inbox {
        commands: receiver,
        waiting: Arc::default(),
    };
    (sender, inbox)
}

/// A way to send through the first engine's socket.
///
/// # Errors
/// When the system has no more descriptors.
pub fn sender(threads: &[Prepared]) -> io::Result<UdpSender> {
    let first = threads.first();
    first
        .ok_or_else(|| io::Error::other("there is no engine"))?
        .udp
        .sender()
}

/// Starts the threads; each tells `ended` how it ended.
///
/// # Errors
/// When the system has no thread to give.
pub fn start(
    threads: Vec<Prepared>,
    engines: &Engines,
    events: &UnboundedSender<GatewayEvent>,
    desk: &Desk,
    ended: &UnboundedSender<io::Result<()>>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let start = |(number, prepared): (usize, Prepared)| {
        let Prepared {
            engine,
            udp,
            tun,
            poller,
            inbox,
        } = prepared;
        let (neighbours, events, desk) = (engines.clone(), events.clone(), desk.clone());
        let mut pipeline = Pipeline::new(engine, inbox, neighbours, events, desk);
        let mut last_word = LastWord {
            result: Err(io::Error::other("the thread panicked")),
            ended: ended.clone(),
        };
        std::thread::Builder::new()
            .name(format!("packets{number}"))
            .spawn(move || {
                let result = DataLoop::new(udp, tun, poller).run(&mut pipeline);
                last_word.change(result);
            })
    };
    threads.into_iter().enumerate().map(start).collect()
}

/// Tells how a thread ended when it has, however that came about: a gateway without one of its engines must
/// not go on as if nothing had happened.
struct LastWord {
    result: io::Result<()>,
    ended: UnboundedSender<io::Result<()>>,
}

impl LastWord {
    fn change(&mut self, result: io::Result<()>) {
        self.result = result;
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        // The receiver is gone only when the process ends anyway.
        let _ = self.ended.send(result);
    }
}

impl Engines {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.ways.len()
    }

    /// Sends a command. An engine that has ended does not hear it, and nobody else has to.
    pub fn tell(&self, engine: u8, command: Command) {
        if let Some(way) = self.ways.get(usize::from(engine)) {
            way.tell(command);
        }
    }

    /// Ends every engine.
    pub fn shutdown(&self) {
        for way in &self.ways {
            way.tell(Command::Shutdown);
        }
    }

    /// What `status` shows of all together; `None` when one has ended.
    pub async fn status(&self) -> Option<GatewayStatus> {
        let mut answers = self.ask(Command::Status).await?.into_iter();
        let mut all = answers.next()?;
        for status in answers {
            all.add(status);
        }
        Some(all)
    }

    /// What there is of a principal's session; `None` when an engine has ended.
    pub async fn inquire(&self, inquiry: Inquiry) -> Option<Option<Findings>> {
        let inquiry = Arc::new(inquiry);
        let ask = |reply| Command::Inquire(Arc::clone(&inquiry), reply);
        let answers = self.ask(ask).await?.into_iter().flatten();
        // While one replaces another there are two.
        Some(answers.max_by_key(|findings| findings.session.id))
    }

    /// What flows it would cost if sessions had what is at stake, by principal; `None` when an engine has ended.
    pub async fn flow_losses(&self, stakes: &[Stake]) -> Option<BTreeMap<String, FlowLoss>> {
        let mut losses = BTreeMap::new();
        // Every flow of a session is looked at while the engine's packets wait.
        for few in stakes.chunks(STAKES) {
            let few: Arc<[Stake]> = few.into();
            let ask = |reply| Command::Losses(Arc::clone(&few), reply);
            losses.extend(self.ask(ask).await?.into_iter().flatten());
        }
        Some(losses)
    }

    /// Leaves something for a neighbour, who is to be [woken](Self::wake) afterwards; gives it back when too
    /// much waits there already.
    pub fn hand_over(&self, engine: u8, message: ToNeighbour) -> Result<(), ToNeighbour> {
        let Some(way) = self.ways.get(usize::from(engine)) else {
            return Err(message);
        };
        let size = message.size();
        // Several at once may pass the bound by one message each.
        if way.waiting.load(Ordering::Relaxed) + size > MAX_WAITING {
            return Err(message);
        }
        way.waiting.fetch_add(size, Ordering::Relaxed);
        // An engine that has ended needs no packets.
        let _ = way.commands.send(Command::Neighbour(message));
        Ok(())
    }

    /// What each engine answers; `None` when one has ended.
    async fn ask<A>(&self, command: impl Fn(oneshot::Sender<A>) -> Command) -> Option<Vec<A>> {
        // All are asked before the first answer is waited for.
        let asked = self.ways.iter().map(|way| {
            let (reply, answer) = oneshot::channel();
            way.tell(command(reply));
            answer
        });
        let asked: Vec<_> = asked.collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(answer.await.ok()?);
        }
        Some(answers)
    }

    /// Makes a neighbour look into its inbox.
    pub fn wake(&self, engine: usize) {
        if let Some(way) = self.ways.get(engine) {
            way.waker.wake();
        }
    }
}

impl Way {
    fn tell(&self, command: Command) {
        // It has ended, and the process ends too.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

impl Inbox {
    /// The next command, if there is one; the loop is to end when nobody can send any more.
    pub fn next(&self) -> Option<Command> {
        use std::sync::mpsc::TryRecvError;
        match self.commands.try_recv() {
            Ok(command) => {
                if let Command::Neighbour(message) = &command {
                    self.waiting.fetch_sub(message.size(), Ordering::Relaxed);
                }
                Some(command)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Command::Shutdown),
        }
    }
}

/// Eight engines fill any link; more would only divide the sessions further.
const MOST_UNASKED: u8 = 8;
/// Sessions whose flows are counted in a row: less than a millisecond, if they have a hundred each.
const STAKES: usize = 16;
/// Bytes from neighbours that wait for an engine: two turns of a data loop, and half of what one session's queue
/// holds, into which all of it may go at once.
const MAX_WAITING: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_engines_follows_the_cores_unless_it_is_given() {
        let counts = [1, 2, 3, 8, 64].map(|cores| number(0, cores));
        assert_eq!(counts, [1, 1, 3, 8, 8]);
        assert_eq!([1, 64].map(|cores| number(3, cores)), [3, 3]);
    }
}
