//! `[[session]]`.

use serde::Deserialize;
use toml::Spanned;

use super::rules::{List, who};
use super::source::Source;
use crate::config::ConfigError;
use crate::period::Period;
use crate::policy::limit::Limit;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSession {
    who: List,
    maximum: Spanned<String>,
}

pub(super) fn parse(
    source: &Source<'_>,
    raw: Vec<Spanned<RawSession>>,
) -> Result<Vec<Limit>, ConfigError> {
    let limits = raw.into_iter().map(|session| {
        let line = source.line(&session.span());
        let session = session.into_inner();
        let named = source.filled(&session.who, "session.who")?.iter();
        Ok(Limit {
            who: named
                .map(|entry| who(source, entry, "session.who"))
                .collect::<Result<_, _>>()?,
            maximum: maximum(source, &session.maximum)?,
            line,
        })
    });
    limits.collect()
}

fn maximum(source: &Source<'_>, written: &Spanned<String>) -> Result<Period, ConfigError> {
    let error = |message: String| source.error(written.span(), "session.maximum", message);
    let text = written.get_ref();
    let period = Period::parse(text).ok_or_else(|| {
        error(format!("{text:?} is no length of time"))
            .with_hint("write a number with w, d, h, m or s, such as \"8h\" or \"7d\"")
    })?;
    if period.seconds() < SHORTEST {
        let error = error(format!("{text:?} is less than {SHORTEST}s"));
        return Err(error.with_hint("a session needs time to move to its next connection"));
    }
    Ok(period)
}

/// A connection is made in less than a second, over a bad path in a few; nobody would want this little.
const SHORTEST: u64 = 10;
