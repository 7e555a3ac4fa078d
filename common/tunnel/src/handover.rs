//! What proves that two connections are of one client, and nobody else's.
//!
//! Both ends of a connection export a secret from its TLS session (RFC 8446 §7.5). Whoever opens another
//! connection proves with an HMAC that it has the secret of the first, over the secret of the second: the proof
//! is of use on that connection alone, to who has both. Nothing is stored but the secret, as long as the session.

use adit_core::session::Proof;
use aws_lc_rs::hmac;
use quinn_proto::Connection;

/// What a connection's two ends know, and nobody else.
pub(crate) struct Secret([u8; SECRET]);

impl Secret {
    /// The secret of a connection whose handshake is over.
    pub(crate) fn of(connection: &Connection) -> Option<Self> {
        let mut secret = [0; SECRET];
        let session = connection.crypto_session();
        let exported = session.export_keying_material(&mut secret, LABEL, &[]);
        exported.ok().map(|()| Self(secret))
    }

    /// Proves, to the gateway at the other end of the connection `next`, that its client has this one too.
    pub(crate) fn prove(&self, next: &Self) -> Proof {
        let tag = hmac::sign(&self.key(), &next.0);
        let mut proof = [0; SECRET];
        // SHA-256 gives as many bytes.
        proof.copy_from_slice(tag.as_ref());
        Proof(proof)
    }

    /// Whether the client at the other end of the connection `next` has this one too.
    pub(crate) fn is_proved(&self, next: &Self, proof: &Proof) -> bool {
        hmac::verify(&self.key(), &next.0, &proof.0).is_ok()
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

/// The label of the exporter; not registered, hence with a prefix of our own (RFC 8446 §7.5, RFC 5705 §4).
pub(crate) const LABEL: &[u8] = b"EXPORTER-adit-handover";
/// Bytes of the secret, and of an HMAC-SHA256.
pub(crate) const SECRET: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_counts_for_its_two_connections_in_their_order() {
        let [first, second, third] = [1, 2, 3].map(|byte| Secret([byte; SECRET]));
        let proof = first.prove(&second);
        assert!(first.is_proved(&second, &proof));
        assert!(!first.is_proved(&third, &proof), "replayed on another");
        assert!(!third.is_proved(&second, &proof), "of somebody else's");
        assert!(!second.is_proved(&first, &proof));
        let mut forged = proof;
        forged.0[31] ^= 1;
        assert!(!first.is_proved(&second, &forged));
    }
}
