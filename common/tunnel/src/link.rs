//! One QUIC connection, complete with its endpoint and the control machine that speaks HTTP/3 over
//! its streams: a link can move from one table, and one thread, to another.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adit_core::session::Action;
use bytes::{Buf, Bytes};
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, ConnectionId, DatagramEvent, Dir, Endpoint,
    Event, ReadError, SendDatagramError, StreamEvent, StreamId, Transmit, VarInt, WriteError,
};
use rustls::pki_types::CertificateDer;

use crate::cid::Issued;
use crate::links::Datagram;
use crate::tls::{HandshakeFacts, Shown};

/// A control machine of `adit_core::session`, as the link needs it.
pub(crate) trait Machine: Sized {
    /// What a new machine must be told.
    type Config;
    /// What it reports.
    type Report;
    /// Opens the streams this role opens on a connection whose handshake is over, and makes the machine.
    fn open(now: Instant, config: &Self::Config, connection: &mut Connection) -> Option<Self>;
    fn handle_stream(&mut self, now: Instant, stream: u64, data: &[u8], fin: bool);
    fn handle_reset(&mut self, now: Instant, stream: u64, code: u64);
    fn handle_stopped(&mut self, now: Instant, stream: u64, code: u64);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<Instant>;
    fn poll_action(&mut self) -> Option<Action>;
    fn poll_report(&mut self) -> Option<Self::Report>;
}

/// What each control machine has under the same name as [`Machine`].
macro_rules! forward_to_control {
    () => {
        fn handle_stream(&mut self, now: Instant, stream: u64, data: &[u8], fin: bool) {
            Self::handle_stream(self, now, stream, data, fin);
        }

        fn handle_reset(&mut self, now: Instant, stream: u64, code: u64) {
            Self::handle_reset(self, now, stream, code);
        }

        fn handle_stopped(&mut self, now: Instant, stream: u64, code: u64) {
            Self::handle_stopped(self, now, stream, code);
        }

        fn handle_timeout(&mut self, now: Instant) {
            Self::handle_timeout(self, now);
        }

        fn poll_timeout(&self) -> Option<Instant> {
            Self::poll_timeout(self)
        }

        fn poll_action(&mut self) -> Option<Action> {
            Self::poll_action(self)
        }
    };
}
pub(crate) use forward_to_control;

/// What happened on a link, for the engine that owns it.
pub(crate) enum Notice<R> {
    /// The handshake is complete and the control machine runs.
    Connected,
    /// The control machine reports.
    Report(R),
    /// The connection is gone; nothing more comes.
    Lost(ConnectionError),
}

pub(crate) struct Link<M> {
    pub(crate) connection: Connection,
    /// Knows this connection and no other.
    endpoint: Endpoint,
    handle: ConnectionHandle,
    issued: Issued,
    /// Every connection id that leads here, the one of the client's first packet included.
    ids: Vec<ConnectionId>,
    /// Tells this link from an earlier one at the same place in the table.
    pub(crate) serial: u64,
    /// Present from the end of the handshake on.
    pub(crate) machine: Option<M>,
    writes: BTreeMap<u64, Write>,
    handshake_deadline: Option<Instant>,
}

/// Bytes that flow control has not let through yet.
#[derive(Default)]
struct Write {
    bytes: Bytes,
    fin: bool,
}

impl<M: Machine> Link<M> {
    /// A link of the only connection that `endpoint` has; `ids` lead to it besides those `issued`.
    pub(crate) fn new(
        now: Instant,
        serial: u64,
        endpoint: Endpoint,
        (handle, connection): (ConnectionHandle, Connection),
        issued: Issued,
        mut ids: Vec<ConnectionId>,
    ) -> Self {
        issued.drain(&mut ids);
        Self {
            connection,
            endpoint,
            handle,
            issued,
            ids,
            serial,
            machine: None,
            writes: BTreeMap::new(),
            handshake_deadline: Some(now + HANDSHAKE_TIMEOUT),
        }
    }

    /// Every connection id that leads to this link.
    pub(crate) fn ids(&self) -> &[ConnectionId] {
        &self.ids
    }

    /// The ids issued since the last call, or since the link was made.
    pub(crate) fn new_ids(&mut self) -> &[ConnectionId] {
        let known = self.ids.len();
        self.issued.drain(&mut self.ids);
        &self.ids[known..]
    }

