//! HTTP/3 frames (RFC 9114 §7) out of stream bytes that come in arbitrary pieces.
//!
//! The reader knows which frames its stream may carry, so that a forbidden one is refused at its
//! first byte and never buffered. DATA is handed through in pieces, unknown frames are skipped
//! without buffering, and everything else has a length limit.

use thiserror::Error;

use super::ErrorCode;
use super::MAX_FIELD_SECTION;
use crate::wire::varint;

/// Which stream a reader reads; that decides which frames are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The peer's control stream.
    Control,
    /// The client's half of a request stream.
    Request,
    /// The gateway's half of a request stream.
    Response,
}

/// One frame, or a piece of a DATA frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A piece of a DATA frame, never empty.
    Data(&'a [u8]),
    /// An encoded field section.
    Headers(Vec<u8>),
    /// The payload of SETTINGS.
    Settings(Vec<u8>),
    /// GOAWAY with its stream or push id.
    GoAway(u64),
    /// CANCEL_PUSH with its push id.
    CancelPush(u64),
    /// MAX_PUSH_ID with its push id.
    MaxPushId(u64),
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A frame that this stream must not carry.
    #[error("frame type {kind:#x} is not allowed on this stream")]
    Unexpected {
        /// The frame type.
        kind: u64,
    },
    /// DATA before the first HEADERS.
    #[error("DATA comes before HEADERS")]
    DataFirst,
    /// A control stream that begins with something else than SETTINGS.
    #[error("the control stream begins with frame type {kind:#x} instead of SETTINGS")]
    MissingSettings {
        /// The frame type.
        kind: u64,
    },
    /// A push, which was never permitted.
    #[error("a push was promised without permission")]
    Push,
    /// A frame that must hold exactly one number and does not.
    #[error("frame type {kind:#x} does not hold exactly one number")]
    BadNumber {
        /// The frame type.
        kind: u64,
    },
    /// A frame that is larger than we are willing to hold.
    #[error("frame type {kind:#x} of {len} bytes is larger than {limit}")]
    TooLong {
        /// The frame type.
        kind: u64,
        /// Its length.
        len: u64,
        /// Our limit.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ends inside a frame")]
    Truncated,
}

impl FrameError {
    /// The code of the connection error.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unexpected { .. } | Self::DataFirst => ErrorCode::FrameUnexpected,
            Self::MissingSettings { .. } => ErrorCode::MissingSettings,
            Self::Push => ErrorCode::Id,
            Self::BadNumber { .. } | Self::Truncated => ErrorCode::Frame,
            Self::TooLong { .. } => ErrorCode::ExcessiveLoad,
        }
    }
}

/// Cuts one stream into frames.
#[derive(Debug)]
pub struct FrameReader {
    place: Place,
    state: State,
    /// Whether SETTINGS (control stream) or HEADERS (request stream) has begun.
    opened: bool,
}

