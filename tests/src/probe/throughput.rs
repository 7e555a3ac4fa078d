//! A TCP transfer in the manner of iperf3, with the CPU time of the programs in between.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{cpu, tcp};
use crate::lab::Namespace;

/// Which way the bytes go, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to server.
    Up,
    /// Server to client.
    Down,
    /// Both at once.
    Both,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Which way.
    pub direction: Direction,
    /// Parallel TCP connections (each way).
    pub streams: usize,
    /// How long.
    pub length: Duration,
    /// Programs whose CPU time counts, by name and process id.
    pub programs: Vec<(String, u32)>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Payload bytes that arrived, both ways together.
    pub bytes: u64,
    /// The time that took.
    pub elapsed: Duration,
    /// CPU time per program.
    pub cpu: Vec<(String, Duration)>,
}

impl Transfer {
    /// Runs it from `client` to a listener on `address` in `server`.
    pub fn run(&self, client: &Namespace, server: &Namespace, address: IpAddr) -> Result<Figure> {
        let listener = server.run(|| TcpListener::bind((address, 0)))?;
        let to: SocketAddr = listener.local_addr()?;
        let directions: &[bool] = match self.direction {
            Direction::Up => &[true],
            Direction::Down => &[false],
            Direction::Both => &[true, false],
        };
        let mut pairs = Vec::new();
        for _ in 0..self.streams {
            for &up in directions {
                let ours = tcp::connect(client, to, PATIENCE)?;
                let (theirs, _) = listener.accept()?;
                theirs.set_read_timeout(Some(PATIENCE))?;
                theirs.set_write_timeout(Some(PATIENCE))?;
                pairs.push(if up { (ours, theirs) } else { (theirs, ours) });
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let begin: Vec<Duration> = self
            .programs
            .iter()
            .map(|(_, pid)| cpu::used(*pid))
            .collect();
        let start = Instant::now();
        let mut threads = Vec::new();
        for (sender, receiver) in pairs {
            let flag = Arc::clone(&stop);
            threads.push(thread::spawn(move || send(sender, &flag)));
            let count = Arc::clone(&received);
            threads.push(thread::spawn(move || receive(receiver, &count)));
        }
        thread::sleep(self.length);
        let (bytes, elapsed) = (received.load(Ordering::Relaxed), start.elapsed());
        let end: Vec<Duration> = self
            .programs
            .iter()
            .map(|(_, pid)| cpu::used(*pid))
            .collect();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            let _ = thread.join();
        }
        ensure!(bytes > 0, "not a single byte arrived in {elapsed:?}");
        let names = self.programs.iter().map(|(name, _)| name.clone());
        let cpu = names
            .zip(
                begin
                    .iter()
                    .zip(&end)
                    .map(|(begin, end)| end.saturating_sub(*begin)),
            )
            .collect();
        Ok(Figure {
            bytes,
            elapsed,
            cpu,
        })
    }
}

impl Figure {
    /// Payload rate.
    pub fn gbit_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64() / 1e9
    }

    /// CPU seconds per gigabyte of payload, per program.
    pub fn cpu_per_gigabyte(&self) -> Vec<(String, f64)> {
        let gigabytes = self.bytes as f64 / 1e9;
        self.cpu
            .iter()
            .map(|(name, time)| (name.clone(), time.as_secs_f64() / gigabytes))
            .collect()
    }
}

fn send(mut stream: TcpStream, stop: &AtomicBool) -> Result<()> {
    let block = vec![0x5a; BLOCK];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&block).context("the transfer broke off")?;
    }
    Ok(())
}

fn receive(mut stream: TcpStream, count: &AtomicU64) -> Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(()),
            length => count.fetch_add(length as u64, Ordering::Relaxed),
        };
    }
}

/// What iperf3 writes at once.
const BLOCK: usize = 128 * 1024;

/// Longer than any pause a working path makes.
const PATIENCE: Duration = Duration::from_secs(15);
