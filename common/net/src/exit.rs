//! How a program ends: one sentence, a hint, and an exit status that scripts can rely on.
//!
//! 0 all is well · 1 the answer is no (not connected, access refused) · 2 the input or the
//! configuration is wrong · 3 the environment does not allow it (permission, port, device).

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// Why a program could not do what it was asked to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    fault: Fault,
    message: String,
    hint: Option<String>,
}

/// Whose fault it is, which decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// Nobody's: the answer is no.
    No,
    /// The person's who wrote the input.
    Input,
    /// The machine's.
    Environment,
}

impl Failure {
    /// The answer is no.
    pub fn no(message: impl Into<String>) -> Self {
        Self::new(Fault::No, message.into())
    }

    /// Something the user wrote is wrong; the message is the error with its causes.
    pub fn input(error: &dyn Error) -> Self {
        Self::new(Fault::Input, chain(error))
    }

    /// The environment does not allow it; the message is the error with its causes.
    pub fn environment(error: &dyn Error) -> Self {
        Self::new(Fault::Environment, chain(error))
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        if let Some(hint) = hint {
            self.hint = Some(hint.into());
        }
        self
    }

    /// Says what was being done when it happened.
    #[must_use]
    pub fn while_doing(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Prints the failure to standard error and gives the exit status.
    #[allow(clippy::print_stderr)]
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {}", self.message);
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
        ExitCode::from(match self.fault {
            Fault::No => 1,
            Fault::Input => 2,
            Fault::Environment => 3,
        })
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The one sentence, without the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn new(fault: Fault, message: String) -> Self {
        Self {
            fault,
            message,
            hint: None,
        }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_holds_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the profile")]
        struct Outer(#[source] std::io::Error);
        let failure = Failure::input(&Outer(std::io::Error::other("no such thing")))
            .while_doing("up")
            .with_hint(None::<String>);
        assert_eq!(
            failure.message(),
            "up: cannot read the profile: no such thing"
        );
    }
}
