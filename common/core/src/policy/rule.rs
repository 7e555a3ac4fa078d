//! One rule as it was written, and what it means to a flow.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use super::filter::{Direction, RuleId};
use super::glob::Glob;
use super::rate::Rate;
use super::schedule::Schedule;
use super::services::Services;
use crate::identity::Principal;

/// One `[[allow]]` or `[[deny]]`.
#[derive(Debug)]
pub struct Rule {
    pub(super) id: RuleId,
    pub(super) action: Action,
    pub(super) name: Option<Box<str>>,
    pub(super) file: Arc<str>,
    pub(super) who: Vec<Who>,
    pub(super) to: Vec<Destination>,
    pub(super) services: Services,
    pub(super) directions: Directions,
    pub(super) schedule: Option<Arc<Schedule>>,
    pub(super) rate: Option<Rate>,
}

/// What a rule does with the flows that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// They may begin, unless a rule denies them.
    Allow,
    /// They may not.
    Deny,
}

/// An entry of `who`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Everybody,
    Group(String),
    Domain(Glob),
    Authority(String),
    Principal(Principal),
}

/// An entry of `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Prefix(IpNet),
    /// A named network, by its name and its place in [`super::networks::Networks`].
    Network(Arc<str>, u32),
}

/// Who may start a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directions {
    Out,
    In,
    Both,
}

impl Rule {
    /// Where it stands.
    #[must_use]
    pub fn id(&self) -> RuleId {
        self.id
    }

    /// What it does.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// Its name, or "allow at policy.toml:12".
    #[must_use]
    pub fn name(&self) -> String {
        match &self.name {
            Some(name) => name.to_string(),
            None => format!("{} at {}", self.action, self.place()),
        }
    }

    /// Whether a name says where a rule without one stands: it is the rule's no more once the file is edited.
    #[must_use]
    pub fn is_place(name: &str) -> bool {
        let mut actions = [Action::Allow, Action::Deny].into_iter();
        let place = actions.find_map(|action| name.strip_prefix(&format!("{action} at ")));
        let line = place.and_then(|place| Some(place.rsplit_once(':')?.1));
        line.is_some_and(|line| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// File and line, "policy.toml:12".
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.id.line)
    }

    /// What it means to somebody whom it names. Two rules with the same are the same to that one, wherever they
    /// stand and whomever else they name.
    pub(crate) fn meaning(&self) -> (Action, Option<&str>, String) {
        (self.action, self.name.as_deref(), Effect(self).to_string())
    }

    /// How fast one session may use it, in each direction.
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }
}

/// The rule in one line, without its name and place.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.action, comma(&self.who), Effect(self))
    }
}

/// What of a rule is the same for everybody whom it names: all but `who`.
struct Effect<'a>(&'a Rule);

impl fmt::Display for Effect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rule) = self;
        let preposition = match rule.directions {
            Directions::Out => "to",
            Directions::In => "from",
            Directions::Both => "to and from",
        };
        write!(f, " {preposition} {}", comma(&rule.to))?;
        write!(f, "{}", rule.services)?;
        if let Some(schedule) = &rule.schedule {
            write!(f, ", {schedule}")?;
        }
        if let Some(rate) = rule.rate {
            write!(f, ", at most {rate}")?;
        }
        Ok(())
    }
}

impl Directions {
    pub(super) fn contain(self, direction: Direction) -> bool {
        match self {
            Self::Both => true,
            Self::Out => direction == Direction::FromClient,
            Self::In => direction == Direction::ToClient,
        }
    }

    /// Whether whatever `other` names is named here too.
    pub(super) fn cover(self, other: Self) -> bool {
        self == Self::Both || self == other
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Domain(glob) => write!(f, "domain:{glob}"),
            Self::Authority(name) => write!(f, "authority:{name}"),
            Self::Principal(principal) => principal.fmt(f),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Network(name, _) => write!(f, "net:{name}"),
        }
    }
}

fn comma<T: fmt::Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}
