//! The rules of one HTTP/3 connection: which streams may exist and which frames they may carry.
//!
//! Unidirectional streams (RFC 9114 §6.2): exactly one control stream that begins with SETTINGS and
//! never ends, at most one QPACK stream of each kind, no push; anything else is asked to stop.
//! Request streams (§4.1): one HEADERS from the client, then DATA and, unless it is CONNECT, trailers,
//! which are ignored; any number of interim HEADERS and one final one from the gateway.
//!
//! The caller reads [`Event`]s and answers with `write_headers`, `write_data`, `stop_reading` and
//! `abort`. A stream that both sides ended is forgotten, except that the ids of the last few are
//! kept, so that bytes which were already on their way to us are not taken for a new stream.

mod unidirectional;

use std::collections::{BTreeMap, VecDeque};

use super::frame::{self, Frame, FrameReader, Place};
use super::qpack::{self, Field};
use super::settings::Settings;
use super::{Action, ErrorCode, Role};
use crate::wire::varint;
use unidirectional::{Kind, Unidirectional};

/// What happened on the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer's SETTINGS arrived.
    Settings(Settings),
    /// A field section arrived on a request stream.
    Headers {
        /// The request stream.
        stream: u64,
        /// The decoded field lines, not yet validated as a message.
        fields: Vec<Field>,
    },
    /// Bytes of DATA frames arrived.
    Data {
        /// The request stream.
        stream: u64,
        /// The bytes, never empty.
        bytes: Vec<u8>,
    },
    /// The peer ended its side of a request stream between two frames.
    Finished {
        /// The request stream.
        stream: u64,
    },
    /// The peer aborted its side of a request stream.
    Aborted {
        /// The request stream.
        stream: u64,
        /// The peer's code.
        code: u64,
    },
    /// The peer reads a request stream no further, and our side is aborted.
    Stopped {
        /// The request stream.
        stream: u64,
        /// The peer's code.
        code: u64,
    },
    /// The peer takes no requests from this stream id on (RFC 9114 §5.2).
    GoAway {
        /// The first stream that was not and will not be processed.
        stream: u64,
    },
    /// We closed the connection for a violation or on command; nothing follows.
    Closed {
        /// Why.
        reason: String,
    },
}

impl Event {
    /// The request stream it is about, if it is about one.
    pub fn stream(&self) -> Option<u64> {
        match self {
            Self::Headers { stream, .. }
            | Self::Data { stream, .. }
            | Self::Finished { stream }
            | Self::Aborted { stream, .. }
            | Self::Stopped { stream, .. } => Some(*stream),
            Self::Settings(_) | Self::GoAway { .. } | Self::Closed { .. } => None,
        }
    }
}

/// One HTTP/3 connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    control_stream: u64,
    unidirectional: BTreeMap<u64, Unidirectional>,
    requests: BTreeMap<u64, Request>,
    /// The peer's streams that ended last, of both kinds.
    ended: VecDeque<u64>,
    peer_settings: Option<Settings>,
    /// The stream or push id of the peer's last GOAWAY.
    peer_goaway: Option<u64>,
    /// The peer's last MAX_PUSH_ID.
    max_push_id: Option<u64>,
    /// The first request id that we do not take, once GOAWAY is sent.
    goaway: Option<u64>,
    /// The smallest request id that was never seen.
    next_request: u64,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    closed: bool,
}

impl Connection {
    /// Starts the connection: queues the control stream's type and our SETTINGS.
    pub fn new(role: Role, control_stream: u64, settings: Settings) -> Self {
        let mut bytes = Vec::new();
        varint::encode(Kind::CONTROL, &mut bytes);
        let mut payload = Vec::new();
        settings.encode(&mut payload);
        frame::encode(frame::SETTINGS, &payload, &mut bytes);
        Self {
            role,
            control_stream,
            unidirectional: BTreeMap::new(),
            requests: BTreeMap::new(),
            ended: VecDeque::new(),
            peer_settings: None,
            peer_goaway: None,
            max_push_id: None,
            goaway: None,
            next_request: 0,
            actions: VecDeque::from([Action::Write {
                stream: control_stream,
                bytes,
                fin: false,
            }]),
            events: VecDeque::new(),
            closed: false,
        }
    }

