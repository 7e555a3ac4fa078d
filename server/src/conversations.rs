//! Those who ask through the control socket: heard and answered beside the control plane, which only says what.
//!
//! ```text
//! socket ── a task: what is asked? ──► control plane ── an answer ─────────────────► a task: written, sent
//!                    ▲                      ├── a list ── a thread beside it ──────────────────┘
//!                    └── what came of it ── └── something that waits for a disk ── a thread
//! ```
//!
//! So the control plane waits for nobody who says nothing or does not read, and a long list holds no revocation
//! up. There are so many conversations at once and no more; who comes then waits at the socket.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use adit_net::control_socket::{Connection, ControlError, Line, Listener};
use adit_net::exit::Failure;
use adit_net::priority;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::debug;

use crate::admin::Request;
use crate::invite::{Answer, Pending};

/// The place where conversations begin.
#[derive(Clone, Debug)]
pub struct Conversations {
    rooms: Rooms,
    heard: UnboundedSender<Heard>,
}

/// What the control plane hears, and to whom it may say something.
pub type Heard = (Message, Conversation);

/// What the control plane hears.
#[derive(Debug)]
pub enum Message {
    /// Somebody asks.
    Asked(Request),
    /// Somebody is invited, or cannot be.
    Invited(Result<Answer, Failure>),
    /// An invitation is taken back, or cannot be.
    Withdrawn(Result<Pending, Failure>),
}

/// Somebody who waits for an answer. Dropped, there will be none.
pub struct Conversation {
    connection: Connection,
    rooms: Rooms,
    heard: UnboundedSender<Heard>,
    _place: OwnedSemaphorePermit,
}

/// How many there may be at once.
#[derive(Clone, Debug)]
struct Rooms {
    /// Conversations.
    all: Arc<Semaphore>,
    /// Those of them that are about a long list.
    long: Arc<Semaphore>,
    /// Those of them whose list is being made.
    making: Arc<Semaphore>,
}

impl Conversations {
    /// Nobody asks yet. What is asked comes out of the other end, which never has more in it than there are places.
    pub fn open() -> (Self, UnboundedReceiver<Heard>) {
        let (heard, messages) = unbounded_channel();
        let rooms = Rooms {
            all: Arc::new(Semaphore::new(PLACES)),
            long: Arc::new(Semaphore::new(LONG_PLACES)),
            making: Arc::new(Semaphore::new(1)),
        };
        (Self { rooms, heard }, messages)
    }

    /// Waits for a place and for somebody who takes it. Safe to cancel. Within a tokio runtime.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    pub async fn accept(&self, listener: &Listener) -> Result<(), ControlError> {
        let place = place(&self.rooms.all).await;
        let connection = listener.accept().await?;
        tokio::spawn(self.conversation(connection, place).hear());
        Ok(())
    }

    /// Takes over those who came to a socket that was given up before they were heard. Within a tokio runtime.
    pub fn take_over(&self, connections: Vec<Connection>) {
        for connection in connections {
            let here = self.clone();
            tokio::spawn(async move {
                let place = place(&here.rooms.all).await;
                here.conversation(connection, place).hear().await;
            });
        }
    }

    fn conversation(&self, connection: Connection, place: OwnedSemaphorePermit) -> Conversation {
        Conversation {
            connection,
            rooms: self.rooms.clone(),
            heard: self.heard.clone(),
            _place: place,
        }
    }
}

