//! Errors in files that people write: which file, which line, which key, what to do.

use std::fmt;

/// Something wrong in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: String,
    line: Option<usize>,
    key: String,
    message: String,
    hint: Option<String>,
}

impl ConfigError {
    /// An error at byte `offset` of `text`.
    pub fn at(
        file: &str,
        text: &str,
        offset: usize,
        key: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            line: Some(line_of(text, offset)),
            key: key.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    /// An error on a line, counted from 1, for those who count lines once for many messages.
    pub fn on_line(file: &str, line: usize, key: &str, message: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            ..Self::whole_file(file, key, message)
        }
    }

    /// An error about something that is missing, hence nowhere.
    pub fn whole_file(file: &str, key: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            key: key.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    /// What the TOML parser found.
    #[must_use]
    pub fn from_toml(file: &str, text: &str, error: &toml::de::Error) -> Self {
        // The parser's message is one sentence, at times followed by a list on lines of its own.
        let message = error.message().replace('\n', ", ");
        match error.span() {
            Some(span) => Self::at(file, text, span.start, "", message),
            None => Self::whole_file(file, "", message),
        }
        .with_hint("the annotated example in config/ shows every key and its form")
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The line, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Something odd that is not an error: it is said, and the file is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(ConfigError);

impl Warning {
    /// A warning on a line, counted from 1.
    pub fn on_line(file: &str, line: usize, key: &str, message: impl Into<String>) -> Self {
        Self(ConfigError::on_line(file, line, key, message))
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The line of a byte, counted from 1.
#[must_use]
pub fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_file_line_key_and_message() {
        let error = ConfigError::at("p.toml", "a\nb\nc", 2, "pool.v4", "not a prefix");
        assert_eq!(error.to_string(), "p.toml:2: pool.v4: not a prefix");
    }

    #[test]
    fn a_syntax_error_has_the_line_of_the_parser() {
        let text = "a = 1\nb = = 2\n";
        let error = toml::from_str::<toml::Table>(text).unwrap_err();
        assert_eq!(
            ConfigError::from_toml("p.toml", text, &error).line(),
            Some(2)
        );
    }
}