impl FrameReader {
    /// Starts at the first byte after the stream type, if the stream has one.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            state: State::empty_head(),
            opened: false,
        }
    }

    /// Takes bytes off the front of `input` until a frame is complete or the input is used up.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        loop {
            match &mut self.state {
                State::Head { bytes, len } => {
                    let Some((&byte, rest)) = input.split_first() else {
                        return Ok(None);
                    };
                    *input = rest;
                    bytes[usize::from(*len)] = byte;
                    *len += 1;
                    let held = &bytes[..usize::from(*len)];
                    let Some((kind, kind_len)) = varint::decode(held) else {
                        continue;
                    };
                    // The type alone decides, so that nothing forbidden is waited for.
                    self.check(kind)?;
                    let State::Head { bytes, len } = &self.state else {
                        continue;
                    };
                    let held = &bytes[kind_len..usize::from(*len)];
                    let Some((length, _)) = varint::decode(held) else {
                        continue;
                    };
                    self.state = self.begin(kind, length)?;
                }
                State::Data { remaining } | State::Skip { remaining } if *remaining == 0 => {
                    self.state = State::empty_head();
                }
                State::Data { remaining } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    return Ok(Some(Frame::Data(cut(input, remaining))));
                }
                State::Skip { remaining } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    cut(input, remaining);
                }
                State::Payload {
                    kind,
                    remaining,
                    bytes,
                } => {
                    bytes.extend_from_slice(cut(input, remaining));
                    if *remaining > 0 {
                        return Ok(None);
                    }
                    let (kind, bytes) = (*kind, std::mem::take(bytes));
                    self.state = State::empty_head();
                    return complete(kind, bytes).map(Some);
                }
            }
        }
    }

    /// Says whether the stream may end here (RFC 9114 §7.1).
    pub fn finish(&self) -> Result<(), FrameError> {
        match &self.state {
            State::Head { len: 0, .. }
            | State::Data { remaining: 0 }
            | State::Skip { remaining: 0 } => Ok(()),
            _ => Err(FrameError::Truncated),
        }
    }

    fn check(&self, kind: u64) -> Result<(), FrameError> {
        if self.place == Place::Control && !self.opened && kind != SETTINGS {
            return Err(FrameError::MissingSettings { kind });
        }
        let allowed = match (self.place, kind) {
            // RFC 9114 §7.2.4: only once, and first.
            (Place::Control, SETTINGS) => !self.opened,
            (Place::Control, GOAWAY | CANCEL_PUSH | MAX_PUSH_ID) => true,
            (Place::Control, DATA | HEADERS | PUSH_PROMISE) => false,
            // RFC 9114 §7.2.5: we never sent MAX_PUSH_ID, so every push id is too large.
            (Place::Response, PUSH_PROMISE) => return Err(FrameError::Push),
            (Place::Request | Place::Response, DATA) if !self.opened => {
                return Err(FrameError::DataFirst);
            }
            (Place::Request | Place::Response, DATA | HEADERS) => true,
            (_, SETTINGS | GOAWAY | CANCEL_PUSH | MAX_PUSH_ID | PUSH_PROMISE) => false,
            // RFC 9114 §7.2.8: the numbers that HTTP/2 used for frames without a meaning here.
            (_, 0x02 | 0x06 | 0x08 | 0x09) => false,
            // RFC 9114 §9: unknown frames are ignored.
            _ => true,
        };
        if allowed {
            Ok(())
        } else {
            Err(FrameError::Unexpected { kind })
        }
    }

    fn begin(&mut self, kind: u64, len: u64) -> Result<State, FrameError> {
        let limit = match kind {
            DATA => return Ok(State::Data { remaining: len }),
            HEADERS => MAX_FIELD_SECTION,
            SETTINGS => MAX_SETTINGS,
            GOAWAY | CANCEL_PUSH | MAX_PUSH_ID => {
                // One variable-length integer has at most eight bytes.
                return if len <= 8 {
                    Ok(State::Payload {
                        kind,
                        remaining: len,
                        bytes: Vec::new(),
                    })
                } else {
                    Err(FrameError::BadNumber { kind })
                };
            }
            _ => return Ok(State::Skip { remaining: len }),
        };
        if len > limit as u64 {
            return Err(FrameError::TooLong { kind, len, limit });
        }
        self.opened = true;
        Ok(State::Payload {
            kind,
            remaining: len,
            bytes: Vec::new(),
        })
    }
}

