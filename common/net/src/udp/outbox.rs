//! Batches that another thread sends.
//!
//! Where the system cuts a batch itself, and on one machine also receives it, sending takes longer than sealing. On a second
//! core both go on at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use super::{Outgoing, Udp, UdpSender};

/// Sends long batches on a thread of its own where that pays, and everything in order.
#[derive(Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    may_start: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something is to be sent, or it is the end.
    work: Condvar,
    /// There is room for a batch, or the socket is full.
    room: Condvar,
    /// Batches handed over and not yet sent.
    pending: AtomicUsize,
    /// What a long batch takes, in nanoseconds, smoothed.
    cost: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<(Outgoing, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    /// The socket takes nothing, and the sender waits for that to change.
    socket_is_full: bool,
    ended: bool,
}

impl Outbox {
    /// For one of `senders` threads of this program that have one each: where there are no more cores than those, none
    /// is free to help. The thread starts when it is first needed.
    pub fn new(senders: usize) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            shared: Arc::default(),
            thread: None,
            may_start: cores > senders,
        }
    }

    /// Sends `batch`, or hands it over and leaves another buffer in its place.
    ///
    /// # Errors
    /// `WouldBlock` asks to try again when the socket is writable: the batch is still there. Any other error is about
    /// these datagrams alone; for those handed over nobody hears of it.
    pub fn send(
        &mut self,
        udp: &mut Udp,
        outgoing: Outgoing,
        batch: &mut Vec<u8>,
    ) -> io::Result<()> {
        let is_long = batch.len() >= LONG;
        if self.shared.pending.load(Ordering::Acquire) == 0 {
            let pays = is_long && self.shared.cost.load(Ordering::Relaxed) > WORTH_IT;
            if !(pays && self.start(udp)) {
                let begin = is_long.then(Instant::now);
                let result = udp.send(&outgoing.transmit(batch));
                if let Some(begin) = begin {
                    self.shared.took(begin.elapsed());
                }
                return result;
            }
        }
        self.shared.hand_over(outgoing, batch)
    }

    fn start(&mut self, udp: &Udp) -> bool {
        if self.thread.is_none() && self.may_start {
            let shared = self.shared.clone();
            let thread = udp.sender().and_then(|sender| {
                thread::Builder::new()
                    .name("sender".to_owned())
                    .spawn(move || shared.serve(sender))
            });
            match thread {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => {
                    tracing::warn!(%error, "no second thread for sending");
                    self.may_start = false;
                }
            }
        }
        self.thread.is_some()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // It says itself what it panics of.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No batch is worth more than the others that could still be sent.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&self, outgoing: Outgoing, batch: &mut Vec<u8>) -> io::Result<()> {
        let mut queue = self.lock();
        while queue.batches.len() >= DEPTH {
            if queue.socket_is_full {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            queue = self
                .room
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let spare = queue.spare.pop().unwrap_or_default();
        queue
            .batches
            .push_back((outgoing, mem::replace(batch, spare)));
        self.pending.fetch_add(1, Ordering::Release);
        drop(queue);
        self.work.notify_one();
        Ok(())
    }

    fn serve(&self, mut sender: UdpSender) {
        let mut queue = self.lock();
        loop {
            let Some((outgoing, mut batch)) = queue.batches.pop_front() else {
                if queue.ended {
                    return;
                }
                queue = self
                    .work
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            self.room.notify_one();
            let begin = Instant::now();
            let result = sender.send(&outgoing.transmit(&batch));
            if batch.len() >= LONG {
                self.took(begin.elapsed());
            }
            queue = self.lock();
            queue.socket_is_full =
                result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if queue.socket_is_full {
                if queue.ended {
                    return;
                }
                queue.batches.push_front((outgoing, batch));
                drop(queue);
                self.room.notify_one();
                sender.until_writable(PATIENCE);
                queue = self.lock();
                continue;
            }
            batch.clear();
            queue.spare.push(batch);
            self.pending.fetch_sub(1, Ordering::Release);
        }
    }

    fn took(&self, time: Duration) {
        let time = time.as_nanos() as u64;
        let cost = self.cost.load(Ordering::Relaxed);
        self.cost
            .store(cost - cost / 16 + time / 16, Ordering::Relaxed);
    }
}

/// Bytes from which on a batch is worth waking somebody.
const LONG: usize = 16 * 1024;
/// Nanoseconds. Handing over and waking take some ten thousand on both sides together.
const WORTH_IT: u64 = 40_000;
/// How long the end may take while the socket is full.
const PATIENCE: Duration = Duration::from_millis(100);
/// Batches that wait: enough for both threads to be busy, little to be late.
const DEPTH: usize = 2;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

    use super::*;
    use crate::udp::UdpOptions;

    struct Bed {
        outbox: Outbox,
        udp: Udp,
        peer: UdpSocket,
        outgoing: Outgoing,
    }

    impl Bed {
        fn new() -> Self {
            let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let udp = Udp::bind(loopback, &UdpOptions::default()).expect("bound");
            let peer = UdpSocket::bind(loopback).expect("bound");
            peer.set_read_timeout(Some(Duration::from_secs(30)))
                .expect("set");
            let outgoing = Outgoing {
                destination: peer.local_addr().expect("bound"),
                src_ip: None,
                segment_size: Some(SEGMENT),
            };
            Self {
                outbox: Outbox::new(0),
                udp,
                peer,
                outgoing,
            }
        }

        /// As if a long batch took so long on this machine.
        fn cost(&self, nanoseconds: u64) {
            self.outbox
                .shared
                .cost
                .store(nanoseconds, Ordering::Relaxed);
        }

        /// Datagrams with these numbers in one batch.
        fn send(&mut self, numbers: std::ops::Range<u32>) {
            let mut batch = Vec::new();
            for number in numbers {
                batch.extend_from_slice(&number.to_be_bytes());
                batch.resize(batch.len() + SEGMENT - 4, 0);
            }
            self.outbox
                .send(&mut self.udp, self.outgoing, &mut batch)
                .expect("sent, or handed over");
        }

        fn received(&self) -> u32 {
            let mut datagram = [0; SEGMENT];
            let length = self.peer.recv(&mut datagram).expect("a datagram");
            assert_eq!(length, SEGMENT);
            u32::from_be_bytes([datagram[0], datagram[1], datagram[2], datagram[3]])
        }
    }

    #[test]
    fn datagrams_leave_in_order_whoever_sends_them() {
        let mut bed = Bed::new();
        let mut next = 0;
        for round in 0..200 {
            bed.cost(if round % 3 == 0 { 0 } else { 2 * WORTH_IT });
            let begin = next;
            for count in [20, 1, 20, 2] {
                bed.send(next..next + count);
                next += count;
            }
            (begin..next).for_each(|number| assert_eq!(bed.received(), number));
        }
        assert!(bed.outbox.thread.is_some(), "some were handed over");
    }

    #[test]
    fn cheap_and_short_batches_start_no_thread() {
        let mut bed = Bed::new();
        bed.cost(0);
        bed.send(0..20);
        bed.cost(2 * WORTH_IT);
        bed.send(20..21);
        (0..21).for_each(|number| assert_eq!(bed.received(), number));
        assert!(bed.outbox.thread.is_none());
    }

    #[test]
    fn where_every_core_has_a_sender_there_is_no_other() {
        let mut bed = Bed::new();
        bed.outbox = Outbox::new(usize::MAX);
        bed.cost(2 * WORTH_IT);
        bed.send(0..20);
        (0..20).for_each(|number| assert_eq!(bed.received(), number));
        assert!(bed.outbox.thread.is_none());
    }

    #[test]
    fn the_end_leaves_nothing_unsent() {
        for _ in 0..100 {
            let mut bed = Bed::new();
            bed.cost(2 * WORTH_IT);
            (0..3).for_each(|at| bed.send(at * 20..at * 20 + 20));
            bed.outbox = Outbox::new(0);
            (0..60).for_each(|number| assert_eq!(bed.received(), number));
        }
    }

    #[test]
    fn the_cost_follows_what_batches_take() {
        let shared = Shared::default();
        (0..100).for_each(|_| shared.took(Duration::from_micros(100)));
        assert!(shared.cost.load(Ordering::Relaxed) > WORTH_IT);
        (0..100).for_each(|_| shared.took(Duration::from_micros(10)));
        assert!(shared.cost.load(Ordering::Relaxed) < WORTH_IT);
    }

    const SEGMENT: usize = 1200;
}