impl Conversation {
    /// Answers with what is at hand. Returns at once; writing and sending it are others' work.
    pub fn answer<T: Serialize + Send + 'static>(self, answer: T) {
        self.answer_from_disk(move || answer);
    }

    /// Answers with what is still to be read, which may wait for a disk. Returns at once.
    pub fn answer_from_disk<T: Serialize>(self, read: impl FnOnce() -> T + Send + 'static) {
        tokio::spawn(async move {
            let line = tokio::task::spawn_blocking(move || Line::of(&read()));
            self.deliver(line.await.ok()).await;
        });
    }

    /// Answers with a list that takes long to make, which is done on a thread that lets everything else go first. One
    /// is made at a time; so many may be under way, and who comes then is told to come again. Returns at once.
    pub fn answer_at_length<T: Serialize>(
        self,
        make: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) {
        let Ok(under_way) = Arc::clone(&self.rooms.long).try_acquire_owned() else {
            let failure = Failure::environment(&Busy);
            return self.answer(Err::<(), _>(
                failure.with_hint(Some("ask again in a moment")),
            ));
        };
        tokio::spawn(async move {
            let turn = place(&self.rooms.making).await;
            let line = beside(move || Line::of(&make())).await;
            drop(turn);
            // The list takes room until it is read.
            self.deliver(line).await;
            drop(under_way);
        });
    }

    /// Does something that may wait for a disk, on a thread, and has the control plane hear what came of it. Returns at
    /// once.
    pub fn come_back_with(self, act: impl FnOnce() -> Message + Send + 'static) {
        tokio::task::spawn_blocking(move || {
            let message = act();
            let heard = self.heard.clone();
            // The control plane is gone only while the process ends.
            let _ = heard.send((message, self));
        });
    }

    async fn hear(mut self) {
        match self.connection.receive().await {
            Ok(request) => {
                let heard = self.heard.clone();
                let _ = heard.send((Message::Asked(request), self));
            }
            Err(error) => debug!(%error, "an admin request was not understood"),
        }
    }

    async fn deliver(mut self, line: Option<Result<Line, serde_json::Error>>) {
        let line = match line {
            Some(Ok(line)) => line,
            Some(Err(error)) => return debug!(%error, "an answer cannot be said in JSON"),
            None => return debug!("an answer was not made"),
        };
        if let Err(error) = self.connection.deliver(&line, PATIENCE).await {
            debug!(%error, "an admin request was not answered");
        }
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").finish_non_exhaustive()
    }
}

/// Waits for a place of a room that is never closed.
async fn place(room: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match Arc::clone(room).acquire_owned().await {
        Ok(place) => place,
        Err(_closed) => std::future::pending().await,
    }
}

/// What `make` returns, on a thread of its own that lets others go first; `None` when there is no such thread.
async fn beside<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (reply, made) = oneshot::channel();
    let thread = std::thread::Builder::new().name("answer".to_owned());
    let started = thread.spawn(move || {
        priority::yield_to_others();
        // Who asked is gone only while the process ends.
        let _ = reply.send(make());
    });
    started.ok()?;
    made.await.ok()
}

/// Why somebody gets no list.
#[derive(Debug, thiserror::Error)]
#[error("the gateway is making {LONG_PLACES} lists already")]
struct Busy;

