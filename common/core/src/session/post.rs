//! A client's request for a certificate, from its head to the answer.

use super::certificate::{
    ANSWER_TYPE, CertificateAsk, Issued, MAX_ANSWER, Occasion, REQUEST_TYPE, Resource,
};
use super::problem;
use crate::close::{Refusal, RefusalKind};
use crate::h3::ErrorCode;
use crate::h3::connection::{Connection, Event};
use crate::h3::message::ResponseHead;
use crate::h3::qpack::Field;

/// One POST that is not answered in full.
#[derive(Debug)]
pub(super) struct Post {
    stream: u64,
    answer: Option<Answer>,
}

/// The head of the answer, and as much of its body as has come.
#[derive(Debug)]
struct Answer {
    status: u16,
    is_json: bool,
    body: Vec<u8>,
}

/// What became of it.
pub(super) type Outcome = Result<Issued, Refusal>;

impl Post {
    /// Queues the whole request on a bidirectional stream that the caller opened.
    pub(super) fn send(
        h3: &mut Connection,
        stream: u64,
        authority: &str,
        ask: &CertificateAsk,
    ) -> Self {
        h3.open_request(stream);
        let length = ask.request.len().to_string();
        let authorization = match &ask.occasion {
            Occasion::Enrolment(secret) => Some(format!("Bearer {}", secret.expose())),
            Occasion::Renewal => None,
        };
        let mut fields = vec![
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", authority),
            (":path", Resource::of(&ask.occasion).path()),
            ("content-type", REQUEST_TYPE),
            ("content-length", &length),
        ];
        let user_agent = ask.user_agent.as_ref();
        fields.extend(user_agent.map(|agent| ("user-agent", agent.as_str())));
        fields.extend(
            authorization
                .as_deref()
                .map(|credentials| ("authorization", credentials)),
        );
        h3.write_headers(stream, &fields, false);
        h3.write_data(stream, &ask.request, true);
        Self {
            stream,
            answer: None,
        }
    }

    /// The stream it is on.
    pub(super) const fn stream(&self) -> u64 {
        self.stream
    }

    /// Takes an event of its stream; `Some` when it is over.
    pub(super) fn handle(&mut self, h3: &mut Connection, event: Event) -> Option<Outcome> {
        match event {
            Event::Headers { fields, .. } => self.handle_head(h3, fields),
            Event::Data { bytes, .. } => self.handle_body(h3, &bytes),
            Event::Finished { .. } => {
                Some(self.conclude("the gateway closed the request without an answer"))
            }
            Event::Aborted { code, .. } => {
                let reason = format!("the gateway aborted the request with code {code:#x}");
                Some(self.conclude(&reason))
            }
            // RFC 9114 §4.1: it has read enough, and the answer follows.
            _ => None,
        }
    }

    fn handle_head(&mut self, h3: &mut Connection, fields: Vec<Field>) -> Option<Outcome> {
        if self.answer.is_some() {
            // Trailers.
            return None;
        }
        let head = match ResponseHead::parse(fields) {
            Ok(head) if head.is_interim() => return None,
            Ok(head) => head,
            Err(error) => {
                h3.abort(self.stream, ErrorCode::Message);
                let detail = format!("the gateway's answer is malformed: {error}");
                return Some(Err(Refusal::new(RefusalKind::ProtocolError, detail)));
            }
        };
        let media_type = head.fields.single("content-type").unwrap_or_default();
        self.answer = Some(Answer {
            status: head.status,
            is_json: media_type.eq_ignore_ascii_case(ANSWER_TYPE.as_bytes()),
            body: Vec::new(),
        });
        None
    }

    fn handle_body(&mut self, h3: &mut Connection, bytes: &[u8]) -> Option<Outcome> {
        let answer = self.answer.as_mut()?;
        if answer.body.len() + bytes.len() > MAX_ANSWER {
            h3.abort(self.stream, ErrorCode::ExcessiveLoad);
            return Some(Err(not_understood("it is too long")));
        }
        answer.body.extend_from_slice(bytes);
        None
    }

    /// What an answer means that has ended, in whatever way.
    fn conclude(&mut self, otherwise: &str) -> Outcome {
        match self.answer.take() {
            None => Err(Refusal::new(RefusalKind::Unreachable, otherwise)),
            Some(Answer {
                status: 200,
                is_json: true,
                body,
            }) => Issued::parse(&body).ok_or_else(|| not_understood("it holds no certificate")),
            Some(Answer { status, .. }) if (200..300).contains(&status) => {
                Err(not_understood(&format!("it is of status {status}")))
            }
            Some(Answer { status, body, .. }) => Err(problem::to_refusal(status, &body)),
        }
    }
}

fn not_understood(why: &str) -> Refusal {
    let detail = format!("the gateway's answer is not understood: {why}");
    Refusal::new(RefusalKind::ProtocolError, detail)
}
