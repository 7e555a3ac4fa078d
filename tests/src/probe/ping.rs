//! Ping in both families, with the ICMP errors that come back.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::icmp::{self, Message, Report};
use crate::lab::{Namespace, forbid_fragmentation};

/// Echo requests to one address.
#[derive(Clone, Debug)]
pub struct Ping {
    to: IpAddr,
    from: Option<IpAddr>,
    count: u16,
    every: Duration,
    patience: Duration,
    payload: usize,
    whole: bool,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Requests that left the host.
    pub sent: u16,
    /// Requests answered, duplicates not counted.
    pub received: u16,
    /// Answers that came a second time.
    pub duplicates: u16,
    /// Round-trip times in the order of arrival.
    pub round_trips: Vec<Duration>,
    /// ICMP errors about these requests.
    pub errors: Vec<Report>,
    /// What the own kernel refused to send, with its reason.
    pub unsent: Vec<String>,
    /// Sequence numbers without an answer.
    pub lost: Vec<u16>,
    /// The longest time between two answers: how long the path was interrupted.
    pub longest_gap: Duration,
}

/// A ping that goes on until it is stopped.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Answers>>,
}

impl Ping {
    /// Three requests, a tenth of a second apart, two seconds of patience after the last.
    pub fn to(to: IpAddr) -> Self {
        let (every, patience) = (Duration::from_millis(100), Duration::from_secs(2));
        Self {
            to,
            from: None,
            count: 3,
            every,
            patience,
            payload: 56,
            whole: false,
        }
    }

    /// Sends from this address.
    pub fn from(mut self, from: IpAddr) -> Self {
        self.from = Some(from);
        self
    }

    /// How many requests.
    pub fn count(mut self, count: u16) -> Self {
        self.count = count;
        self
    }

    /// Time between requests.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// How long an answer may take.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes each request an IP packet of exactly `length` bytes, sent with DF.
    pub fn packet_length(mut self, length: usize) -> Self {
        let headers = if self.to.is_ipv4() { 28 } else { 48 };
        self.payload = length.saturating_sub(headers);
        self.whole = true;
        self
    }

    /// Sends them all and waits for the answers; returns early when nothing is outstanding.
    pub fn run(&self, namespace: &Namespace) -> Result<Answers> {
        let socket = self.socket(namespace)?;
        self.work(&socket, None)
    }

    /// Like [`Ping::run`], and fails unless every request was answered.
    pub fn expect_all(&self, namespace: &Namespace) -> Result<Answers> {
        let answers = self.run(namespace)?;
        if answers.received != self.count {
            bail!(
                "{} pings {}: {}",
                namespace.name(),
                self.to,
                answers.summary()
            );
        }
        Ok(answers)
    }

