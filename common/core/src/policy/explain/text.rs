//! An explanation for people, a line for each fact.

use std::fmt::Write as _;

use super::{Explanation, Maximum};

/// The explanation as text, in the form that `status` has for a client.
#[must_use]
pub fn render(explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<14}{value}");
        }
    };
    let verdict = if explanation.allowed {
        "allowed"
    } else {
        "denied"
    };
    line("verdict", &format!("{verdict}: {}", explanation.reason));
    line("who", &explanation.principal);
    line("flow", &explanation.flow);
    line("time", &explanation.time);
    if let Some(deciding) = &explanation.rule {
        line("rule", &deciding.to_string());
    }
    if let Some(overruled) = &explanation.overruled {
        line("else allowed", &overruled.to_string());
    }
    for miss in &explanation.misses {
        line("nearly", &miss.rule.to_string());
        for because in &miss.because {
            line("", &format!("  but it {because}"));
        }
    }
    for group in &explanation.groups {
        let through = match &group.through {
            Some(through) => format!(", as a member of {through}"),
            None => String::new(),
        };
        line(
            "group",
            &format!("{} ({}{through})", group.name, group.from),
        );
    }
    line("address", &explanation.fixed_addresses.join(", "));
    line(
        "route",
        explanation.route.as_deref().unwrap_or("none leads there"),
    );
    if let Some(Maximum { text, place, .. }) = &explanation.maximum {
        line(
            "maximum",
            &format!("{text} for a session, then everything is checked anew ({place})"),
        );
    }
    for upcoming in &explanation.upcoming {
        line("upcoming", &format!("{}: {}", upcoming.time, upcoming.what));
    }
    text
}
