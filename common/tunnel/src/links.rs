//! All connections of one UDP socket: routing of datagrams, timers, and transmission in turn.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use adit_core::dataplane::DropReason;
use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, ConnectError, Connection, ConnectionHandle, DatagramEvent, EcnCodepoint,
    Endpoint, EndpointConfig, Incoming, SendDatagramError, ServerConfig, Transmit,
};

use crate::link::{Link, Machine, Notice};

/// A connection's place in the table. Reused after the connection is drained, never before.
pub(crate) type Key = usize;

/// What one UDP datagram was.
pub(crate) enum Routed {
    /// It belongs to a connection, which will be serviced.
    Known,
    /// Somebody wants to connect.
    New(Box<Incoming>),
    /// It was answered or ignored.
    Done,
}

pub(crate) struct Links<M> {
    endpoint: Endpoint,
    slots: Vec<Option<Slot<M>>>,
    timers: BTreeSet<(Instant, Key)>,
    /// Connections with events to look at.
    unserviced: VecDeque<Key>,
    /// Connections that may have something to send.
    unsent: VecDeque<Key>,
    /// Answers of the endpoint itself: version negotiation, Retry, refusals, resets.
    responses: VecDeque<(Transmit, Vec<u8>)>,
    next_serial: u64,
    full_batch: bool,
}

struct Slot<M> {
    link: Link<M>,
    timeout: Option<Instant>,
    unserviced: bool,
    unsent: bool,
    /// Datagrams queued since the link was last polled dry.
    queued: usize,
}

