//! The control socket as a Unix stream socket.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode};
use serde::{Serialize, de::DeserializeOwned};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::ControlError;
use crate::files;

/// The listening end. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Locked as long as the server lives, however it dies.
    _lock: File,
}

/// One question of somebody who may ask.
#[derive(Debug)]
pub struct Request {
    line: String,
    stream: UnixStream,
}

impl Server {
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

    /// Waits for the next question. Whoever may not ask, or asks nothing in time, is turned away in passing.
    /// Cancelling it loses at most a question that is being read.
    pub async fn next(&self) -> Request {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: the peer waits, and so do we.
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(PATIENCE).await;
                    continue;
                }
            };
            match timeout(PATIENCE, question(stream)).await {
                Ok(Ok(request)) => return request,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a question at the control socket was not heard")
                }
                Err(_) => tracing::debug!("a peer of the control socket asked nothing"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = files::remove(&self.path);
    }
}

impl Request {
    /// The question.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.line)
    }

    /// Answers. A peer that went away is no concern of ours.
    pub async fn answer<T: Serialize>(mut self, answer: &T) {
        match serde_json::to_vec(answer) {
            Ok(mut line) => {
                line.push(b'\n');
                let sent = timeout(PATIENCE, async {
                    self.stream.write_all(&line).await?;
                    self.stream.shutdown().await
                });
                let _ = sent.await;
            }
            Err(error) => tracing::error!(%error, "an answer cannot be written as JSON"),
        }
    }
}

/// Asks the program that listens at `path`, and waits a few seconds for its answer.
pub async fn ask<Q: Serialize, A: DeserializeOwned>(
    path: &Path,
    question: &Q,
) -> Result<A, ControlError> {
    let misunderstood = |source| ControlError::Answer {
        path: path.into(),
        source,
    };
    let mut line = serde_json::to_vec(question).map_err(misunderstood)?;
    line.push(b'\n');
    let answer = timeout(ANSWER, async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(&line).await?;
        read_line(stream, MAX_ANSWER)
            .await
            .map(|(answer, _)| answer)
    });
    let answer = answer
        .await
        .map_err(|_| ControlError::Silent {
            path: path.into(),
            seconds: ANSWER.as_secs(),
        })?
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ControlError::NotRunning { path: path.into() }
            }
            // Turned away unheard.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                ControlError::Permission { path: path.into() }
            }
            _ => failed(path, "ask at")(source),
        })?;
    serde_json::from_str(&answer).map_err(misunderstood)
}

async fn question(stream: UnixStream) -> io::Result<Request> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (line, stream) = read_line(stream, MAX_QUESTION).await?;
    Ok(Request { line, stream })
}

async fn read_line(stream: UnixStream, limit: u64) -> io::Result<(String, UnixStream)> {
    let mut reader = BufReader::new(stream.take(limit));
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    if !line.ends_with('\n') {
        let kind = if line.len() as u64 == limit {
            io::ErrorKind::InvalidData
        } else {
            io::ErrorKind::UnexpectedEof
        };
        return Err(kind.into());
    }
    Ok((line, reader.into_inner().into_inner()))
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

    #[test]
    fn a_question_is_answered_and_the_socket_is_private() {
        run(async {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("run").join("adit.sock");
            let server = Server::bind(&path).expect("bound");
            let mode = std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
            let question = "status".to_owned();
            let (answer, ()) = tokio::join!(ask::<_, Vec<u32>>(&path, &question), async {
                let request = server.next().await;
                assert_eq!(request.parse::<String>().expect("a string"), "status");
                request.answer(&[1, 2, 3]).await;
            });
            assert_eq!(answer.expect("an answer"), [1, 2, 3]);
            drop(server);
            assert!(!path.exists(), "the socket is removed");
            let error = ask::<_, u32>(&path, &question).await.expect_err("nobody");
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
            let _server = Server::bind(&path).expect("the stale one is replaced");
            let error = Server::bind(&path).expect_err("taken");
            assert!(
                matches!(error, ControlError::AlreadyRunning { .. }),
                "{error}"
            );
        });
    }

    #[test]
    fn a_peer_without_an_end_of_line_is_cut_off() {
        run(async {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("adit.sock");
            let server = Server::bind(&path).expect("bound");
            let hostile = async {
                let mut stream = UnixStream::connect(&path).await.expect("connected");
                let flood = vec![b'x'; MAX_QUESTION as usize + 1];
                // The server stops reading; whether the rest is taken is the kernel's choice.
                let _ = stream.write_all(&flood).await;
                ask::<_, u32>(&path, &"next")
                    .await
                    .expect("the next peer is served")
            };
            let (answer, ()) = tokio::join!(hostile, async {
                let request = server.next().await;
                assert_eq!(request.parse::<String>().expect("a string"), "next");
                request.answer(&7).await;
            });
            assert_eq!(answer, 7);
        });
    }
}
