//! A table of links: routing of datagrams by connection id, timers, and transmission in turn.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use adit_core::dataplane::DropReason;
use bytes::{Bytes, BytesMut};
use quinn_proto::{ConnectionId, EcnCodepoint, SendDatagramError, Transmit};

use crate::cid;
use crate::link::{Link, Machine, Notice};

/// A link's place in the table. Reused after the link is drained or taken, never before.
pub(crate) type Key = usize;

/// One UDP datagram from outside.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The address of ours it was sent to, if the system tells.
    pub local_ip: Option<IpAddr>,
    /// Its ECN mark.
    pub ecn: Option<EcnCodepoint>,
    /// Its bytes.
    pub data: BytesMut,
}

pub(crate) struct Links<M> {
    slots: Vec<Option<Slot<M>>>,
    free: Vec<Key>,
    /// Whose each connection id is.
    routes: HashMap<ConnectionId, Key>,
    /// Where the last datagram went: most come in batches.
    last_route: Option<(ConnectionId, Key)>,
    timers: BTreeSet<(Instant, Key)>,
    /// Links with events to look at.
    unserviced: VecDeque<Key>,
    /// Links that may have something to send.
    unsent: VecDeque<Key>,
    /// Answers outside of any connection: version negotiation, Retry, refusals, resets.
    responses: VecDeque<(Transmit, Vec<u8>)>,
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
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            routes: HashMap::new(),
            last_route: None,
            timers: BTreeSet::new(),
            unserviced: VecDeque::new(),
            unsent: VecDeque::new(),
            responses: VecDeque::new(),
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

    /// Links in any state, closing ones included.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Hands a datagram to the link it belongs to; gives it back if there is none.
    pub(crate) fn handle_udp(&mut self, now: Instant, datagram: Datagram) -> Result<(), Datagram> {
        let Some(id) = cid::destination(&datagram.data) else {
            return Err(datagram);
        };
        let key = match self.last_route {
            Some((last, key)) if last == id => key,
            _ => match self.routes.get(&id) {
                Some(&key) => key,
                None => return Err(datagram),
            },
        };
        self.last_route = Some((id, key));
        self.handle_udp_of(now, key, datagram);
        Ok(())
    }

    /// Hands a datagram to a link whatever its connection id.
    pub(crate) fn handle_udp_of(&mut self, now: Instant, key: Key, datagram: Datagram) {
        let Some(slot) = self.slots.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        let mut buf = Vec::new();
        if let Some(transmit) = slot.link.handle_udp(now, datagram, &mut buf) {
            self.responses.push_back((transmit, buf));
        }
        self.mark(key);
    }

    /// Sends an answer that belongs to no connection.
    pub(crate) fn respond(&mut self, transmit: Transmit, bytes: Vec<u8>) {
        self.responses.push_back((transmit, bytes));
    }

    /// Takes a link in; it will be serviced and polled for transmits.
    pub(crate) fn insert(&mut self, link: Link<M>) -> Key {
        let key = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        for id in link.ids() {
            self.routes.insert(*id, key);
        }
        self.slots[key] = Some(Slot {
            link,
            timeout: None,
            unserviced: false,
            unsent: false,
            queued: 0,
        });
        self.mark(key);
        key
    }

    /// Takes a link out; nothing of it stays here.
    pub(crate) fn take(&mut self, key: Key) -> Option<Link<M>> {
        let slot = self.slots.get_mut(key)?.take()?;
        self.free.push(key);
        if let Some(due) = slot.timeout {
            self.timers.remove(&(due, key));
        }
        for id in slot.link.ids() {
            self.routes.remove(id);
        }
        self.last_route = None;
        Some(slot.link)
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
        let drained = slot.link.service(now, config, notices);
        for id in slot.link.new_ids() {
            self.routes.insert(*id, key);
        }
        let is_polled = slot.unsent;
        if drained {
            self.take(key);
        } else if !is_polled {
            // Otherwise that follows when it has nothing to send any more.
            self.rearm(key);
        }
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
