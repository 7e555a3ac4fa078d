//! A TCP connection over which somebody asks all the time, as a program asks its database.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::tcp;
use crate::lab::Namespace;

/// A server that answers each question with the same bytes. It ends with the process.
pub fn answering(namespace: &Namespace, address: SocketAddr) -> Result<()> {
    let listener = namespace
        .run(|| TcpListener::bind(address))
        .with_context(|| format!("cannot listen on {address} in {}", namespace.name()))?;
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || -> io::Result<()> {
                let mut question = [0; QUESTION];
                loop {
                    stream.read_exact(&mut question)?;
                    stream.write_all(&question)?;
                }
            });
        }
    });
    Ok(())
}

/// A connection with questions every ten milliseconds, until it breaks or is stopped.
#[derive(Debug)]
pub struct Dialogue {
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Ended>,
}

/// How a dialogue ended.
#[derive(Debug)]
pub struct Ended {
    /// Questions that were answered.
    pub answered: u64,
    /// The longest time that a question took.
    pub slowest: Duration,
    /// When and how it broke, if it did.
    pub broken: Option<(Instant, io::Error)>,
}

impl Dialogue {
    /// Connects and begins to ask.
    pub fn start(namespace: &Namespace, to: SocketAddr, patience: Duration) -> Result<Self> {
        let stream = tcp::connect(namespace, to, patience)?;
        stream.set_nodelay(true)?;
        let (answered, stop) = (Arc::default(), Arc::default());
        let thread = {
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            thread::spawn(move || talk(stream, &answered, &stop))
        };
        Ok(Self {
            answered,
            stop,
            thread,
        })
    }

    /// Questions that were answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether it goes on.
    pub fn goes_on(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends it, if it has not ended.
    pub fn stop(self) -> Ended {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn talk(mut stream: TcpStream, answered: &AtomicU64, stop: &AtomicBool) -> Ended {
    let mut slowest = Duration::ZERO;
    let mut broken = None;
    while !stop.load(Ordering::Relaxed) {
        let number = answered.load(Ordering::Relaxed);
        let asked = Instant::now();
        if let Err(error) = ask(&mut stream, number) {
            broken = Some((Instant::now(), error));
            break;
        }
        slowest = slowest.max(asked.elapsed());
        answered.store(number + 1, Ordering::Relaxed);
        thread::sleep(EVERY);
    }
    Ended {
        answered: answered.load(Ordering::Relaxed),
        slowest,
        broken,
    }
}

fn ask(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let (question, mut answer) = (number.to_be_bytes(), [0; QUESTION]);
    stream.write_all(&question)?;
    stream.read_exact(&mut answer)?;
    if answer == question {
        Ok(())
    } else {
        Err(io::Error::other("another answer"))
    }
}

const QUESTION: usize = 8;
/// Often enough that an interruption cannot fall between two.
const EVERY: Duration = Duration::from_millis(10);
