//! The text of a policy, for messages that say where.

use std::ops::Range;

use ipnet::IpNet;
use toml::Spanned;

use crate::config::{ConfigError, Warning};
use crate::identity::Principal;

/// A file's name and text, with its lines counted once.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    text: &'a str,
    /// Where lines end.
    ends: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let ends = text.bytes().enumerate();
        let ends = ends.filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at);
        Self {
            file,
            text,
            ends: ends.collect(),
        }
    }

    /// The line, counted from 1, where a span begins.
    pub(super) fn line(&self, span: &Range<usize>) -> u32 {
        let before = self.ends.partition_point(|end| *end < span.start);
        u32::try_from(before + 1).unwrap_or(u32::MAX)
    }

    pub(super) fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        ConfigError::from_toml(self.file, self.text, error)
    }

    pub(super) fn error(
        &self,
        span: Range<usize>,
        key: &str,
        message: impl Into<String>,
    ) -> ConfigError {
        ConfigError::on_line(self.file, self.line(&span) as usize, key, message)
    }

    pub(super) fn warning(
        &self,
        span: Range<usize>,
        key: &str,
        message: impl Into<String>,
    ) -> Warning {
        Warning::on_line(self.file, self.line(&span) as usize, key, message)
    }

    pub(super) fn principal(
        &self,
        name: &Spanned<String>,
        key: &str,
    ) -> Result<Principal, ConfigError> {
        Principal::parse(name.get_ref())
            .map_err(|error| self.error(name.span(), key, error.to_string()))
    }

    /// A prefix whose host bits are zero: anything else is a typing error or a misunderstanding.
    pub(super) fn prefix(
        &self,
        given: IpNet,
        span: Range<usize>,
        key: &str,
    ) -> Result<IpNet, ConfigError> {
        if given == given.trunc() {
            Ok(given)
        } else {
            Err(self
                .error(span, key, format!("{given} has host bits set"))
                .with_hint(format!("the network is {}", given.trunc())))
        }
    }

    /// A prefix or address as text.
    pub(super) fn prefix_of(
        &self,
        text: &Spanned<String>,
        key: &str,
    ) -> Result<IpNet, ConfigError> {
        let (written, span) = (text.get_ref().as_str(), text.span());
        if let Ok(prefix) = written.parse::<IpNet>() {
            return self.prefix(prefix, span, key);
        }
        if let Ok(address) = written.parse::<std::net::IpAddr>() {
            return Ok(IpNet::from(address));
        }
        let error = self.error(span, key, format!("{written:?} is no prefix"));
        Err(error.with_hint(
            "write a prefix such as \"10.1.0.0/16\", or \"net:NAME\" for one of [networks]; \
             host names are not looked up, since what they mean can change behind the policy",
        ))
    }

    /// A list that says something.
    pub(super) fn filled<'b, T>(
        &self,
        list: &'b Spanned<Vec<T>>,
        key: &str,
    ) -> Result<&'b [T], ConfigError> {
        if list.get_ref().is_empty() {
            let error = self.error(list.span(), key, "an empty list");
            return Err(error.with_hint("name something, or leave the key or the rule out"));
        }
        Ok(list.get_ref())
    }

    /// The name of a rule, group or network, which will stand in messages.
    pub(super) fn name<'b>(
        &self,
        name: &'b str,
        span: Range<usize>,
        key: &str,
    ) -> Result<&'b str, ConfigError> {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            let message = format!("a name has 1 to {MAX_NAME} bytes and no control characters");
            return Err(self.error(span, key, message));
        }
        Ok(name)
    }
}

/// As long as the longest group of a certificate (`identity/name.rs`).
const MAX_NAME: usize = 64;