    /// Takes a datagram; the answer to one that is none of the connection's goes to `buf`.
    pub(crate) fn handle_udp(
        &mut self,
        now: Instant,
        datagram: Datagram,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let Datagram {
            remote,
            local_ip,
            ecn,
            data,
        } = datagram;
        match self
            .endpoint
            .handle(now, remote, local_ip, ecn, data, buf)?
        {
            DatagramEvent::ConnectionEvent(_, event) => {
                self.connection.handle_event(event);
                None
            }
            // An id of ours in the first packet of somebody's new connection.
            DatagramEvent::NewConnection(incoming) => {
                self.endpoint.ignore(incoming);
                None
            }
            DatagramEvent::Response(transmit) => Some(transmit),
        }
    }

    /// The certificates the peer proved to own, leaf first.
    pub(crate) fn peer_chain(&self) -> Vec<CertificateDer<'static>> {
        self.connection
            .crypto_session()
            .peer_identity()
            .and_then(|any| any.downcast::<Shown>().ok())
            .and_then(|shown| match *shown {
                Shown::Proven(chain) => Some(chain),
                Shown::Refused(_) => None,
            })
            .unwrap_or_default()
    }

    /// The certificates the peer showed and the handshake refused, leaf first. Anybody may show those of others.
    pub(crate) fn refused_chain(&self) -> Vec<CertificateDer<'static>> {
        self.connection
            .crypto_session()
            .peer_identity()
            .and_then(|any| any.downcast::<Shown>().ok())
            .and_then(|shown| match *shown {
                Shown::Refused(chain) => Some(chain),
                Shown::Proven(_) => None,
            })
            .unwrap_or_default()
    }

    pub(crate) fn facts(&self) -> Option<HandshakeFacts> {
        self.connection
            .crypto_session()
            .handshake_data()
            .and_then(|any| any.downcast::<HandshakeFacts>().ok())
            .map(|facts| *facts)
    }

    pub(crate) fn close(&mut self, now: Instant, code: u64, reason: &str) {
        let code = VarInt::from_u64(code).unwrap_or(VarInt::MAX);
        // The reason shares one packet with the frame; RFC 9000 §19.19 lets it be cut.
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.connection
            .close(now, code, Bytes::copy_from_slice(&reason.as_bytes()[..end]));
        self.handshake_deadline = None;
    }

    /// Queues one datagram for the next transmit; never waits.
    pub(crate) fn send_datagram(&mut self, datagram: Bytes) -> Result<(), SendDatagramError> {
        self.connection.datagrams().send(datagram, false)
    }

    pub(crate) fn timeout(&mut self) -> Option<Instant> {
        [
            self.connection.poll_timeout(),
            self.machine.as_ref().and_then(Machine::poll_timeout),
            self.handshake_deadline,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self
            .handshake_deadline
            .is_some_and(|deadline| deadline <= now)
        {
            let kind = adit_core::close::RefusalKind::HandshakeTimeout;
            self.close(now, kind.code(), kind.text());
        }
        if self.connection.poll_timeout().is_some_and(|due| due <= now) {
            self.connection.handle_timeout(now);
        }
        if let Some(machine) = &mut self.machine
            && machine.poll_timeout().is_some_and(|due| due <= now)
        {
            machine.handle_timeout(now);
        }
    }

    /// Moves events, stream data and actions between endpoint, connection and machine until none has
    /// more. Returns whether the connection is drained: it is over, and the link can be dropped.
    pub(crate) fn service(
        &mut self,
        now: Instant,
        config: &M::Config,
        notices: &mut Vec<Notice<M::Report>>,
    ) -> bool {
        loop {
            let mut progress = false;
            while let Some(event) = self.connection.poll() {
                progress = true;
                self.handle_event(now, config, event, notices);
            }
            progress |= self.perform_actions(now);
            while let Some(report) = self.machine.as_mut().and_then(Machine::poll_report) {
                notices.push(Notice::Report(report));
            }
            while let Some(event) = self.connection.poll_endpoint_events() {
                progress = true;
                let drained = event.is_drained();
                let answer = self.endpoint.handle_event(self.handle, event);
                if drained {
                    return true;
                }
                if let Some(answer) = answer {
                    self.connection.handle_event(answer);
                }
            }
            if !progress {
                return false;
            }
        }
    }

    fn handle_event(
        &mut self,
        now: Instant,
        config: &M::Config,
        event: Event,
        notices: &mut Vec<Notice<M::Report>>,
    ) {
        match event {
            Event::Connected => {
                self.handshake_deadline = None;
                self.machine = M::open(now, config, &mut self.connection);
                notices.push(Notice::Connected);
                // Streams that arrived together with the last handshake packet.
                self.accept(now, Dir::Bi);
                self.accept(now, Dir::Uni);
            }
            Event::ConnectionLost { reason } => {
                self.handshake_deadline = None;
                // What was said before the end counts, also when both came in one batch.
                if let Some(mut machine) = self.machine.take() {
                    while let Some(report) = machine.poll_report() {
                        notices.push(Notice::Report(report));
                    }
                }
                notices.push(Notice::Lost(reason));
            }
            Event::Stream(StreamEvent::Opened { dir }) => self.accept(now, dir),
            Event::Stream(StreamEvent::Readable { id }) => self.read(now, id),
            Event::Stream(StreamEvent::Writable { id }) => self.flush(id.into()),
            Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                self.writes.remove(&id.into());
                if let Some(machine) = &mut self.machine {
                    machine.handle_stopped(now, id.into(), error_code.into_inner());
                }
            }
            Event::Stream(StreamEvent::Finished { .. } | StreamEvent::Available { .. })
            | Event::HandshakeDataReady
            | Event::DatagramReceived
            | Event::DatagramsUnblocked => {}
        }
    }

    fn accept(&mut self, now: Instant, dir: Dir) {
        if self.machine.is_none() {
            return;
        }
        while let Some(id) = self.connection.streams().accept(dir) {
            self.read(now, id);
        }
    }

    fn read(&mut self, now: Instant, id: StreamId) {
        let Some(machine) = &mut self.machine else {
            return;
        };
        let mut stream = self.connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            return;
        };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => machine.handle_stream(now, id.into(), &chunk.bytes, false),
                Ok(None) => {
                    machine.handle_stream(now, id.into(), &[], true);
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => {
                    machine.handle_reset(now, id.into(), code.into_inner());
                    break;
                }
            }
        }
        // The engine polls for transmits after every service in any case.
        let _ = chunks.finalize();
    }

    fn perform_actions(&mut self, now: Instant) -> bool {
        let mut progress = false;
        while let Some(action) = self.machine.as_mut().and_then(Machine::poll_action) {
            progress = true;
            match action {
                Action::Write { stream, bytes, fin } => {
                    let write = self.writes.entry(stream).or_default();
                    write.append(bytes);
                    write.fin |= fin;
                    self.flush(stream);
                }
                Action::Reset { stream, code } => {
                    self.writes.remove(&stream);
                    if let (Some(id), Ok(code)) = (stream_id(stream), VarInt::from_u64(code)) {
                        let _ = self.connection.send_stream(id).reset(code);
                    }
                }
                Action::StopSending { stream, code } => {
                    if let (Some(id), Ok(code)) = (stream_id(stream), VarInt::from_u64(code)) {
                        let _ = self.connection.recv_stream(id).stop(code);
                    }
                }
                Action::Close { code, reason } => {
                    // The machine stays: what it has to report is not lost.
                    self.close(now, code, &reason);
                }
            }
        }
        progress
    }

    fn flush(&mut self, stream: u64) {
        let (Some(write), Some(id)) = (self.writes.get_mut(&stream), stream_id(stream)) else {
            return;
        };
        let mut send = self.connection.send_stream(id);
        while !write.bytes.is_empty() {
            match send.write(&write.bytes) {
                Ok(written) => write.bytes.advance(written),
                Err(WriteError::Blocked) => return,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    self.writes.remove(&stream);
                    return;
                }
            }
        }
        if write.fin {
            let _ = send.finish();
        }
        self.writes.remove(&stream);
    }
}

impl Write {
    fn append(&mut self, bytes: Vec<u8>) {
        if self.bytes.is_empty() {
            self.bytes = bytes.into();
        } else {
            let mut joined = Vec::with_capacity(self.bytes.len() + bytes.len());
            joined.extend_from_slice(&self.bytes);
            joined.extend_from_slice(&bytes);
            self.bytes = joined.into();
        }
    }
}

fn stream_id(stream: u64) -> Option<StreamId> {
    VarInt::from_u64(stream).ok().map(StreamId::from)
}

/// A handshake takes two round trips; a peer that stalls it longer holds memory for nothing.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Leaves room for the frame and packet overhead in the smallest QUIC packet.
const MAX_REASON: usize = 512;
