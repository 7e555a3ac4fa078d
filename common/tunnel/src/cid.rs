//! Connection ids that name their engine and can be told from noise.
//!
//! Eight bytes: the engine's number, four random bytes, three bytes of a keyed hash over the first
//! five. The number lets a datagram that reached the wrong socket be forwarded to the engine that
//! owns the connection. The hash lets a restarted gateway, which knows the key but no connection,
//! answer its old clients with a stateless reset and ignore everybody else (RFC 9000 §10.3).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Generates the connection ids of one link.
pub(crate) struct EngineIds {
    engine: u8,
    key: Arc<hmac::Key>,
    random: StdRng,
    issued: Issued,
}

/// The ids generated since the last look, for whoever routes datagrams by them.
///
/// The generator belongs to quinn-proto, which tells nobody what it generated. One thread at a time
/// has both ends, so the lock is never contended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Issued(Arc<Mutex<Vec<ConnectionId>>>);

impl Issued {
    /// Moves what was generated to `into`.
    pub(crate) fn drain(&self, into: &mut Vec<ConnectionId>) {
        into.append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn push(&self, id: ConnectionId) {
        let mut issued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        issued.push(id);
    }
}

/// Where a datagram says it belongs: the destination connection id of its first packet (RFC 8999 §5).
pub(crate) fn destination(datagram: &[u8]) -> Option<ConnectionId> {
    let id = if datagram.first()? & LONG_HEADER != 0 {
        let length = usize::from(*datagram.get(5)?);
        datagram.get(6..6 + length).filter(|_| length <= MAX_ID)?
    } else {
        datagram.get(1..=HEAD + MARK)?
    };
    Some(ConnectionId::new(id))
}

/// The engine whose connection a datagram belongs to; `None` for the datagrams of a handshake, whose ids the
/// client made up.
pub(crate) fn engine(datagram: &[u8]) -> Option<u8> {
    let is_long = datagram.first()? & LONG_HEADER != 0;
    let engine = datagram.get(usize::from(ENGINE_AT)).copied();
    engine.filter(|_| !is_long)
}

/// The key that marks connection ids, from its bytes.
pub(crate) fn marking_key(key: &[u8; 32]) -> Arc<hmac::Key> {
    Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key))
}

impl EngineIds {
    /// Ids of engine number `engine`, recognisable by `key`, random by `seed`, reported to `issued`.
    pub(crate) fn new(engine: u8, key: Arc<hmac::Key>, seed: [u8; 32], issued: Issued) -> Self {
        Self {
            engine,
            key,
            random: StdRng::from_seed(seed),
            issued,
        }
    }
}

/// The first bytes of a destination connection id whose connection shall be on `engine`: like an id, but never
/// one of a connection.
pub(crate) fn place(engine: u8, key: &hmac::Key, random: [u8; HEAD - 1]) -> [u8; HEAD + MARK] {
    let mut place = [0; HEAD + MARK];
    place[0] = engine;
    place[1..HEAD].copy_from_slice(&random);
    let mark = mark(key, &place[..HEAD]);
    place[HEAD..].copy_from_slice(&mark);
    place
}

/// The engine on which the client of a first datagram shall be, if it begins with a place of ours.
pub(crate) fn placed(key: &hmac::Key, id: &ConnectionId) -> Option<u8> {
    let is_longer = id.len() > HEAD + MARK;
    (is_longer && mark(key, &id[..HEAD]) == id[HEAD..HEAD + MARK]).then(|| id[0])
}

fn mark(key: &hmac::Key, head: &[u8]) -> [u8; MARK] {
    let tag = hmac::sign(key, head);
    let mut mark = [0; MARK];
    mark.copy_from_slice(&tag.as_ref()[..MARK]);
    mark
}

impl ConnectionIdGenerator for EngineIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; HEAD + MARK];
        id[0] = self.engine;
        self.random.fill_bytes(&mut id[1..HEAD]);
        let mark = mark(&self.key, &id[..HEAD]);
        id[HEAD..].copy_from_slice(&mark);
        let id = ConnectionId::new(&id);
        self.issued.push(id);
        id
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        if cid.len() == HEAD + MARK && mark(&self.key, &cid[..HEAD]) == cid[HEAD..] {
            Ok(())
        } else {
            Err(InvalidCid)
        }
    }

    fn cid_len(&self) -> usize {
        HEAD + MARK
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The engine's number and the random part.
const HEAD: usize = 5;
/// The bit of a datagram's first byte that marks a long header (RFC 8999 §5.1): a handshake's, for the most part,
/// which is the front desk's whatever engine hears it.
pub const LONG_HEADER: u8 = 0x80;
/// Where a datagram without a long header names its engine.
pub const ENGINE_AT: u8 = 1;
/// The longest connection id of QUIC version 1 (RFC 9000 §17.2).
const MAX_ID: usize = 20;
/// One in 16 million packets of noise passes for ours; each costs at most one rate-limited reset.
const MARK: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_recognised_by_the_key_alone_and_names_its_engine() {
        let ids = |engine, key, seed| {
            EngineIds::new(
                engine,
                marking_key(&[key; 32]),
                [seed; 32],
                Issued::default(),
            )
        };
        let id = ids(7, 1, 2).generate_cid();
        assert_eq!(id[0], 7);
        assert!(ids(0, 1, 9).validate(&id).is_ok());
        assert!(ids(7, 3, 2).validate(&id).is_err());
        let short = ConnectionId::new(&[0; 4]);
        assert!(ids(7, 1, 2).validate(&short).is_err());
    }

    #[test]
    fn a_place_names_its_engine_to_who_has_the_key_and_is_no_id() {
        let keys = [1, 3].map(|byte| marking_key(&[byte; 32]));
        let place = place(7, &keys[0], [1, 2, 3, 4]);
        let id = ConnectionId::new(&[&place[..], &[9; 8]].concat());
        assert_eq!(placed(&keys[0], &id), Some(7));
        assert_eq!(placed(&keys[1], &id), None);
        assert_eq!(placed(&keys[0], &ConnectionId::new(&place)), None);
        assert_eq!(placed(&keys[0], &ConnectionId::new(&[7; 20])), None);
    }

    #[test]
    fn what_is_generated_is_reported_and_found_in_either_header() {
        let issued = Issued::default();
        let id = EngineIds::new(7, marking_key(&[1; 32]), [2; 32], issued.clone()).generate_cid();
        let mut seen = Vec::new();
        issued.drain(&mut seen);
        assert_eq!(seen, [id]);
        let short = [&[0x40][..], &id, &[1, 2, 3]].concat();
        assert_eq!(destination(&short), Some(id));
        assert_eq!(engine(&short), Some(7));
        let long = [&[0xc0, 0, 0, 0, 1, 8][..], &id, &[1, 2, 3]].concat();
        assert_eq!(destination(&long), Some(id));
        assert_eq!(engine(&long), None);
    }

    #[test]
    fn a_datagram_that_ends_within_its_id_belongs_nowhere() {
        for datagram in [
            &[][..],
            &[0x40],
            &[0x40; 8],
            &[0xc0; 5],
            &[0xc0, 0, 0, 0, 1, 8, 1],
        ] {
            assert_eq!(destination(datagram), None, "{datagram:?}");
        }
        for datagram in [&[][..], &[0x40]] {
            assert_eq!(engine(datagram), None, "{datagram:?}");
        }
        let too_long = [&[0xc0, 0, 0, 0, 1, 21][..], &[0; 40]].concat();
        assert_eq!(destination(&too_long), None);
    }
}
