//! The control socket as a Unix stream socket.

use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode};
use serde::{Serialize, de::DeserializeOwned};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::{ControlError, Line};
use crate::files;

/// The listening end. Dropping it removes the socket.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Locked as long as the listener lives, however it dies.
    _lock: File,
}

/// Somebody who may ask.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, whose directory is made if missing. Within a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        if let Some(directory) = path.parent() {
            files::create_open_directory(directory)
                .map_err(failed(path, "make the directory of"))?;
        }
        let lock = lock(path)?;
        if StdStream::connect(path).is_ok() {
            return Err(ControlError::AlreadyRunning { path: path.into() });
        }
        // Nobody answers there: left behind by a program that died.
        files::remove(path).map_err(|_| ControlError::Permission { path: path.into() })?;
        let listener = listen(path).map_err(failed(path, "listen at"))?;
        Ok(Self {
            listener,
            path: path.into(),
            _lock: lock,
        })
    }

    /// Waits for the next connection. An error is about one peer, or passes; it has been waited for then, so that
    /// calling again at once is fine. Safe to cancel.
    pub async fn accept(&self) -> Result<Connection, ControlError> {
        let stream = match self.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: the peers wait, and so do we.
                tokio::time::sleep(PATIENCE).await;
                return Err(failed(&self.path, "accept at")(error));
            }
        };
        self.admit(stream)
    }

    /// Gives up the socket and its path. Returns those who came before and were not accepted yet: they have asked
    /// and wait for an answer.
    pub fn close(self) -> Vec<Connection> {
        // Nobody else can have the path yet: the lock is still ours.
        let _ = files::remove(&self.path);
        let socket = SockRef::from(&self.listener);
        let waiting = std::iter::from_fn(|| socket.accept().ok());
        waiting
            .filter_map(|(socket, _)| {
                socket.set_nonblocking(true).ok()?;
                self.admit(UnixStream::from_std(socket.into()).ok()?).ok()
            })
            .collect()
    }

    fn admit(&self, stream: UnixStream) -> Result<Connection, ControlError> {
        let peer = stream
            .peer_cred()
            .map_err(failed(&self.path, "accept at"))?;
        if peer.uid() != 0 && peer.uid() != rustix::process::geteuid().as_raw() {
            return Err(ControlError::Stranger { user: peer.uid() });
        }
        Ok(Connection {
            stream,
            path: self.path.clone(),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = files::remove(&self.path);
    }
}

impl Connection {
    /// Reads the question. A peer that asks nothing is waited for a second.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ControlError> {
        let mut reader = BufReader::new((&mut self.stream).take(MAX_QUESTION));
        let mut line = String::new();
        timeout(PATIENCE, reader.read_line(&mut line))
            .await
            .map_err(|_| silent(&self.path, PATIENCE))?
            .map_err(failed(&self.path, "read a question at"))?;
        serde_json::from_str(&line).map_err(misunderstood(&self.path))
    }

    /// Answers. A peer that does not read is waited for a second.
    pub async fn send<T: Serialize>(&mut self, answer: &T) -> Result<(), ControlError> {
        let line = Line::of(answer).map_err(misunderstood(&self.path))?;
        self.deliver(&line, PATIENCE).await
    }

    /// Sends an answer that is written already. A peer that does not take all of it within `patience` is left.
    pub async fn deliver(&mut self, line: &Line, patience: Duration) -> Result<(), ControlError> {
        timeout(patience, self.stream.write_all(&line.0))
            .await
            .map_err(|_| silent(&self.path, patience))?
            .map_err(failed(&self.path, "answer at"))
    }
}

/// Asks the program that listens at `path`, and waits a few seconds for its answer. Blocks.
pub fn ask<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    question: &Q,
) -> Result<A, ControlError> {
    ask_patiently(path, question, ANSWER)
}

/// The same for a question whose answer may take as long as `patience` to begin. Blocks.
pub fn ask_patiently<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    question: &Q,
    patience: Duration,
) -> Result<A, ControlError> {
    let line = Line::of(question).map_err(misunderstood(path))?;
    let answer = exchange(path, &line.0, patience).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NotRunning { path: path.into() }
        }
        // The read timed out.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => silent(path, patience),
        // Turned away unheard.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ControlError::Permission { path: path.into() }
        }
        _ => failed(path, "ask at")(source),
    })?;
    serde_json::from_str(&answer).map_err(misunderstood(path))
}

fn exchange(path: &Path, question: &[u8], patience: Duration) -> io::Result<String> {
    let mut stream = StdStream::connect(path)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(question)?;
    let mut answer = String::new();
    io::BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(answer)
}