/// Writes a frame.
pub fn encode(kind: u64, payload: &[u8], out: &mut Vec<u8>) {
    varint::encode(kind, out);
    varint::encode(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// Writes a frame that holds one number.
pub fn encode_number(kind: u64, value: u64, out: &mut Vec<u8>) {
    varint::encode(kind, out);
    varint::encode(varint::encoded_len(value) as u64, out);
    varint::encode(value, out);
}

#[derive(Debug)]
enum State {
    /// Inside type and length: at most two integers of eight bytes.
    Head {
        bytes: [u8; 16],
        len: u8,
    },
    Data {
        remaining: u64,
    },
    Skip {
        remaining: u64,
    },
    Payload {
        kind: u64,
        remaining: u64,
        bytes: Vec<u8>,
    },
}

impl State {
    const fn empty_head() -> Self {
        Self::Head {
            bytes: [0; 16],
            len: 0,
        }
    }
}

/// Takes at most `remaining` bytes off the front of `input`.
fn cut<'a>(input: &mut &'a [u8], remaining: &mut u64) -> &'a [u8] {
    let len =
        usize::try_from(*remaining).map_or(input.len(), |remaining| remaining.min(input.len()));
    let (taken, rest) = input.split_at(len);
    *input = rest;
    *remaining -= len as u64;
    taken
}

fn complete(kind: u64, bytes: Vec<u8>) -> Result<Frame<'static>, FrameError> {
    let number = || match varint::decode(&bytes) {
        Some((value, len)) if len == bytes.len() => Ok(value),
        _ => Err(FrameError::BadNumber { kind }),
    };
    Ok(match kind {
        GOAWAY => Frame::GoAway(number()?),
        CANCEL_PUSH => Frame::CancelPush(number()?),
        MAX_PUSH_ID => Frame::MaxPushId(number()?),
        SETTINGS => Frame::Settings(bytes),
        // `begin` buffers no other kind.
        _ => Frame::Headers(bytes),
    })
}

