//! Request and response heads (RFC 9114 §4.2 and §4.3), valid by construction.
//!
//! A field section that breaks a rule is malformed, and a malformed message is a stream error of
//! type H3_MESSAGE_ERROR. Extended CONNECT follows RFC 9220 and RFC 8441 §4.

use thiserror::Error;

use super::qpack::Field;

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// `:method`.
    pub method: String,
    /// `:protocol`, only with CONNECT.
    pub protocol: Option<String>,
    /// `:scheme`; absent with plain CONNECT.
    pub scheme: Option<String>,
    /// `:authority`, or Host in its place; absent only where a scheme without one allows that.
    pub authority: Option<String>,
    /// `:path`; absent with plain CONNECT.
    pub path: Option<String>,
    /// The regular fields.
    pub fields: Fields,
}

impl RequestHead {
    /// Validates the field section of a request.
    pub fn parse(fields: Vec<Field>) -> Result<Self, MessageError> {
        let [method, protocol, scheme, authority, path] = [0, 1, 2, 3, 4];
        let names = [":method", ":protocol", ":scheme", ":authority", ":path"];
        let (mut pseudo, fields) = split(fields, names)?;
        let mut take = |index: usize| pseudo[index].take();
        let head = Self {
            method: take(method).ok_or(MessageError::Missing(":method"))?,
            protocol: take(protocol),
            scheme: take(scheme),
            authority: take(authority),
            path: take(path),
            fields,
        };
        head.check()?;
        Ok(head)
    }

    fn check(&self) -> Result<(), MessageError> {
        if !self.method.bytes().all(is_token) || self.method.is_empty() {
            return Err(MessageError::Value(":method"));
        }
        if self.authority.as_ref().is_some_and(|authority| {
            // RFC 9114 §4.3.1: no userinfo for http and https, and never empty.
            authority.is_empty() || authority.contains('@')
        }) {
            return Err(MessageError::Value(":authority"));
        }
        if self.method == "CONNECT" && self.protocol.is_none() {
            // RFC 9114 §4.4.
            if self.authority.is_none() {
                return Err(MessageError::Missing(":authority"));
            }
            return match (&self.scheme, &self.path) {
                (None, None) => Ok(()),
                (Some(_), _) => Err(MessageError::NotHere(":scheme")),
                (_, Some(_)) => Err(MessageError::NotHere(":path")),
            };
        }
        if self.protocol.is_some() && self.method != "CONNECT" {
            // RFC 8441 §4.
            return Err(MessageError::NotHere(":protocol"));
        }
        if self
            .scheme
            .as_ref()
            .ok_or(MessageError::Missing(":scheme"))?
            .is_empty()
        {
            return Err(MessageError::Value(":scheme"));
        }
        if self
            .path
            .as_ref()
            .ok_or(MessageError::Missing(":path"))?
            .is_empty()
        {
            return Err(MessageError::Value(":path"));
        }
        match (&self.authority, self.fields.single("host")) {
            // RFC 9114 §4.3.1: if both are there, they must be the same.
            (Some(authority), Some(host)) if authority.as_bytes() != host => {
                Err(MessageError::Value("host"))
            }
            (None, _) if self.protocol.is_some() => Err(MessageError::Missing(":authority")),
            (None, None | Some(b"")) => Err(MessageError::Missing(":authority")),
            _ => Ok(()),
        }
    }
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// `:status`, 100 to 999.
    pub status: u16,
    /// The regular fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// Validates the field section of a response.
    pub fn parse(fields: Vec<Field>) -> Result<Self, MessageError> {
        let ([status], fields) = split(fields, [":status"])?;
        let status = status.ok_or(MessageError::Missing(":status"))?;
        // RFC 9110 §15: three digits, and no sign.
        let digits = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
        match status
            .parse()
            .ok()
            .filter(|number| digits && *number >= 100)
        {
            // RFC 9114 §4.5: there is no switching of protocols.
            None | Some(101) => Err(MessageError::Value(":status")),
            Some(status) => Ok(Self { status, fields }),
        }
    }

    /// Says whether this is an interim response.
    pub const fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// The regular fields of a message, each with a valid lowercase name and a valid value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<Field>);

impl Fields {
    /// The value of a field that occurs exactly once.
    pub fn single(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.0.iter().filter(|field| field.name == name.as_bytes());
        let value = values.next()?;
        values.next().is_none().then_some(&value.value[..])
    }

    /// Says whether a field occurs.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|field| field.name == name.as_bytes())
    }