impl<M: Machine> Links<M> {
    pub(crate) fn new(config: Arc<EndpointConfig>, server: Option<Arc<ServerConfig>>) -> Self {
        Self {
            endpoint: Endpoint::new(config, server, true, None),
            slots: Vec::new(),
            timers: BTreeSet::new(),
            unserviced: VecDeque::new(),
            unsent: VecDeque::new(),
            responses: VecDeque::new(),
            next_serial: 0,
            full_batch: false,
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Link<M>> {
        self.slots.get(key)?.as_ref().map(|slot| &slot.link)
    }

    /// The link, which will be serviced and polled for transmits afterwards.
    pub(crate) fn touch(&mut self, key: Key) -> Option<&mut Link<M>> {
        self.mark(key);
        self.slots.get_mut(key)?.as_mut().map(|slot| &mut slot.link)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(key, slot)| slot.as_ref().map(|_| key))
    }

    /// Connections in any state, closing ones included.
    pub(crate) fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    pub(crate) fn handle_udp(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local_ip: Option<IpAddr>,
        ecn: Option<EcnCodepoint>,
        datagram: BytesMut,
    ) -> Routed {
        let mut buf = Vec::new();
        match self
            .endpoint
            .handle(now, remote, local_ip, ecn, datagram, &mut buf)
        {
            Some(DatagramEvent::ConnectionEvent(ConnectionHandle(key), event)) => {
                if let Some(slot) = self.slots.get_mut(key).and_then(Option::as_mut) {
                    slot.link.connection.handle_event(event);
                    self.mark(key);
                }
                Routed::Known
            }
            Some(DatagramEvent::NewConnection(incoming)) => Routed::New(Box::new(incoming)),
            Some(DatagramEvent::Response(transmit)) => {
                self.responses.push_back((transmit, buf));
                Routed::Done
            }
            None => Routed::Done,
        }
    }

    pub(crate) fn accept(&mut self, now: Instant, incoming: Incoming) -> Option<Key> {
        let mut buf = Vec::new();
        match self.endpoint.accept(incoming, now, &mut buf, None) {
            Ok((ConnectionHandle(key), connection)) => {
                self.insert(now, key, connection);
                Some(key)
            }
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.responses.push_back((transmit, buf));
                }
                None
            }
        }
    }

    pub(crate) fn retry(&mut self, incoming: Incoming) {
        let mut buf = Vec::new();
        match self.endpoint.retry(incoming, &mut buf) {
            Ok(transmit) => self.responses.push_back((transmit, buf)),
            Err(error) => self.endpoint.ignore(error.into_incoming()),
        }
    }

    pub(crate) fn refuse(&mut self, incoming: Incoming) {
        let mut buf = Vec::new();
        let transmit = self.endpoint.refuse(incoming, &mut buf);
        self.responses.push_back((transmit, buf));
    }

    pub(crate) fn connect(
        &mut self,
        now: Instant,
        config: ClientConfig,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<Key, ConnectError> {
        let (ConnectionHandle(key), connection) =
            self.endpoint.connect(now, config, remote, server_name)?;
        self.insert(now, key, connection);
        Ok(key)
    }

    pub(crate) fn close(&mut self, now: Instant, key: Key, code: u64, reason: &str) {
        if let Some(link) = self.touch(key) {
            link.close(now, code, reason);
        }
    }

    /// Queues one datagram on the link, or says why it is dropped.
    pub(crate) fn send_packet(&mut self, key: Key, datagram: Bytes) -> Result<(), DropReason> {
        let slot = self
            .slots
            .get_mut(key)
            .and_then(Option::as_mut)
            .ok_or(DropReason::SessionGone)?;
        let sent = slot.link.send_datagram(datagram);
        slot.queued += 1;
        self.full_batch |= slot.queued >= BATCH;
        if !slot.unsent {
            slot.unsent = true;
            self.unsent.push_back(key);
        }
        sent.map_err(|error| match error {
            SendDatagramError::Blocked(_) => DropReason::QueueFull,
            SendDatagramError::TooLarge => DropReason::TooBig,
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                DropReason::SessionGone
            }
        })
    }

    /// Whether some link has enough datagrams queued to fill a transmit.
    pub(crate) fn has_full_batch(&self) -> bool {
        self.full_batch
    }

    /// The next datagram that arrived on the link.
    pub(crate) fn recv_datagram(&mut self, key: Key) -> Option<Bytes> {
        let slot = self.slots.get_mut(key)?.as_mut()?;
        slot.link.connection.datagrams().recv()
    }

    /// The largest datagram the link carries at present; the outer `None` when there is no link.
    pub(crate) fn max_datagram(&mut self, key: Key) -> Option<Option<usize>> {
        let slot = self.slots.get_mut(key)?.as_mut()?;
        Some(slot.link.connection.datagrams().max_size())
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(due, key)) = self.timers.first() {
            if due > now {
                break;
            }
            self.timers.pop_first();
            if let Some(slot) = self.slots.get_mut(key).and_then(Option::as_mut) {
                slot.timeout = None;
                slot.link.handle_timeout(now);
                self.mark(key);
            }
        }
    }

    /// The next link that has something to say, with its notices.
    pub(crate) fn poll_service(
        &mut self,
        now: Instant,
        config: &M::Config,
        notices: &mut Vec<Notice<M::Report>>,
    ) -> Option<Key> {
        let key = self.unserviced.pop_front()?;
        let Some(slot) = self.slots.get_mut(key).and_then(Option::as_mut) else {
            return Some(key);
        };
        slot.unserviced = false;
        loop {
            slot.link.service(now, config, notices);
            let mut quiet = true;
            while let Some(event) = slot.link.connection.poll_endpoint_events() {
                quiet = false;
                let drained = event.is_drained();
                let answer = self.endpoint.handle_event(ConnectionHandle(key), event);
                if drained {
                    if let Some(due) = slot.timeout {
                        self.timers.remove(&(due, key));
                    }
                    self.slots[key] = None;
                    return Some(key);
                }
                if let Some(answer) = answer {
                    slot.link.connection.handle_event(answer);
                }
            }
            if quiet {
                break;
            }
        }
        self.rearm(key);
        Some(key)
    }

    /// The next transmit: `buf` holds up to `max_datagrams` datagrams of `segment_size` bytes.
    pub(crate) fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        buf.clear();
        if let Some((transmit, bytes)) = self.responses.pop_front() {
            buf.extend_from_slice(&bytes);
            return Some(transmit);
        }
        self.full_batch = false;
        while let Some(&key) = self.unsent.front() {
            let Some(slot) = self.slots.get_mut(key).and_then(Option::as_mut) else {
                self.unsent.pop_front();
                continue;
            };
            let segment = usize::from(slot.link.connection.current_mtu());
            let batch = MAX_SEGMENTS.min(MAX_UDP_BYTES / segment.max(1)).max(1);
            if let Some(mut transmit) = slot.link.connection.poll_transmit(now, batch, buf) {
                // RFC 9484 §10: without congestion control the outer packets are Not-ECT.
                transmit.ecn = None;
                let sent = transmit
                    .segment_size
                    .map_or(1, |size| transmit.size.div_ceil(size));
                slot.queued = slot.queued.saturating_sub(sent);
                // The next link's turn, so that one session's backlog does not delay another's.
                self.unsent.rotate_left(1);
                return Some(transmit);
            }
            slot.unsent = false;
            slot.queued = 0;
            self.unsent.pop_front();
            self.rearm(key);
        }
        None
    }

    /// Keeps what could be sent at this moment, to be sent before anything that comes later: the
    /// last words on streams, before a close silences them.
    pub(crate) fn set_aside_transmits(&mut self, now: Instant) {
        let mut kept = VecDeque::new();
        let mut buf = Vec::new();
        while let Some(transmit) = self.poll_transmit(now, &mut buf) {
            kept.push_back((transmit, buf.clone()));
        }
        self.responses = kept;
    }

    fn insert(&mut self, now: Instant, key: Key, connection: Connection) {
        let link = Link::new(connection, self.next_serial, now);
        self.next_serial += 1;
        if self.slots.len() <= key {
            self.slots.resize_with(key + 1, || None);
        }
        self.slots[key] = Some(Slot {
            link,
            timeout: None,
            unserviced: false,
            unsent: false,
            queued: 0,
        });
        self.mark(key);
    }

    fn mark(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        if !slot.unserviced {
            slot.unserviced = true;
            self.unserviced.push_back(key);
        }
        if !slot.unsent {
            slot.unsent = true;
            self.unsent.push_back(key);
        }
    }

    fn rearm(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        let timeout = slot.link.timeout();
        if timeout != slot.timeout {
            if let Some(due) = slot.timeout {
                self.timers.remove(&(due, key));
            }
            if let Some(due) = timeout {
                self.timers.insert((due, key));
            }
            slot.timeout = timeout;
        }
    }
}

/// UDP_MAX_SEGMENTS of the kernel's UDP_SEGMENT.
const MAX_SEGMENTS: usize = 64;
/// Datagrams of full size in one transmit: [`MAX_UDP_BYTES`] of 1472 bytes each.
const BATCH: usize = 44;
/// The largest UDP payload over IPv4: a batch above it gets EMSGSIZE and is lost whole.
const MAX_UDP_BYTES: usize = 65_507;
