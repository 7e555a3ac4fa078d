//! `[[allow]]` and `[[deny]]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use super::names::destination;
use super::source::Source;
use crate::config::ConfigError;
use crate::policy::RuleId;
use crate::policy::clock::{Clock, Moment};
use crate::policy::glob::Glob;
use crate::policy::nesting::index;
use crate::policy::networks::Networks;
use crate::policy::rate::Rate;
use crate::policy::rule::{Action, Directions, Rule, Who};
use crate::policy::schedule::{Hours, Schedule};
use crate::policy::services::{Service, Services};

/// A list that says where it stands, as its entries do.
pub(super) type List = Spanned<Vec<Spanned<String>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    name: Option<Spanned<String>>,
    who: List,
    to: List,
    ports: Option<List>,
    direction: Option<Spanned<String>>,
    hours: Option<List>,
    from: Option<Spanned<Datetime>>,
    until: Option<Spanned<Datetime>>,
    rate: Option<Spanned<String>>,
}

/// What a rule is read with.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) file: Arc<str>,
    pub(super) networks: &'a Networks,
    pub(super) clock: &'a Clock,
    /// Lines of named rules.
    names: BTreeMap<String, u32>,
    /// Schedules by their text.
    schedules: BTreeMap<String, Arc<Schedule>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source<'a>, networks: &'a Networks, clock: &'a Clock) -> Self {
        Self {
            source,
            file: source.file.into(),
            networks,
            clock,
            names: BTreeMap::new(),
            schedules: BTreeMap::new(),
        }
    }

    /// All rules in the order of the file.
    pub(super) fn rules(
        &mut self,
        allow: Vec<Spanned<RawRule>>,
        deny: Vec<Spanned<RawRule>>,
    ) -> Result<Vec<Arc<Rule>>, ConfigError> {
        let allow = allow.into_iter().map(|rule| (Action::Allow, rule));
        let deny = deny.into_iter().map(|rule| (Action::Deny, rule));
        let mut rules: Vec<(Action, Spanned<RawRule>)> = allow.chain(deny).collect();
        rules.sort_by_key(|(_, rule)| rule.span().start);
        let rules = rules.into_iter().enumerate().map(|(n, (action, rule))| {
            let id = RuleId {
                index: index(n),
                line: self.source.line(&rule.span()),
            };
            self.rule(id, action, rule.into_inner()).map(Arc::new)
        });
        rules.collect()
    }

    fn rule(&mut self, id: RuleId, action: Action, raw: RawRule) -> Result<Rule, ConfigError> {
        let key = |name: &str| format!("{action}.{name}");
        let source = self.source;
        let schedule = self.schedule(&raw, action)?;
        let who = source.filled(&raw.who, &key("who"))?;
        let to = source.filled(&raw.to, &key("to"))?;
        let rate = match &raw.rate {
            None => None,
            Some(rate) if action == Action::Deny => {
                let error = source.error(rate.span(), &key("rate"), "a rule that denies has no rate");
                return Err(error.with_hint("give the rate to the rule that allows"));
            }
            Some(text) => Some(Rate::parse(text.get_ref()).ok_or_else(|| {
                let message = format!("{:?} is no rate", text.get_ref());
                let error = source.error(text.span(), &key("rate"), message);
                error.with_hint("write a number with bit/s, kbit/s, Mbit/s, Gbit/s, kB/s, MB/s or GB/s, such as \"10 Mbit/s\"")
            })?),
        };
        Ok(Rule {
            id,
            action,
            name: match &raw.name {
                None => None,
                Some(name) => Some(self.name(name, &key("name"))?),
            },
            file: Arc::clone(&self.file),
            who: who
                .iter()
                .map(|entry| self::who(source, entry, &key("who")))
                .collect::<Result<_, _>>()?,
            to: to
                .iter()
                .map(|entry| destination(source, self.networks, entry, &key("to")))
                .collect::<Result<_, _>>()?,
            services: Services::new(self.ports(raw.ports.as_ref(), &key("ports"))?, action),
            directions: directions(source, raw.direction.as_ref(), &key("direction"))?,
            schedule,
            rate,
        })
    }

    fn name(&mut self, name: &Spanned<String>, key: &str) -> Result<Box<str>, ConfigError> {
        let text = self.source.name(name.get_ref(), name.span(), key)?;
        let line = self.source.line(&name.span());
        if let Some(other) = self.names.insert(text.to_owned(), line) {
            let message = format!("{text:?} is also the name of the rule at line {other}");
            return Err(self
                .source
                .error(name.span(), key, message)
                .with_hint("give every rule a name of its own, or none"));
        }
        Ok(text.into())
    }

    fn ports(&self, ports: Option<&List>, key: &str) -> Result<Vec<Service>, ConfigError> {
        let Some(ports) = ports else {
            return Ok(Vec::new());
        };
        let entries = self.source.filled(ports, key)?.iter();
        let entries = entries.map(|entry| {
            Service::parse(entry.get_ref()).map_err(|(message, hint)| {
                self.source
                    .error(entry.span(), key, message)
                    .with_hint(hint)
            })
        });
        entries.collect()
    }

    /// Hours and validity; rules that say the same share one.
    fn schedule(
        &mut self,
        raw: &RawRule,
        action: Action,
    ) -> Result<Option<Arc<Schedule>>, ConfigError> {
        let mut text: Vec<String> = Vec::new();
        let hours = match &raw.hours {
            None => None,
            Some(hours) => Some(self.hours(hours, &format!("{action}.hours"), &mut text)?),
        };
        let mut moment = |written: &Option<Spanned<Datetime>>, key: &str| {
            let Some(written) = written else {
                return Ok(None);
            };
            text.push(format!("{key} {}", written.get_ref()));
            match self.clock.moment(written.get_ref()) {
                Ok(moment) => Ok(Some(moment)),
                Err(message) => Err(self
                    .source
                    .error(written.span(), &format!("{action}.{key}"), message)
                    .with_hint("write a date such as 2026-12-31 or 2026-12-31T18:00:00")),
            }
        };
        let from = moment(&raw.from, "from")?.map(|moment| match moment {
            Moment::Day(at, _) | Moment::Second(at) => at,
        });
        let until = moment(&raw.until, "until")?.map(|moment| match moment {
            Moment::Day(_, at) | Moment::Second(at) => at,
        });
        if let (Some(from), Some(until), Some(written)) = (from, until, &raw.until)
            && until <= from
        {
            let message = format!("{} is not after the rule's from", written.get_ref());
            return Err(self
                .source
                .error(written.span(), &format!("{action}.until"), message)
                .with_hint("the rule would never count"));
        }
        if text.is_empty() {
            return Ok(None);
        }
        let text = text.join(" ");
        let number = index(self.schedules.len());
        let schedule = self.schedules.entry(text.clone()).or_insert_with(|| {
            Arc::new(Schedule {
                number,
                hours,
                from,
                until,
                text,
            })
        });
        Ok(Some(Arc::clone(schedule)))
    }

    fn hours(&self, hours: &List, key: &str, text: &mut Vec<String>) -> Result<Hours, ConfigError> {
        let mut parts = Vec::new();
        for entry in self.source.filled(hours, key)? {
            parts.extend(Hours::parts(entry.get_ref()).map_err(|message| {
                self.source.error(entry.span(), key, message).with_hint(
                    "write days and times, such as \"mon-fri 08:00-18:00\" or \"sat 22:00-02:00\"",
                )
            })?);
        }
        let entries: Vec<&str> = hours
            .get_ref()
            .iter()
            .map(|one| one.get_ref().as_str())
            .collect();
        text.push(format!("hours {}", entries.join(", ")));
        Ok(Hours::new(parts))
    }
}

