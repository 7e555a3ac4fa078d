//! Tests as libtest-mimic trials, and the rule for what this machine lacks.

use std::env;

use anyhow::Result;
use libtest_mimic::{Failed, Trial};

/// Wraps a test; the whole error chain becomes the failure message.
pub fn trial(name: &str, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// Says what a ring needs that this machine lacks: a failure where everything must run (`CI=true`),
/// elsewhere one ignored test whose name carries the reason.
pub fn missing(ring: &str, reason: &str) -> Trial {
    let required = env::var_os("CI").is_some_and(|value| value == "true");
    let message = format!("the {ring} ring cannot run here: {reason}");
    let name = format!("{ring} [not run: {reason}]");
    Trial::test(name, move || Err(Failed::from(message))).with_ignored_flag(!required)
}