    /// Asks again and again until one request is answered, and gives the moment of the answer.
    ///
    /// That the way does not exist yet (no interface, no route) is no failure before the patience is over.
    pub fn first_answer(&self, namespace: &Namespace) -> Result<Instant> {
        let socket = self.socket(namespace)?;
        let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed);
        let mut buffer = buffer();
        let begin = Instant::now();
        let (mut sequence, mut next, mut refusal) = (0u16, begin, None);
        loop {
            let now = Instant::now();
            if now >= begin + self.patience {
                let reason =
                    refusal.map_or_else(String::new, |error: io::Error| format!(": {error}"));
                bail!("{} does not answer {}{reason}", self.to, namespace.name());
            }
            if now >= next {
                let request = icmp::echo_request(self.to, identifier, sequence, self.payload);
                refusal = socket.send_to(&request, SocketAddr::new(self.to, 0)).err();
                (sequence, next) = (sequence.wrapping_add(1), now + self.every);
            }
            let wait = next.saturating_duration_since(now);
            match receive(&socket, &mut buffer, wait, self.to)? {
                Some(Message::EchoReply {
                    identifier: theirs, ..
                }) if theirs == identifier => return Ok(Instant::now()),
                _ => {}
            }
        }
    }

    /// Pings until stopped; the count is ignored.
    pub fn start(self, namespace: &Namespace) -> Result<Running> {
        let socket = self.socket(namespace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || self.work(&socket, Some(&flag)));
        Ok(Running { stop, thread })
    }

    /// A raw socket behind the interface of a UDP socket: both are datagrams with an address.
    fn socket(&self, namespace: &Namespace) -> Result<UdpSocket> {
        let (domain, protocol) = if self.to.is_ipv4() {
            (Domain::IPV4, Protocol::ICMPV4)
        } else {
            (Domain::IPV6, Protocol::ICMPV6)
        };
        namespace
            .run(|| -> io::Result<UdpSocket> {
                let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
                if let Some(from) = self.from {
                    socket.bind(&SocketAddr::new(from, 0).into())?;
                }
                if self.whole {
                    forbid_fragmentation(&socket, domain)?;
                }
                socket.set_recv_buffer_size(1 << 20)?;
                // Only what poll(2) has announced is read; should it be gone, nobody waits for ever.
                socket.set_read_timeout(Some(SLICE))?;
                Ok(socket.into())
            })
            .with_context(|| format!("cannot ping {} from {}", self.to, namespace.name()))
    }

    fn work(&self, socket: &UdpSocket, stop: Option<&AtomicBool>) -> Result<Answers> {
        let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed);
        let mut answers = Answers::default();
        let mut outstanding: BTreeMap<u16, Instant> = BTreeMap::new();
        let mut answered = vec![false; 1 << 16];
        let (mut sequence, mut next) = (0u16, Instant::now());
        let mut last_answer: Option<Instant> = None;
        let mut last_sent = next;
        let mut buffer = buffer();
        loop {
            let sending = stop.map_or(sequence < self.count, |stop| !stop.load(Ordering::Relaxed));
            let now = Instant::now();
            if sending && now >= next {
                let request = icmp::echo_request(self.to, identifier, sequence, self.payload);
                match socket.send_to(&request, SocketAddr::new(self.to, 0)) {
                    Ok(_) => {
                        answers.sent += 1;
                        outstanding.insert(sequence, now);
                    }
                    Err(error) => answers.unsent.push(error.to_string()),
                }
                sequence = sequence
                    .checked_add(1)
                    .context("more than 65535 pings in one run")?;
                (last_sent, next) = (now, (next + self.every).max(now));
                continue;
            }
            let errors_settle_it = answers.errors.len() >= usize::from(answers.sent);
            let late = now >= last_sent + self.patience;
            if !sending && (outstanding.is_empty() || late || (errors_settle_it && stop.is_none()))
            {
                break;
            }
            let wait = if sending {
                next - now
            } else {
                last_sent + self.patience - now
            };
            match receive(socket, &mut buffer, wait.min(SLICE), self.to)? {
                Some(Message::EchoReply {
                    identifier: theirs,
                    sequence,
                    ..
                }) if theirs == identifier => {
                    let now = Instant::now();
                    match outstanding.remove(&sequence) {
                        Some(sent) => {
                            answered[usize::from(sequence)] = true;
                            answers.received += 1;
                            answers.round_trips.push(now - sent);
                            let since = last_answer
                                .replace(now)
                                .map_or(Duration::ZERO, |before| now - before);
                            answers.longest_gap = answers.longest_gap.max(since);
                        }
                        None if answered[usize::from(sequence)] => answers.duplicates += 1,
                        None => {}
                    }
                }
                Some(Message::Error(report)) if report.about == self.to => {
                    answers.errors.push(report)
                }
                _ => {}
            }
        }
        answers.lost = outstanding.into_keys().collect();
        Ok(answers)
    }
}

impl Answers {
    /// One line for people.
    pub fn summary(&self) -> String {
        let mut text = format!("{} of {} answered", self.received, self.sent);
        if let Some(best) = self.round_trips.iter().min() {
            text.push_str(&format!(", best {:.2} ms", best.as_secs_f64() * 1e3));
        }
        if let Some(report) = self.errors.first() {
            text.push_str(&format!(", {report}"));
        }
        if let Some(reason) = self.unsent.first() {
            text.push_str(&format!(", not sent: {reason}"));
        }
        text
    }
}

impl Running {
    /// Stops sending, waits for what is on its way, and gives the sum.
    pub fn stop(self) -> Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    wait: Duration,
    to: IpAddr,
) -> Result<Option<Message>> {
    // A receive time-out counts in the kernel's ticks of up to 10 ms; poll(2) does not.
    let wait = Timespec::try_from(wait)?;
    let arrived = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&wait))?;
    Ok(if arrived > 0 {
        read(socket, buffer, to)
    } else {
        None
    })
}

/// Room for any packet. Zeroed once: doing that for each would push everybody else's code out of the nearest cache.
fn buffer() -> Vec<u8> {
    vec![0; 1 << 16]
}

/// What has arrived, if it can be understood.
fn read(socket: &UdpSocket, buffer: &mut [u8], to: IpAddr) -> Option<Message> {
    // A time-out, or an ICMP error the kernel reports on a bound socket; the message itself follows.
    let (length, from) = socket.recv_from(buffer).ok()?;
    let bytes = &buffer[..length];
    if to.is_ipv4() {
        icmp::parse_v4(bytes)
    } else {
        icmp::parse_v6(bytes, from.ip())
    }
}

/// Every ping of the process has its own, because raw sockets see the answers of all.
static IDENTIFIER: AtomicU16 = AtomicU16::new(1);

/// A running ping looks at its stop flag this often.
const SLICE: Duration = Duration::from_millis(20);