/// Frame type of DATA.
pub const DATA: u64 = 0x00;
/// Frame type of HEADERS.
pub const HEADERS: u64 = 0x01;
/// Frame type of CANCEL_PUSH.
pub const CANCEL_PUSH: u64 = 0x03;
/// Frame type of SETTINGS.
pub const SETTINGS: u64 = 0x04;
/// Frame type of PUSH_PROMISE.
pub const PUSH_PROMISE: u64 = 0x05;
/// Frame type of GOAWAY.
pub const GOAWAY: u64 = 0x07;
/// Frame type of MAX_PUSH_ID.
pub const MAX_PUSH_ID: u64 = 0x0d;
/// Room for a few hundred settings; real peers send about ten.
const MAX_SETTINGS: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(frame: Frame<'_>) -> Frame<'static> {
        match frame {
            Frame::Data(data) => Frame::Headers([b"data:", data].concat()),
            Frame::Headers(bytes) => Frame::Headers(bytes),
            Frame::Settings(bytes) => Frame::Settings(bytes),
            Frame::GoAway(id) => Frame::GoAway(id),
            Frame::CancelPush(id) => Frame::CancelPush(id),
            Frame::MaxPushId(id) => Frame::MaxPushId(id),
        }
    }

    fn read(place: Place, mut bytes: &[u8]) -> Result<Vec<Frame<'static>>, FrameError> {
        let mut reader = FrameReader::new(place);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next(&mut bytes)? {
            frames.push(owned(frame));
        }
        reader.finish()?;
        Ok(frames)
    }

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(kind, payload, &mut out);
        out
    }

    #[test]
    fn frames_forbidden_on_a_stream_are_unexpected() {
        let settings = frame(SETTINGS, &[]);
        for kind in [
            DATA,
            HEADERS,
            PUSH_PROMISE,
            SETTINGS,
            0x02,
            0x06,
            0x08,
            0x09,
        ] {
            let bytes = [settings.clone(), frame(kind, &[])].concat();
            assert_eq!(
                read(Place::Control, &bytes),
                Err(FrameError::Unexpected { kind })
            );
        }
        for kind in [
            SETTINGS,
            GOAWAY,
            CANCEL_PUSH,
            MAX_PUSH_ID,
            PUSH_PROMISE,
            0x02,
            0x06,
            0x08,
            0x09,
        ] {
            assert_eq!(
                read(Place::Request, &frame(kind, &[])),
                Err(FrameError::Unexpected { kind }),
                "frame type {kind:#x}"
            );
        }
        assert_eq!(
            read(Place::Response, &frame(PUSH_PROMISE, &[])),
            Err(FrameError::Push)
        );
        assert_eq!(
            read(Place::Request, &frame(DATA, b"x")),
            Err(FrameError::DataFirst)
        );
    }

    #[test]
    fn a_control_stream_begins_with_settings_even_before_grease() {
        assert_eq!(
            read(Place::Control, &frame(0x21, b"grease")),
            Err(FrameError::MissingSettings { kind: 0x21 })
        );
        let bytes = [
            frame(SETTINGS, &[]),
            frame(0x21, b"grease"),
            frame(GOAWAY, &[4]),
        ]
        .concat();
        assert_eq!(
            read(Place::Control, &bytes),
            Ok(vec![Frame::Settings(vec![]), Frame::GoAway(4)])
        );
    }

    #[test]
    fn a_number_frame_holds_exactly_one_number() {
        for payload in [&[][..], &[0x40], &[1, 1], &[0; 9]] {
            let bytes = [frame(SETTINGS, &[]), frame(GOAWAY, payload)].concat();
            assert_eq!(
                read(Place::Control, &bytes),
                Err(FrameError::BadNumber { kind: GOAWAY })
            );
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_at_its_head() {
        let mut bytes = vec![0x01];
        varint::encode(MAX_FIELD_SECTION as u64 + 1, &mut bytes);
        assert!(matches!(
            read(Place::Request, &bytes),
            Err(FrameError::TooLong { .. })
        ));
    }

    #[test]
    fn a_huge_unknown_frame_is_skipped_without_being_held() {
        let mut bytes = vec![0x21];
        varint::encode(varint::MAX, &mut bytes);
        let mut reader = FrameReader::new(Place::Request);
        let mut input = &bytes[..];
        assert_eq!(reader.next(&mut input), Ok(None));
        for _ in 0..64 {
            let mut input = &[0_u8; 4096][..];
            assert_eq!(reader.next(&mut input), Ok(None));
            assert!(input.is_empty());
        }
        assert!(matches!(reader.state, State::Skip { .. }));
        assert_eq!(reader.finish(), Err(FrameError::Truncated));
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_truncated() {
        let bytes = frame(HEADERS, b"section");
        for end in 1..bytes.len() {
            assert_eq!(
                read(Place::Request, &bytes[..end]),
                Err(FrameError::Truncated)
            );
        }
    }

    proptest! {
        #[test]
        fn cutting_the_stream_anywhere_changes_nothing(
            payloads in prop::collection::vec(
                (prop::sample::select(vec![DATA, HEADERS, 0x21, 0x4021]), prop::collection::vec(any::<u8>(), 0..80)),
                0..6,
            ),
            cuts in prop::collection::vec(1_usize..40, 1..60),
        ) {
            let mut bytes = frame(HEADERS, b"first");
            let mut data = Vec::new();
            let mut headers = vec![b"first".to_vec()];
            for (kind, payload) in &payloads {
                bytes.extend(frame(*kind, payload));
                match *kind {
                    DATA => data.extend_from_slice(payload),
                    HEADERS => headers.push(payload.clone()),
                    _ => {}
                }
            }
            let mut reader = FrameReader::new(Place::Request);
            let (mut got_data, mut got_headers) = (Vec::new(), Vec::new());
            let mut rest = &bytes[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (mut piece, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                rest = tail;
                while let Some(frame) = reader.next(&mut piece).unwrap() {
                    match frame {
                        Frame::Data(bytes) => got_data.extend_from_slice(bytes),
                        Frame::Headers(bytes) => got_headers.push(bytes),
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
            }
            prop_assert_eq!(reader.finish(), Ok(()));
            prop_assert_eq!(got_data, data);
            prop_assert_eq!(got_headers, headers);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for place in [Place::Control, Place::Request, Place::Response] {
                let _ = read(place, &bytes);
            }
        }
    }
}
