//! Connection ids that name their engine and can be told from noise.
//!
//! Eight bytes: the engine's number, four random bytes, three bytes of a keyed hash over the first
//! five. The number lets a datagram that reached the wrong socket be forwarded to the engine that
//! owns the connection. The hash lets a restarted gateway, which knows the key but no connection,
//! answer its old clients with a stateless reset and ignore everybody else (RFC 9000 §10.3).

use aws_lc_rs::hmac;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// Generates the connection ids of one engine.
pub(crate) struct EngineIds {
    engine: u8,
    key: hmac::Key,
    random: StdRng,
}

impl EngineIds {
    /// Ids of engine number `engine`, recognisable by `key`, random by `seed`.
    pub(crate) fn new(engine: u8, key: &[u8; 32], seed: [u8; 32]) -> Self {
        Self {
            engine,
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            random: StdRng::from_seed(seed),
        }
    }

    fn mark(&self, head: &[u8]) -> [u8; MARK] {
        let tag = hmac::sign(&self.key, head);
        let mut mark = [0; MARK];
        mark.copy_from_slice(&tag.as_ref()[..MARK]);
        mark
    }
}

impl ConnectionIdGenerator for EngineIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; HEAD + MARK];
        id[0] = self.engine;
        self.random.fill_bytes(&mut id[1..HEAD]);
        let mark = self.mark(&id[..HEAD]);
        id[HEAD..].copy_from_slice(&mark);
        ConnectionId::new(&id)
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        if cid.len() == HEAD + MARK && self.mark(&cid[..HEAD]) == cid[HEAD..] {
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
/// One in 16 million packets of noise passes for ours; each costs at most one rate-limited reset.
const MARK: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_recognised_by_the_key_alone_and_names_its_engine() {
        let id = EngineIds::new(7, &[1; 32], [2; 32]).generate_cid();
        assert_eq!(id[0], 7);
        assert!(EngineIds::new(0, &[1; 32], [9; 32]).validate(&id).is_ok());
        assert!(EngineIds::new(7, &[3; 32], [2; 32]).validate(&id).is_err());
        assert!(
            EngineIds::new(7, &[1; 32], [2; 32])
                .validate(&ConnectionId::new(&[0; 4]))
                .is_err()
        );
    }
}