    /// Takes bytes of a stream on which the peer sends.
    pub fn handle_stream(&mut self, stream: u64, data: &[u8], fin: bool) {
        if self.closed || self.ended.contains(&stream) {
            return;
        }
        let result = match StreamKind::of(stream, self.role) {
            StreamKind::Request => self.read_request(stream, data, fin),
            StreamKind::PeerUnidirectional => self.read_unidirectional(stream, data, fin),
            // RFC 9114 §6.1: gateways do not open bidirectional streams.
            StreamKind::GatewayBidirectional => Err(Violation::new(
                ErrorCode::StreamCreation,
                format!("bidirectional stream {stream} was opened by the gateway"),
            )),
            StreamKind::Ours => Ok(()),
        };
        if let Err(violation) = result {
            self.violate(violation.code, &violation.reason);
        }
    }

    /// Takes a RESET_STREAM.
    pub fn handle_reset(&mut self, stream: u64, code: u64) {
        if self.closed {
            return;
        }
        if self
            .unidirectional
            .remove(&stream)
            .is_some_and(|stream| stream.is_critical())
        {
            self.violate(
                ErrorCode::ClosedCriticalStream,
                &format!("critical stream {stream} was reset"),
            );
        } else if let Some(request) = self.requests.get_mut(&stream) {
            request.reading = false;
            self.events.push_back(Event::Aborted { stream, code });
            self.forget_if_over(stream);
        }
    }

    /// Takes a STOP_SENDING.
    pub fn handle_stopped(&mut self, stream: u64, code: u64) {
        if self.closed {
            return;
        }
        if stream == self.control_stream {
            // RFC 9114 §6.2.1.
            self.violate(
                ErrorCode::ClosedCriticalStream,
                "the control stream was stopped",
            );
        } else if let Some(request) = self.requests.get_mut(&stream)
            && std::mem::take(&mut request.writing)
        {
            // RFC 9000 §3.5: STOP_SENDING is answered with RESET_STREAM.
            self.actions.push_back(Action::Reset { stream, code });
            self.events.push_back(Event::Stopped { stream, code });
            self.forget_if_over(stream);
        }
    }

    /// Registers a request stream that we opened, so that its answer is read.
    pub fn open_request(&mut self, stream: u64) {
        self.requests.insert(stream, Request::new(Place::Response));
    }

    /// Queues a field section.
    pub fn write_headers(&mut self, stream: u64, fields: &[(&str, &str)], fin: bool) {
        self.write_frame(stream, frame::HEADERS, &qpack::encode(fields), fin);
    }

    /// Queues a DATA frame, or only the end of our side if there are no bytes.
    pub fn write_data(&mut self, stream: u64, data: &[u8], fin: bool) {
        if data.is_empty() {
            self.write(stream, Vec::new(), fin);
        } else {
            self.write_frame(stream, frame::DATA, data, fin);
        }
    }

    /// Reads a request stream no further, without blame (RFC 9114 §4.1: a complete answer was sent).
    pub fn stop_reading(&mut self, stream: u64) {
        if let Some(request) = self.requests.get_mut(&stream)
            && std::mem::take(&mut request.reading)
        {
            let code = ErrorCode::NoError.code();
            self.actions.push_back(Action::StopSending { stream, code });
            self.forget_if_over(stream);
        }
    }

    /// Aborts both sides of a request stream and forgets it.
    pub fn abort(&mut self, stream: u64, error: ErrorCode) {
        if let Some(request) = self.requests.remove(&stream) {
            self.queue_abort(stream, error, &request);
            self.remember_ended(stream);
        }
    }

    /// Announces that no request beyond those seen is taken (RFC 9114 §5.2).
    pub fn go_away(&mut self) {
        if self.closed || self.goaway.is_some() {
            return;
        }
        // A client's GOAWAY carries a push id, and no push ever comes.
        let id = if self.role == Role::Gateway {
            self.next_request
        } else {
            0
        };
        self.goaway = Some(id);
        let mut bytes = Vec::new();
        frame::encode_number(frame::GOAWAY, id, &mut bytes);
        self.actions.push_back(Action::Write {
            stream: self.control_stream,
            bytes,
            fin: false,
        });
    }

