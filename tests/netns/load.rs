//! A hundred reloads of a gateway that is at work.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use adit_tests::lab::{Layout, Namespace, internet};
use adit_tests::probe::ping::Running;
use adit_tests::probe::{memory, tcp};
use adit_tests::programs::{POLICY, Programs};
use anyhow::{Context, Result, ensure};

use crate::bed::{Bed, note, steadily};

pub(crate) fn a_hundred_reloads_under_load(programs: &Programs) -> Result<()> {
    let layout = Layout {
        laptops: NAMES.len() as u8,
        ..Layout::default()
    };
    let mut bed = Bed::new(programs, layout)?;
    let mut clients = Vec::new();
    for (name, laptop) in NAMES.iter().zip(&bed.internet.laptops) {
        let principal = format!("{name}@example.com");
        let profile = bed.setup.profile(&principal, &["staff"])?;
        clients.push(bed.setup.connect(laptop, &profile)?);
    }
    let policies = [policy(0), policy(1)];
    let reload = |bed: &Bed, round: usize| -> Result<()> {
        bed.setup.policy(&policies[round % 2])?;
        let outcome = bed.gateway.reload(&[])?;
        ensure!(outcome.code == Some(0), "{round}: {}", outcome.stderr);
        let words = "0 sessions end, 3 sessions change";
        ensure!(outcome.stdout.contains(words), "{}", outcome.stdout);
        Ok(())
    };
    for round in 0..WARM_UP {
        reload(&bed, round)?;
    }
    let gateway = bed.gateway.process().pid();
    let resident = || memory::resident(gateway).context("the gateway is gone");

    let mut loads = Vec::new();
    for client in &clients {
        loads.push(Load::start(client.namespace(), &bed.internet.office)?);
    }
    thread::sleep(Duration::from_millis(500));
    let before = resident()?;
    let start = Instant::now();
    for round in WARM_UP..WARM_UP + RELOADS {
        reload(&bed, round)?;
    }
    note(&format!("{RELOADS} reloads in {:.1?}", start.elapsed()));
    let after = resident()?;
    for (name, load) in NAMES.iter().zip(loads) {
        let longest = load.stop(name)?;
        ensure!(longest < Duration::from_secs(1), "{name}: {longest:?}");
    }
    let kibibytes = |bytes: u64| bytes / 1024;
    note(&format!(
        "the gateway holds {} KiB after {} KiB",
        kibibytes(after),
        kibibytes(before)
    ));
    ensure!(after < before + MAX_GROWTH, "{after} bytes after {before}");
    ensure!(bed.gateway.principals()?.len() == NAMES.len());
    Ok(())
}

/// What one client does all the time: pings in both families, and a stream.
pub(crate) struct Load {
    pings: [Running; 2],
    stream: Stream,
}

impl Load {
    /// For as many pings as [`stop`](Self::stop) asks for.
    pub(crate) const LONG_ENOUGH: Duration = Duration::from_secs(2);

    pub(crate) fn start(laptop: &Namespace, office: &Namespace) -> Result<Self> {
        Ok(Self {
            pings: [
                steadily(internet::OFFICE_V4, laptop)?,
                steadily(internet::OFFICE_V6, laptop)?,
            ],
            stream: Stream::start(laptop, office)?,
        })
    }

    /// Nothing may have been lost; gives the longest time without a byte of the stream.
    pub(crate) fn stop(self, name: &str) -> Result<Duration> {
        for ping in self.pings {
            let answers = ping.stop()?;
            note(&format!("{name}: {}", answers.summary()));
            ensure!(answers.lost.is_empty(), "{name} lost {:?}", answers.lost);
            ensure!(answers.unsent.is_empty() && answers.errors.is_empty());
            ensure!(answers.received > 100, "{name}: {}", answers.summary());
        }
        let (sent, received, longest) = self.stream.stop()?;
        note(&format!(
            "{name}: {received} bytes of a stream, at most {longest:.0?} between two"
        ));
        ensure!(sent == received && sent > 0, "{sent} sent, {received} came");
        Ok(longest)
    }
}

/// A TCP connection to the office that is written to all the time.
struct Stream {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<Result<u64>>,
    /// How much came, and the longest time without anything.
    reader: JoinHandle<Result<(u64, Duration)>>,
}

impl Stream {
    fn start(laptop: &Namespace, office: &Namespace) -> Result<Self> {
        let address = SocketAddr::new(internet::OFFICE_V4, 0);
        let listener = office.run(|| TcpListener::bind(address))?;
        let to = listener.local_addr()?;
        let connection = tcp::connect(laptop, to, Duration::from_secs(5))?;
        let (accepted, _) = listener.accept()?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        Ok(Self {
            stop,
            writer: thread::spawn(move || write(connection, &flag)),
            reader: thread::spawn(move || read(accepted)),
        })
    }

    fn stop(self) -> Result<(u64, u64, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = joined(self.writer)?;
        let (received, longest) = joined(self.reader)?;
        Ok((sent, received, longest))
    }
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Some 26 Mbit/s: much, and not so much that pings have to wait.
fn write(mut connection: TcpStream, stop: &AtomicBool) -> Result<u64> {
    let chunk = vec![7; 32 * 1024];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        connection.write_all(&chunk).context("the stream broke")?;
        sent += chunk.len() as u64;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(sent)
}

fn read(mut connection: TcpStream) -> Result<(u64, Duration)> {
    let mut buffer = vec![0; 64 * 1024];
    let (mut received, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    loop {
        let length = connection.read(&mut buffer).context("the stream broke")?;
        if length == 0 {
            return Ok((received, longest));
        }
        received += length as u64;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
}

/// One of two policies by which staff may reach the office; what else they may is different, and they are so large
/// that a gateway which kept old ones would be found out.
fn policy(number: u8) -> String {
    let mut text = format!(
        "{POLICY}\n[[allow]]\nwho = [\"group:staff\"]\nto = [\"10.66.{number}.0/24\"]\n\
         [[deny]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\nports = [\"tcp/{}\"]\n",
        22 + number
    );
    for user in 0..RULES {
        text += &format!(
            "[[allow]]\nwho = [\"user{user}@example.com\"]\nto = [\"10.{number}.{}.0/24\"]\n",
            user % 250
        );
    }
    text
}

const NAMES: [&str; 3] = ["alice", "bob", "carol"];
const RELOADS: usize = 100;
const WARM_UP: usize = 10;
/// A parsed policy of so many is about a megabyte.
const RULES: usize = 2000;
/// Bytes: a few old policies, which an allocator may hold back, and not a hundred.
const MAX_GROWTH: u64 = 8 << 20;