fn misunderstood(path: &Path) -> impl FnOnce(serde_json::Error) -> ControlError {
    move |source| ControlError::Misunderstood {
        path: path.into(),
        source,
    }
}

fn silent(path: &Path, waited: Duration) -> ControlError {
    ControlError::Silent {
        path: path.into(),
        seconds: waited.as_secs(),
    }
}

fn lock(path: &Path) -> Result<File, ControlError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let lock = files::open_lock(&path.with_file_name(name)).map_err(failed(path, "lock"))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(ControlError::AlreadyRunning { path: path.into() })
        }
        Err(error) => Err(failed(path, "lock")(error.into())),
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before it has a name: there is no moment at which others can connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> ControlError {
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => ControlError::Permission { path: path.into() },
        _ => ControlError::System {
            path: path.into(),
            action,
            source,
        },
    }
}

/// For one line each way. The peers are local programs, which wait for nobody.
const PATIENCE: Duration = Duration::from_secs(1);

/// For an answer, which a busy gateway may have to collect from its data threads.
const ANSWER: Duration = Duration::from_secs(5);

/// Questions are a word or two.
const MAX_QUESTION: u64 = 64 * 1024;

/// A status of a hundred thousand sessions.
const MAX_ANSWER: u64 = 128 << 20;

const BACKLOG: i32 = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(test);
    }

    /// Asks from a thread of its own, as another program would.
    async fn ask_from_outside(path: &Path, question: &str) -> Result<u32, ControlError> {
        let (path, question) = (path.to_owned(), question.to_owned());
        tokio::task::spawn_blocking(move || ask(&path, &question))
            .await
            .expect("no panic")
    }

    #[test]
    fn a_question_is_answered_and_the_socket_is_private() {
        run(async {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("run").join("adit.sock");
            let listener = Listener::bind(&path).expect("bound");
            let mode = std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
            let (answer, ()) = tokio::join!(ask_from_outside(&path, "status"), async {
                let mut connection = listener.accept().await.expect("a peer");
                let question: String = connection.receive().await.expect("a question");
                assert_eq!(question, "status");
                connection.send(&7).await.expect("answered");
            });
            assert_eq!(answer.expect("an answer"), 7);
            drop(listener);
            assert!(!path.exists(), "the socket is removed");
            let error = ask_from_outside(&path, "status").await.expect_err("nobody");
            assert!(matches!(error, ControlError::NotRunning { .. }), "{error}");
        });
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        run(async {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("adit.sock");
            drop(std::os::unix::net::UnixListener::bind(&path).expect("a stale socket"));
            assert!(path.exists());
            let _listener = Listener::bind(&path).expect("the stale one is replaced");
            let error = Listener::bind(&path).expect_err("taken");
            assert!(
                matches!(error, ControlError::AlreadyRunning { .. }),
                "{error}"
            );
        });
    }

    #[test]
    fn who_came_before_the_socket_was_closed_is_answered() {
        run(async {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("adit.sock");
            let listener = Listener::bind(&path).expect("bound");
            let mut early = StdStream::connect(&path).expect("connected");
            early.write_all(b"\"status\"\n").expect("asked");
            let mut waiting = listener.close();
            assert!(!path.exists());
            let _again = Listener::bind(&path).expect("the path is free");
            let question: String = waiting[0].receive().await.expect("a question");
            assert_eq!((waiting.len(), question.as_str()), (1, "status"));
            waiting[0].send(&"up").await.expect("answered");
            let mut answer = String::new();
            let answered = io::BufReader::new(early).read_line(&mut answer);
            answered.expect("an answer");
            assert_eq!(answer, "\"up\"\n");
        });
    }

    #[test]
    fn a_question_without_an_end_is_cut_off() {
        run(async {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("adit.sock");
            let listener = Listener::bind(&path).expect("bound");
            let hostile = async {
                let mut stream = UnixStream::connect(&path).await.expect("connected");
                let flood = vec![b'x'; MAX_QUESTION as usize + 1];
                // The listener stops reading; whether the rest is taken is the kernel's choice.
                let _ = stream.write_all(&flood).await;
            };
            let ((), ()) = tokio::join!(hostile, async {
                let mut connection = listener.accept().await.expect("a peer");
                let error = connection
                    .receive::<String>()
                    .await
                    .expect_err("no question");
                assert!(
                    matches!(error, ControlError::Misunderstood { .. }),
                    "{error}"
                );
            });
        });
    }
}