/// Each may be somebody who says nothing for a second.
const PLACES: usize = 16;
/// A list of fifty thousand certificates is 60 MB until it is read.
const LONG_PLACES: usize = 4;
/// For a long list, by somebody who does something with it as it comes.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};
    use std::sync::mpsc::{Sender, channel};

    use adit_net::control_socket;
    use serde_json::Value;
    use tokio::task::JoinHandle;

    use super::*;

    /// A gateway's socket, and who speaks there.
    struct Bench {
        _folder: tempfile::TempDir,
        path: PathBuf,
        listener: Listener,
        conversations: Conversations,
        messages: UnboundedReceiver<Heard>,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("adit.sock");
            let (conversations, messages) = Conversations::open();
            Self {
                listener: Listener::bind(&path).unwrap(),
                path,
                _folder: folder,
                conversations,
                messages,
            }
        }

        /// Asks as another program would.
        fn ask(&self) -> JoinHandle<Value> {
            let path = self.path.clone();
            tokio::task::spawn_blocking(move || {
                control_socket::ask_patiently(&path, &Request::Status {}, PATIENCE).unwrap()
            })
        }

        /// The next question, as the control plane waits for it.
        async fn next(&mut self) -> Conversation {
            loop {
                tokio::select! {
                    accepted = self.conversations.accept(&self.listener) => accepted.unwrap(),
                    heard = self.messages.recv() => match heard.unwrap() {
                        (Message::Asked(Request::Status {}), conversation) => return conversation,
                        (other, _) => panic!("{other:?}"),
                    },
                }
            }
        }

        fn free(&self) -> usize {
            self.conversations.rooms.all.available_permits()
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test);
    }

    fn silent(path: &Path) -> UnixStream {
        UnixStream::connect(path).unwrap()
    }

    /// A list that is not made before it may be.
    fn held() -> (
        Sender<()>,
        impl FnOnce() -> Result<&'static str, Failure> + Send,
    ) {
        let (release, may) = channel();
        let make = move || {
            // Dropped, it may be made, too.
            let _ = may.recv();
            Ok("a long list")
        };
        (release, make)
    }

    #[test]
    fn who_says_nothing_holds_nobody_up() {
        run(async {
            let mut bench = Bench::new();
            let silent: Vec<_> = (1..PLACES).map(|_| silent(&bench.path)).collect();
            let asker = bench.ask();
            let conversation = bench.next().await;
            assert_eq!(bench.free(), 0, "all of them are still waited for");
            conversation.answer("up");
            assert_eq!(asker.await.unwrap(), "up");
            drop(silent);
        });
    }

    #[test]
    fn who_does_not_read_holds_nobody_up() {
        run(async {
            let mut bench = Bench::new();
            let mut deaf = silent(&bench.path);
            deaf.write_all(b"{\"ask\":\"status\"}\n").unwrap();
            bench.next().await.answer("x".repeat(8 << 20));
            let asker = bench.ask();
            bench.next().await.answer("up");
            assert_eq!(asker.await.unwrap(), "up");
            assert_eq!(
                bench.free(),
                PLACES - 1,
                "the other one is still waited for"
            );
        });
    }

    #[test]
    fn a_list_that_takes_long_holds_no_other_answer_up() {
        run(async {
            let mut bench = Bench::new();
            let (release, make) = held();
            let long = bench.ask();
            bench.next().await.answer_at_length(make);
            for _ in 0..3 {
                let asker = bench.ask();
                bench.next().await.answer("up");
                assert_eq!(asker.await.unwrap(), "up");
            }
            assert!(!long.is_finished());
            release.send(()).unwrap();
            assert_eq!(long.await.unwrap()["Ok"], "a long list");
        });
    }

    #[test]
    fn so_many_lists_are_under_way_and_who_wants_another_is_told_to_come_again() {
        run(async {
            let mut bench = Bench::new();
            let mut held_back = Vec::new();
            for _ in 0..LONG_PLACES {
                let (release, make) = held();
                let asker = bench.ask();
                bench.next().await.answer_at_length(make);
                held_back.push((release, asker));
            }
            let one_more = bench.ask();
            bench.next().await.answer_at_length(held().1);
            let answer = one_more.await.unwrap();
            assert_eq!(answer["Err"]["fault"], "environment");
            assert_eq!(answer["Err"]["hint"], "ask again in a moment");
            for (release, asker) in held_back {
                release.send(()).unwrap();
                assert_eq!(asker.await.unwrap()["Ok"], "a long list");
            }
            let another = bench.ask();
            bench.next().await.answer_at_length(|| Ok("and another"));
            assert_eq!(another.await.unwrap()["Ok"], "and another");
        });
    }

    #[test]
    fn who_comes_when_all_places_are_taken_waits_until_one_is_free() {
        run(async {
            let mut bench = Bench::new();
            let mut taken = Vec::new();
            for _ in 0..PLACES {
                let mut peer = silent(&bench.path);
                peer.write_all(b"{\"ask\":\"status\"}\n").unwrap();
                taken.push((bench.next().await, peer));
            }
            let asker = bench.ask();
            tokio::select! {
                biased;
                _ = bench.conversations.accept(&bench.listener) => panic!("there is no place"),
                () = tokio::task::yield_now() => {}
            }
            drop(taken.pop());
            bench.next().await.answer("up");
            assert_eq!(asker.await.unwrap(), "up");
        });
    }

    #[test]
    fn what_waits_for_a_disk_comes_back_before_it_is_answered() {
        run(async {
            let mut bench = Bench::new();
            let asker = bench.ask();
            let pending = || Pending {
                number: 7,
                principal: "erin@example.com".to_owned(),
                groups: Vec::new(),
                expires: 0,
            };
            let conversation = bench.next().await;
            conversation.come_back_with(move || Message::Withdrawn(Ok(pending())));
            let Some((Message::Withdrawn(outcome), conversation)) = bench.messages.recv().await
            else {
                panic!("nothing came back");
            };
            assert!(!asker.is_finished());
            conversation.answer(outcome);
            assert_eq!(asker.await.unwrap()["Ok"]["number"], 7);
        });
    }
}
