//! A child process whose output is kept for the failure message and whose life ends with the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running program; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

#[derive(Clone, Debug, Default)]
struct Captured {
    text: Arc<Mutex<String>>,
    reader: Option<Arc<Mutex<Option<thread::JoinHandle<()>>>>>,
}

/// What a program that has ended left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Process {
    pub(super) fn start(place: &str, mut command: Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let name = format!(
            "{place}: {}",
            program.rsplit('/').next().unwrap_or(&program)
        );
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program} in {place}"))?;
        let stdout = Captured::follow(child.stdout.take());
        let stderr = Captured::follow(child.stderr.take());
        Ok(Self {
            name,
            child,
            stdout,
            stderr,
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// True until the program has ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGTERM, the polite way to stop.
    pub fn terminate(&self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot stop {}", self.name))
    }

    /// Sends SIGHUP: read your configuration again.
    pub fn hang_up(&self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::HUP).with_context(|| format!("cannot tell {}", self.name))
    }

    /// Sends SIGKILL and waits for the end: a crash.
    pub fn crash(&mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the program to end by itself.
    pub fn wait(mut self, patience: Duration) -> Result<Outcome> {
        let status: ExitStatus =
            until(patience, || Ok(self.child.try_wait()?)).with_context(|| {
                format!(
                    "{} did not end; its last words:\n{}",
                    self.name,
                    self.last_words()
                )
            })?;
        Ok(Outcome {
            code: status.code(),
            stdout: self.stdout.finish(),
            stderr: self.stderr.finish(),
        })
    }

    /// Fails with the program's own words if it has ended.
    pub fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.stderr.finish();
            bail!("{} ended with {status}:\n{}", self.name, self.last_words());
        }
        Ok(())
    }

    /// The end of both outputs, for failure messages.
    pub fn last_words(&self) -> String {
        let both = format!("{}{}", self.stdout(), self.stderr());
        let lines: Vec<&str> = both.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Captured {
    fn follow(source: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let reader = source.map(|source| {
            let text = Arc::clone(&text);
            let handle = thread::spawn(move || {
                let mut source = BufReader::new(source);
                let mut line = Vec::new();
                while matches!(source.read_until(b'\n', &mut line), Ok(1..)) {
                    let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                    text.push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            });
            Arc::new(Mutex::new(Some(handle)))
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until the program's end of the pipe is closed, then gives everything.
    fn finish(&self) -> String {
        if let Some(reader) = &self.reader
            && let Some(handle) = reader.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            let _ = handle.join();
        }
        self.text()
    }
}

/// Asks `question` again and again until it answers, fails, or `patience` is over.
///
/// This is how the tests wait: for a state that can be observed, never for a time that should be enough.
pub fn until<T>(patience: Duration, mut question: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("nothing within {patience:?}");
        }
        thread::sleep(POLL);
    }
}

/// Short beside everything waited for, long beside the cost of asking.
const POLL: Duration = Duration::from_millis(20);

/// Enough to see what a program did last, few enough to read in a test's failure.
const LAST_LINES: usize = 40;
