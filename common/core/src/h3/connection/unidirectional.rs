//! The peer's unidirectional streams (RFC 9114 §6.2, RFC 9204 §4.2).

use std::mem::discriminant;

use crate::h3::frame::{FrameReader, Place};
use crate::h3::qpack::instruction::{DecoderStream, EncoderStream};

/// What is known of one stream.
#[derive(Debug)]
pub(super) enum Unidirectional {
    /// The bytes of an incomplete stream type: at most seven.
    Untyped(Vec<u8>),
    /// The control stream.
    Control(FrameReader),
    /// The QPACK encoder stream.
    Encoder(EncoderStream),
    /// The QPACK decoder stream.
    Decoder(DecoderStream),
}

impl Default for Unidirectional {
    fn default() -> Self {
        Self::Untyped(Vec::new())
    }
}

impl Unidirectional {
    /// The stream of a known type.
    pub(super) fn of_kind(kind: u64) -> Option<Self> {
        match kind {
            Kind::CONTROL => Some(Self::Control(FrameReader::new(Place::Control))),
            Kind::ENCODER => Some(Self::Encoder(EncoderStream::default())),
            Kind::DECODER => Some(Self::Decoder(DecoderStream::default())),
            _ => None,
        }
    }

    /// Says whether the connection cannot go on without this stream.
    pub(super) fn is_critical(&self) -> bool {
        !matches!(self, Self::Untyped(_))
    }

    /// Says whether both are streams of one type.
    pub(super) fn same_kind(&self, other: &Self) -> bool {
        discriminant(self) == discriminant(other)
    }
}

/// Stream types.
pub(super) struct Kind;

impl Kind {
    /// Control stream, RFC 9114 §6.2.1.
    pub(super) const CONTROL: u64 = 0x00;
    /// Push stream, RFC 9114 §6.2.2.
    pub(super) const PUSH: u64 = 0x01;
    /// QPACK encoder stream, RFC 9204 §4.2.
    pub(super) const ENCODER: u64 = 0x02;
    /// QPACK decoder stream, RFC 9204 §4.2.
    pub(super) const DECODER: u64 = 0x03;
}