    /// Refuses what must not accompany the capsule protocol (RFC 9297 §3.2).
    pub fn check_for_capsules(&self) -> Result<(), MessageError> {
        // Transfer-Encoding never gets here; it is connection-specific.
        match ["content-length", "content-type"]
            .into_iter()
            .find(|name| self.contains(name))
        {
            Some(name) => Err(MessageError::WithCapsules(name)),
            None => Ok(()),
        }
    }
}

/// Why a message is malformed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    /// A pseudo-header field that is required here.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A pseudo-header field twice.
    #[error("{0} is given twice")]
    Duplicate(&'static str),
    /// A pseudo-header field that must not be in this message.
    #[error("{0} must not be in this message")]
    NotHere(&'static str),
    /// A field whose value is impossible.
    #[error("{0} has an impossible value")]
    Value(&'static str),
    /// A pseudo-header field that does not exist in this kind of message.
    #[error("an unknown pseudo-header field")]
    UnknownPseudo,
    /// A pseudo-header field after a regular one.
    #[error("a pseudo-header field follows a regular field")]
    PseudoAfterRegular,
    /// A name with uppercase or other forbidden characters.
    #[error("a field name has forbidden characters")]
    Name,
    /// A value with forbidden characters.
    #[error("a field value has forbidden characters")]
    ForbiddenValue,
    /// A field that belongs to HTTP/1.1 connections.
    #[error("a connection-specific field")]
    ConnectionSpecific,
    /// A field that contradicts the capsule protocol.
    #[error("{0} must not be with the capsule protocol")]
    WithCapsules(&'static str),
}

/// Sorts the fields into the known pseudo-header fields and the regular ones.
fn split<const N: usize>(
    lines: Vec<Field>,
    names: [&'static str; N],
) -> Result<([Option<String>; N], Fields), MessageError> {
    let mut pseudo = [const { None }; N];
    let mut fields = Vec::new();
    for field in lines {
        // RFC 9114 §10.3 and RFC 9110 §5.5.
        if field
            .value
            .iter()
            .any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
        {
            return Err(MessageError::ForbiddenValue);
        }
        if field.name.first() != Some(&b':') {
            check_regular(&field)?;
            fields.push(field);
            continue;
        }
        // RFC 9114 §4.3.
        if !fields.is_empty() {
            return Err(MessageError::PseudoAfterRegular);
        }
        let index = names
            .iter()
            .position(|name| name.as_bytes() == field.name)
            .ok_or(MessageError::UnknownPseudo)?;
        if pseudo[index].is_some() {
            return Err(MessageError::Duplicate(names[index]));
        }
        let value =
            String::from_utf8(field.value).map_err(|_| MessageError::Value(names[index]))?;
        // Authority, path, scheme, method, protocol and status are visible ASCII, each of them.
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(MessageError::Value(names[index]));
        }
        pseudo[index] = Some(value);
    }
    Ok((pseudo, Fields(fields)))
}

fn check_regular(field: &Field) -> Result<(), MessageError> {
    // RFC 9114 §4.2: names are lowercase tokens.
    if field.name.is_empty()
        || !field
            .name
            .iter()
            .all(|&byte| is_token(byte) && !byte.is_ascii_uppercase())
    {
        return Err(MessageError::Name);
    }
    match &field.name[..] {
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            Err(MessageError::ConnectionSpecific)
        }
        b"te" if field.value != b"trailers" => Err(MessageError::ConnectionSpecific),
        _ => Ok(()),
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Vec<Field> {
        lines
            .iter()
            .map(|(name, value)| Field {
                name: (*name).into(),
                value: (*value).into(),
            })
            .collect()
    }

    const REQUEST: [(&str, &str); 6] = [
        (":method", "CONNECT"),
        (":protocol", "connect-ip"),
        (":scheme", "https"),
        (":authority", "vpn.example.com"),
        (":path", "/.well-known/masque/ip/*/*/"),
        ("capsule-protocol", "?1"),
    ];

    fn without(index: usize) -> Vec<(&'static str, &'static str)> {
        let mut lines = REQUEST.to_vec();
        lines.remove(index);
        lines
    }

    #[test]
    fn an_extended_connect_is_read() {
        let head = RequestHead::parse(fields(&REQUEST)).unwrap();
        assert_eq!(head.protocol.as_deref(), Some("connect-ip"));
        assert_eq!(head.authority.as_deref(), Some("vpn.example.com"));
        assert_eq!(head.fields.single("capsule-protocol"), Some(&b"?1"[..]));
        assert_eq!(head.fields.check_for_capsules(), Ok(()));
    }

    #[test]
    fn every_pseudo_header_field_is_required_once_and_first() {
        for index in [0, 2, 3, 4] {
            assert_eq!(
                RequestHead::parse(fields(&without(index))),
                Err(MessageError::Missing(REQUEST[index].0))
            );
        }
        for (index, line) in REQUEST[..5].iter().enumerate() {
            let lines = [&REQUEST[..5], &[*line]].concat();
            assert_eq!(
                RequestHead::parse(fields(&lines)),
                Err(MessageError::Duplicate(REQUEST[index].0))
            );
            let mut lines = without(index);
            lines.push(*line);
            assert_eq!(
                RequestHead::parse(fields(&lines)),
                Err(MessageError::PseudoAfterRegular)
            );
        }
    }

    #[test]
    fn a_plain_connect_has_neither_scheme_nor_path() {
        let plain = [(":method", "CONNECT"), (":authority", "example.com:443")];
        assert!(RequestHead::parse(fields(&plain)).is_ok());
        for extra in [(":scheme", "https"), (":path", "/")] {
            let lines = [&plain[..], &[extra]].concat();
            assert_eq!(
                RequestHead::parse(fields(&lines)),
                Err(MessageError::NotHere(extra.0))
            );
        }
    }

    #[test]
    fn forbidden_fields_names_and_values_are_malformed() {
        let cases = [
            ("Capsule-Protocol", "?1", MessageError::Name),
            ("", "", MessageError::Name),
            ("a b", "", MessageError::Name),
            ("x", "a\r\nb", MessageError::ForbiddenValue),
            ("x", "a\0", MessageError::ForbiddenValue),
            ("connection", "close", MessageError::ConnectionSpecific),
            (
                "transfer-encoding",
                "chunked",
                MessageError::ConnectionSpecific,
            ),
            ("upgrade", "connect-ip", MessageError::ConnectionSpecific),
            ("te", "gzip", MessageError::ConnectionSpecific),
            (":status", "200", MessageError::PseudoAfterRegular),
            ("host", "other.example.com", MessageError::Value("host")),
        ];
        for (name, value, error) in cases {
            let lines = [&REQUEST[..], &[(name, value)]].concat();
            assert_eq!(
                RequestHead::parse(fields(&lines)),
                Err(error),
                "{name}: {value}"
            );
        }
        let lines = [&[(":status", "200")][..], &REQUEST].concat();
        assert_eq!(
            RequestHead::parse(fields(&lines)),
            Err(MessageError::UnknownPseudo)
        );
    }

    #[test]
    fn impossible_pseudo_values_are_malformed() {
        for (index, value) in [
            (0, "CON NECT"),
            (0, ""),
            (2, ""),
            (3, ""),
            (3, "u@vpn"),
            (4, ""),
            (4, "/ x"),
        ] {
            let mut lines = REQUEST;
            lines[index].1 = value;
            assert_eq!(
                RequestHead::parse(fields(&lines)),
                Err(MessageError::Value(REQUEST[index].0)),
                "{value:?}"
            );
        }
        let mut lines = REQUEST;
        lines[0].1 = "GET";
        assert_eq!(
            RequestHead::parse(fields(&lines)),
            Err(MessageError::NotHere(":protocol"))
        );
    }

    #[test]
    fn a_response_has_a_three_digit_status() {
        let status =
            |value| ResponseHead::parse(fields(&[(":status", value)])).map(|head| head.status);
        assert_eq!(status("200"), Ok(200));
        for value in ["", "20", "1000", "2x0", "101", "+20", "0200", "099"] {
            assert_eq!(
                status(value),
                Err(MessageError::Value(":status")),
                "{value:?}"
            );
        }
        assert_eq!(
            ResponseHead::parse(fields(&[])),
            Err(MessageError::Missing(":status"))
        );
    }

    #[test]
    fn content_fields_contradict_the_capsule_protocol() {
        for name in ["content-length", "content-type"] {
            let lines = [&REQUEST[..], &[(name, "0")]].concat();
            let head = RequestHead::parse(fields(&lines)).unwrap();
            assert_eq!(
                head.fields.check_for_capsules(),
                Err(MessageError::WithCapsules(name))
            );
        }
    }

    proptest! {
        #[test]
        fn random_fields_never_panic(
            lines in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..12), prop::collection::vec(any::<u8>(), 0..12)),
                0..8,
            )
        ) {
            let lines: Vec<_> = lines.into_iter().map(|(name, value)| Field { name, value }).collect();
            let _ = RequestHead::parse(lines.clone());
            let _ = ResponseHead::parse(lines);
        }
    }
}
