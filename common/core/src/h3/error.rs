//! The error codes that HTTP/3, QPACK and HTTP datagrams define for streams and connections.

use std::fmt;

/// An application error code (RFC 9114 §8.1, RFC 9204 §6, RFC 9297 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum ErrorCode {
    /// An HTTP datagram that cannot belong to any stream.
    Datagram = 0x33,
    /// Nothing is wrong.
    NoError = 0x100,
    /// A violation that no other code describes.
    GeneralProtocol = 0x101,
    /// A stream of a kind that its sender must not open, or a second critical one.
    StreamCreation = 0x103,
    /// A control or QPACK stream was closed.
    ClosedCriticalStream = 0x104,
    /// A frame that is not allowed here, or not now.
    FrameUnexpected = 0x105,
    /// A frame whose length does not fit its contents.
    Frame = 0x106,
    /// A peer that makes more work than it may.
    ExcessiveLoad = 0x107,
    /// A stream or push id used against the rules.
    Id = 0x108,
    /// A SETTINGS frame with a forbidden, duplicate or impossible setting.
    Settings = 0x109,
    /// A control stream that does not begin with SETTINGS.
    MissingSettings = 0x10a,
    /// A request that was not processed at all.
    RequestRejected = 0x10b,
    /// A request or its answer is no longer wanted.
    RequestCancelled = 0x10c,
    /// A request stream that ended before the request was complete.
    RequestIncomplete = 0x10d,
    /// A malformed HTTP message.
    Message = 0x10e,
    /// A field section that cannot be decoded.
    QpackDecompressionFailed = 0x200,
    /// An instruction on the peer's QPACK encoder stream that cannot be followed.
    QpackEncoderStream = 0x201,
    /// An instruction on the peer's QPACK decoder stream that makes no sense.
    QpackDecoderStream = 0x202,
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> u64 {
        self as u64
    }

    /// The name in the RFC, for logs and close reasons.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Datagram => "H3_DATAGRAM_ERROR",
            Self::NoError => "H3_NO_ERROR",
            Self::GeneralProtocol => "H3_GENERAL_PROTOCOL_ERROR",
            Self::StreamCreation => "H3_STREAM_CREATION_ERROR",
            Self::ClosedCriticalStream => "H3_CLOSED_CRITICAL_STREAM",
            Self::FrameUnexpected => "H3_FRAME_UNEXPECTED",
            Self::Frame => "H3_FRAME_ERROR",
            Self::ExcessiveLoad => "H3_EXCESSIVE_LOAD",
            Self::Id => "H3_ID_ERROR",
            Self::Settings => "H3_SETTINGS_ERROR",
            Self::MissingSettings => "H3_MISSING_SETTINGS",
            Self::RequestRejected => "H3_REQUEST_REJECTED",
            Self::RequestCancelled => "H3_REQUEST_CANCELLED",
            Self::RequestIncomplete => "H3_REQUEST_INCOMPLETE",
            Self::Message => "H3_MESSAGE_ERROR",
            Self::QpackDecompressionFailed => "QPACK_DECOMPRESSION_FAILED",
            Self::QpackEncoderStream => "QPACK_ENCODER_STREAM_ERROR",
            Self::QpackDecoderStream => "QPACK_DECODER_STREAM_ERROR",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
