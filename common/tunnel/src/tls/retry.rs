//! The integrity tag of Retry packets, QUIC version 1 (RFC 9001 §5.8).

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use quinn_proto::ConnectionId;

/// The tag over `packet`, the Retry packet without its tag.
pub(super) fn tag(original: &ConnectionId, packet: &[u8]) -> [u8; TAG_LEN] {
    let mut tag = [0; TAG_LEN];
    // Sealing nothing cannot fail for want of space, and the pseudo-packet is far below the
    // length limit of AES-GCM; an all-zero tag would only make the client ignore the Retry.
    if let Ok(sealed) = key().and_then(|key| {
        key.seal_in_place_separate_tag(nonce(), Aad::from(pseudo_packet(original, packet)), &mut [])
    }) {
        tag.copy_from_slice(sealed.as_ref());
    }
    tag
}

/// Whether `payload` (ending in a tag) after `header` is a Retry packet for `original`.
pub(super) fn is_valid(original: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
    let Some(end) = payload.len().checked_sub(TAG_LEN) else {
        return false;
    };
    let (body, received) = payload.split_at(end);
    let mut packet = Vec::with_capacity(header.len() + body.len());
    packet.extend_from_slice(header);
    packet.extend_from_slice(body);
    let mut received = received.to_vec();
    key().is_ok_and(|key| {
        key.open_in_place(
            nonce(),
            Aad::from(pseudo_packet(original, &packet)),
            &mut received,
        )
        .is_ok()
    })
}

/// RFC 9001 figure 8: the original destination connection id, then the packet.
fn pseudo_packet(original: &ConnectionId, packet: &[u8]) -> Vec<u8> {
    let mut pseudo = Vec::with_capacity(1 + original.len() + packet.len());
    // A connection id has at most 20 bytes.
    pseudo.push(original.len() as u8);
    pseudo.extend_from_slice(original);
    pseudo.extend_from_slice(packet);
    pseudo
}

fn key() -> Result<LessSafeKey, aws_lc_rs::error::Unspecified> {
    UnboundKey::new(&AES_128_GCM, &KEY).map(LessSafeKey::new)
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key(NONCE)
}

/// The tag of AES-128-GCM.
const TAG_LEN: usize = 16;
/// RFC 9001 §5.8: fixed for version 1.
const KEY: [u8; 16] = [
    0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e,
];
/// RFC 9001 §5.8: fixed for version 1.
const NONCE: [u8; 12] = [
    0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9001 appendix A.4.
    const SAMPLE: &[u8] = &[
        0xff, 0x00, 0x00, 0x00, 0x01, 0x00, 0x08, 0xf0, 0x67, 0xa5, 0x50, 0x2a, 0x42, 0x62, 0xb5,
        0x74, 0x6f, 0x6b, 0x65, 0x6e, 0x04, 0xa2, 0x65, 0xba, 0x2e, 0xff, 0x4d, 0x82, 0x90, 0x58,
        0xfb, 0x3f, 0x0f, 0x24, 0x96, 0xba,
    ];

    fn original() -> ConnectionId {
        ConnectionId::new(&[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08])
    }

    #[test]
    fn the_sample_of_the_rfc_has_the_tag_of_the_rfc() {
        let (packet, expected) = SAMPLE.split_at(SAMPLE.len() - TAG_LEN);
        assert_eq!(tag(&original(), packet), expected);
    }

    #[test]
    fn only_an_untouched_retry_for_this_connection_is_valid() {
        let (header, payload) = SAMPLE.split_at(15);
        assert!(is_valid(&original(), header, payload));
        assert!(!is_valid(&ConnectionId::new(&[1; 8]), header, payload));
        let mut touched = payload.to_vec();
        touched[0] ^= 1;
        assert!(!is_valid(&original(), header, &touched));
        assert!(!is_valid(&original(), header, &[0; 3]));
    }
}