/// An entry of `who`.
pub(super) fn who(
    source: &Source<'_>,
    entry: &Spanned<String>,
    key: &str,
) -> Result<Who, ConfigError> {
    let error = |message: &str| source.error(entry.span(), key, message);
    let text = entry.get_ref().as_str();
    if text == "*" {
        return Ok(Who::Everybody);
    }
    match text.split_once(':') {
        Some(("group", "")) => Err(error("a group without name")),
        Some(("group", name)) => Ok(Who::Group(name.to_owned())),
        Some(("authority", "")) => Err(error("an authority without name")),
        Some(("authority", name)) => Ok(Who::Authority(name.to_owned())),
        Some(("domain", glob)) => Glob::parse(glob).map(Who::Domain).map_err(error),
        _ if text.contains('*') => Err(error("a name with * in it").with_hint(format!(
            "write \"domain:{text}\" for every name of that form, or \"*\" for everybody"
        ))),
        _ => source.principal(entry, key).map(Who::Principal),
    }
}

pub(super) fn directions(
    source: &Source<'_>,
    direction: Option<&Spanned<String>>,
    key: &str,
) -> Result<Directions, ConfigError> {
    let Some(direction) = direction else {
        return Ok(Directions::Out);
    };
    match direction.get_ref().as_str() {
        "out" => Ok(Directions::Out),
        "in" => Ok(Directions::In),
        "both" => Ok(Directions::Both),
        other => Err(source
            .error(direction.span(), key, format!("{other:?} is no direction"))
            .with_hint("\"out\": the client starts; \"in\": it is started from inside; \"both\"")),
    }
}