    /// Closes the connection for a violation; everything that comes later is ignored.
    pub fn violate(&mut self, error: ErrorCode, reason: &str) {
        self.close(error.code(), &format!("{error}: {reason}"));
    }

    /// Closes the connection with any code; everything that comes later is ignored.
    pub fn close(&mut self, code: u64, reason: &str) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.requests.clear();
        self.unidirectional.clear();
        self.actions.push_back(Action::Close {
            code,
            reason: reason.to_owned(),
        });
        self.events.push_back(Event::Closed {
            reason: reason.to_owned(),
        });
    }

    /// The peer's SETTINGS, once they arrived.
    pub fn peer_settings(&self) -> Option<Settings> {
        self.peer_settings
    }

    /// Whether the peer has sent GOAWAY.
    pub fn is_peer_going_away(&self) -> bool {
        self.peer_goaway.is_some()
    }

    /// The next thing to do on the QUIC connection.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn read_request(&mut self, stream: u64, mut data: &[u8], fin: bool) -> Result<(), Violation> {
        if !self.accept_request(stream) {
            return Ok(());
        }
        let role = self.role;
        let Some(request) = self
            .requests
            .get_mut(&stream)
            .filter(|request| request.reading)
        else {
            return Ok(());
        };
        loop {
            match request.reader.next(&mut data) {
                Ok(None) => break,
                Ok(Some(Frame::Data(_))) if request.trailed => {
                    let reason = format!("DATA after the trailers of request stream {stream}");
                    return Err(Violation::new(ErrorCode::FrameUnexpected, reason));
                }
                Ok(Some(Frame::Data(bytes))) => push_data(&mut self.events, stream, bytes),
                Ok(Some(Frame::Headers(section))) => {
                    // RFC 9114 §4.1: trailers come once; §4.4: after CONNECT there is only DATA.
                    if role == Role::Gateway && request.headed {
                        if !request.connect && !request.trailed {
                            request.trailed = true;
                            continue;
                        }
                        let reason = format!("a second HEADERS on request stream {stream}");
                        return Err(Violation::new(ErrorCode::FrameUnexpected, reason));
                    }
                    request.headed = true;
                    let fields = qpack::decode(&section).map_err(|error| {
                        let code = match error {
                            qpack::QpackError::TooLarge => ErrorCode::ExcessiveLoad,
                            _ => ErrorCode::QpackDecompressionFailed,
                        };
                        Violation::new(code, error.to_string())
                    })?;
                    request.connect = is_connect(&fields);
                    self.events.push_back(Event::Headers { stream, fields });
                }
                // The reader lets no other frame through on a request stream.
                Ok(Some(_)) => {}
                Err(error) => return Err(Violation::new(error.code(), error.to_string())),
            }
        }
        if fin {
            request
                .reader
                .finish()
                .map_err(|error| Violation::new(error.code(), error.to_string()))?;
            request.reading = false;
            if request.headed || role == Role::Client {
                self.events.push_back(Event::Finished { stream });
                self.forget_if_over(stream);
            } else {
                // RFC 9114 §4.1: a request without HEADERS.
                self.abort(stream, ErrorCode::RequestIncomplete);
            }
        }
        Ok(())
    }

    /// Makes room for a request stream that the client opened.
    fn accept_request(&mut self, stream: u64) -> bool {
        if self.requests.contains_key(&stream) || self.role == Role::Client {
            return true;
        }
        self.next_request = self.next_request.max(stream.saturating_add(4));
        if self.goaway.is_some_and(|limit| stream >= limit) || self.requests.len() >= MAX_REQUESTS {
            self.queue_abort(
                stream,
                ErrorCode::RequestRejected,
                &Request::new(Place::Request),
            );
            self.remember_ended(stream);
            return false;
        }
        self.requests.insert(stream, Request::new(Place::Request));
        true
    }

    fn read_unidirectional(
        &mut self,
        stream: u64,
        mut data: &[u8],
        fin: bool,
    ) -> Result<(), Violation> {
        if !self.unidirectional.contains_key(&stream) {
            if self.unidirectional.len() >= MAX_UNIDIRECTIONAL {
                let reason = "too many unidirectional streams without a type";
                return Err(Violation::new(ErrorCode::ExcessiveLoad, reason));
            }
            self.unidirectional
                .insert(stream, Unidirectional::default());
        }
        while let Some(state) = self.unidirectional.get_mut(&stream) {
            match state {
                Unidirectional::Untyped(bytes) => {
                    let Some((&byte, rest)) = data.split_first() else {
                        break;
                    };
                    data = rest;
                    bytes.push(byte);
                    if let Some((kind, _)) = varint::decode(bytes) {
                        self.type_unidirectional(stream, kind)?;
                    }
                }
                Unidirectional::Control(reader) => match reader.next(&mut data) {
                    Ok(None) => break,
                    Ok(Some(frame)) => self.control_frame(frame)?,
                    Err(error) => return Err(Violation::new(error.code(), error.to_string())),
                },
                Unidirectional::Encoder(instructions) => {
                    instructions.push(data).map_err(|error| {
                        Violation::new(ErrorCode::QpackEncoderStream, error.to_string())
                    })?;
                    break;
                }
                Unidirectional::Decoder(instructions) => {
                    instructions.push(data).map_err(|error| {
                        Violation::new(ErrorCode::QpackDecoderStream, error.to_string())
                    })?;
                    break;
                }
            }
        }
        // RFC 9114 §6.2.1 and RFC 9204 §4.2: these streams live as long as the connection. A stream
        // that ends before its type is complete is nothing (RFC 9114 §6.2).
        if fin
            && self
                .unidirectional
                .remove(&stream)
                .is_some_and(|state| state.is_critical())
        {
            let reason = format!("critical stream {stream} was closed");
            return Err(Violation::new(ErrorCode::ClosedCriticalStream, reason));
        }
        Ok(())
    }

    fn type_unidirectional(&mut self, stream: u64, kind: u64) -> Result<(), Violation> {
        let Some(state) = Unidirectional::of_kind(kind) else {
            self.unidirectional.remove(&stream);
            if kind == Kind::PUSH {
                // RFC 9114 §4.6 and §6.2.2: only gateways push, and only ids that we permitted.
                let code = match self.role {
                    Role::Gateway => ErrorCode::StreamCreation,
                    Role::Client => ErrorCode::Id,
                };
                return Err(Violation::new(
                    code,
                    "a push stream was opened without permission",
                ));
            }
            // RFC 9114 §6.2: unknown streams are not an error; reading them is a waste.
            let code = ErrorCode::StreamCreation.code();
            self.actions.push_back(Action::StopSending { stream, code });
            self.remember_ended(stream);
            return Ok(());
        };
        if self
            .unidirectional
            .values()
            .any(|other| other.same_kind(&state))
        {
            let reason = format!("a second stream of type {kind:#x} was opened");
            return Err(Violation::new(ErrorCode::StreamCreation, reason));
        }
        self.unidirectional.insert(stream, state);
        Ok(())
    }

    fn control_frame(&mut self, frame: Frame<'_>) -> Result<(), Violation> {
        match frame {
            Frame::Settings(payload) => {
                let settings = Settings::parse(&payload)
                    .map_err(|error| Violation::new(error.code(), error.to_string()))?;
                self.peer_settings = Some(settings);
                self.events.push_back(Event::Settings(settings));
            }
            Frame::GoAway(id) => {
                // RFC 9114 §5.2: never growing, and a client's request stream if it is for us.
                let possible = self.role == Role::Gateway || id % 4 == 0;
                if !possible || self.peer_goaway.is_some_and(|before| id > before) {
                    return Err(Violation::new(
                        ErrorCode::Id,
                        format!("GOAWAY with id {id}"),
                    ));
                }
                self.peer_goaway = Some(id);
                if self.role == Role::Client {
                    self.events.push_back(Event::GoAway { stream: id });
                }
            }
            Frame::MaxPushId(id) => {
                // RFC 9114 §7.2.7: from clients only, and never shrinking.
                if self.role == Role::Client {
                    return Err(Violation::new(
                        ErrorCode::FrameUnexpected,
                        "MAX_PUSH_ID from a gateway",
                    ));
                }
                if self.max_push_id.is_some_and(|before| id < before) {
                    return Err(Violation::new(
                        ErrorCode::Id,
                        format!("MAX_PUSH_ID shrinks to {id}"),
                    ));
                }
                self.max_push_id = Some(id);
            }
            // RFC 9114 §7.2.3: no push id was ever mentioned.
            Frame::CancelPush(id) => {
                return Err(Violation::new(
                    ErrorCode::Id,
                    format!("CANCEL_PUSH of unknown push {id}"),
                ));
            }
            // The reader lets no other frame through on a control stream.
            Frame::Data(_) | Frame::Headers(_) => {}
        }
        Ok(())
    }

    fn write_frame(&mut self, stream: u64, kind: u64, payload: &[u8], fin: bool) {
        let mut bytes = Vec::with_capacity(payload.len() + 16);
        frame::encode(kind, payload, &mut bytes);
        self.write(stream, bytes, fin);
    }

    fn write(&mut self, stream: u64, bytes: Vec<u8>, fin: bool) {
        let Some(request) = self
            .requests
            .get_mut(&stream)
            .filter(|request| request.writing)
        else {
            return;
        };
        request.writing = !fin;
        self.actions.push_back(Action::Write { stream, bytes, fin });
        self.forget_if_over(stream);
    }

    fn queue_abort(&mut self, stream: u64, error: ErrorCode, request: &Request) {
        let code = error.code();
        if request.writing {
            self.actions.push_back(Action::Reset { stream, code });
        }
        if request.reading {
            self.actions.push_back(Action::StopSending { stream, code });
        }
    }

    fn forget_if_over(&mut self, stream: u64) {
        if self
            .requests
            .get(&stream)
            .is_some_and(|request| !request.reading && !request.writing)
        {
            self.requests.remove(&stream);
            self.remember_ended(stream);
        }
    }

    fn remember_ended(&mut self, stream: u64) {
        if self.ended.len() == REMEMBERED_STREAMS {
            self.ended.pop_front();
        }
        self.ended.push_back(stream);
    }
}

/// One request stream.
#[derive(Debug)]
struct Request {
    reader: FrameReader,
    /// Whether a HEADERS frame arrived.
    headed: bool,
    /// Whether it is of the method CONNECT.
    connect: bool,
    /// Whether trailers arrived.
    trailed: bool,
    /// Whether the peer's side is open and wanted.
    reading: bool,
    /// Whether our side is open.
    writing: bool,
}

impl Request {
    fn new(place: Place) -> Self {
        Self {
            reader: FrameReader::new(place),
            headed: false,
            connect: false,
            trailed: false,
            reading: true,
            writing: true,
        }
    }
}

fn is_connect(fields: &[Field]) -> bool {
    fields
        .iter()
        .any(|field| field.name == b":method" && field.value == b"CONNECT")
}

/// A reason to close the connection.
#[derive(Debug)]
struct Violation {
    code: ErrorCode,
    reason: String,
}

impl Violation {
    fn new(code: ErrorCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}

/// What the two low bits of a stream id say (RFC 9000 §2.1), seen from our end.
enum StreamKind {
    Request,
    GatewayBidirectional,
    PeerUnidirectional,
    Ours,
}

impl StreamKind {
    fn of(stream: u64, role: Role) -> Self {
        match (stream % 4, role) {
            (0, _) => Self::Request,
            (1, Role::Client) => Self::GatewayBidirectional,
            (2, Role::Gateway) | (3, Role::Client) => Self::PeerUnidirectional,
            _ => Self::Ours,
        }
    }
}

/// Appends to the last event if that belongs to the same stream, so that many small DATA frames do
/// not become many events.
fn push_data(events: &mut VecDeque<Event>, stream: u64, data: &[u8]) {
    match events.back_mut() {
        Some(Event::Data {
            stream: last,
            bytes,
        }) if *last == stream => bytes.extend_from_slice(data),
        _ => events.push_back(Event::Data {
            stream,
            bytes: data.to_vec(),
        }),
    }
}

/// Request streams that may be open at once: one is useful, and QUIC's own limit may be larger.
const MAX_REQUESTS: usize = 32;
/// Unidirectional streams that are remembered at once: three useful ones and some that arrive
/// byte by byte; those of unknown type are forgotten as soon as the type is known.
const MAX_UNIDIRECTIONAL: usize = 32;
/// Ended streams whose late bytes are recognised: more than QUIC lets a peer open in one batch.
const REMEMBERED_STREAMS: usize = 64;

#[cfg(test)]
mod tests;
