//! Policies at random, the people and flows that they are asked about, and what they mean: an oracle
//! that reads the rules one by one.

use std::fmt::Write as _;
use std::net::IpAddr;

use adit_core::identity::{Identity, Principal};
use adit_core::policy::{Decision, Direction, Flow, Question, RuleId};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

#[derive(Clone, Debug)]
pub struct Rule {
    pub kind: &'static str,
    pub who: Vec<&'static str>,
    to: Vec<&'static str>,
    ports: Vec<&'static str>,
    direction: &'static str,
    /// A day from Monday, 0, and hours of it.
    hours: Option<(i64, i64, i64)>,
    /// Days of [`START`]'s month.
    from: Option<i64>,
    until: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub rules: Vec<Rule>,
    groups: [(&'static str, Vec<&'static str>); 2],
    networks: [(&'static str, Vec<&'static str>); 2],
}

/// The oracle.
impl Model {
    pub fn decide(&self, identity: &Identity, flow: &Flow, now: i64) -> Decision {
        let first = |kind| {
            self.rules
                .iter()
                .position(|rule| self.matches(rule, kind, identity, flow, now))
        };
        let id = |n| RuleId {
            index: n as u32,
            line: self.line(n),
        };
        match (first("deny").map(id), first("allow").map(id)) {
            (None, Some(allow)) => Decision::Allow(allow),
            (deny, _) => Decision::Deny(deny),
        }
    }

    pub fn matches(
        &self,
        rule: &Rule,
        kind: &str,
        identity: &Identity,
        flow: &Flow,
        now: i64,
    ) -> bool {
        rule.kind == kind
            && self.counts(rule, identity, now)
            && rule.to.iter().any(|to| self.reaches(to, flow.inside))
            && starts(rule, flow.direction)
            && (rule.ports.is_empty() || rule.ports.iter().any(|ports| serves(ports, kind, flow)))
    }

    pub fn counts(&self, rule: &Rule, identity: &Identity, now: i64) -> bool {
        let (day, hour) = ((now - START) / 86_400, (now - START) / 3600 % 168);
        rule.who.iter().any(|who| self.names(who, identity))
            && rule.from.is_none_or(|from| from <= day + FIRST_DAY)
            && rule.until.is_none_or(|until| until >= day + FIRST_DAY)
            && rule.hours.is_none_or(|(day, from, to)| {
                let length = if to <= from {
                    to + 24 - from
                } else {
                    to - from
                };
                (hour - day * 24 - from).rem_euclid(168) < length
            })
    }

    pub fn names(&self, who: &str, identity: &Identity) -> bool {
        let name = identity.principal.as_str();
        match who.split_once(':') {
            Some(("group", group)) => {
                let list = self.groups.iter().find(|(name, _)| *name == group);
                identity.groups.iter().any(|own| own == group)
                    || list
                        .is_some_and(|(_, list)| list.iter().any(|who| self.names(who, identity)))
            }
            Some(("authority", authority)) => authority == identity.authority,
            Some((_, glob)) => match glob.strip_prefix('*') {
                Some(end) => name.rsplit('@').next().unwrap().ends_with(end),
                None => name.rsplit('@').next() == Some(glob),
            },
            None => who == "*" || who == name,
        }
    }

    fn reaches(&self, to: &str, address: IpAddr) -> bool {
        match to.strip_prefix("net:") {
            None => to.parse::<IpNet>().unwrap().contains(&address),
            Some(network) => {
                let (_, list) = self
                    .networks
                    .iter()
                    .find(|(name, _)| *name == network)
                    .unwrap();
                list.iter().any(|to| self.reaches(to, address))
            }
        }
    }
}

fn starts(rule: &Rule, direction: Direction) -> bool {
    rule.direction == "both" || (rule.direction == "out") == (direction == Direction::FromClient)
}

fn serves(ports: &str, kind: &str, flow: &Flow) -> bool {
    let (name, range) = ports.split_once('/').unwrap_or((ports, ""));
    let protocol = match name {
        "icmp" => [1, 58].contains(&flow.protocol),
        "proto" => range == flow.protocol.to_string(),
        name => {
            flow.protocol
                == [("tcp", 6), ("udp", 17)]
                    .into_iter()
                    .find(|one| one.0 == name)
                    .unwrap()
                    .1
        }
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    protocol
        && (range.is_empty()
            || name == "proto"
            || match flow.port {
                None => kind == "deny",
                Some(port) => (first.parse().unwrap()..=last.parse().unwrap()).contains(&port),
            })
}

/// What the tests need of a model beside its answers.
impl Model {
    pub fn text(&self) -> String {
        let mut text = String::from("[groups]\n");
        for (name, list) in &self.groups {
            let _ = writeln!(text, "{name} = {list:?}");
        }
        text.push_str("[networks]\n");
        for (name, list) in &self.networks {
            let _ = writeln!(text, "{name} = {list:?}");
        }
        for rule in &self.rules {
            let _ = writeln!(
                text,
                "[[{}]]\nwho = {:?}\nto = {:?}",
                rule.kind, rule.who, rule.to
            );
            let _ = writeln!(text, "direction = {:?}", rule.direction);
            if !rule.ports.is_empty() {
                let _ = writeln!(text, "ports = {:?}", rule.ports);
            }
            if let Some((day, from, to)) = rule.hours {
                let day = DAYS[day as usize];
                let _ = writeln!(text, "hours = [\"{day} {from:02}:00-{to:02}:00\"]");
            }
            for (key, day) in [("from", rule.from), ("until", rule.until)] {
                if let Some(day) = day {
                    let _ = writeln!(text, "{key} = 2026-01-{day:02}");
                }
            }
        }
        text
    }

    /// The line of the n-th rule.
    pub fn line(&self, n: usize) -> u32 {
        let text = self.text();
        let heads = text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.starts_with("[["));
        heads.map(|(line, _)| line as u32 + 1).nth(n).unwrap()
    }

    /// Whether something may be allowed there, ports aside.
    pub fn routed(&self, identity: &Identity, address: IpAddr, now: i64) -> bool {
        let counting = self.rules.iter().filter(|rule| {
            self.counts(rule, identity, now) && rule.to.iter().any(|to| self.reaches(to, address))
        });
        let counting: Vec<&Rule> = counting.collect();
        [Direction::FromClient, Direction::ToClient]
            .iter()
            .any(|&way| {
                let mut ways = counting.iter().filter(|rule| starts(rule, way));
                ways.clone().any(|rule| rule.kind == "allow")
                    && ways.all(|rule| rule.kind == "allow" || !rule.ports.is_empty())
            })
    }
}
pub fn question(identity: &Identity, flow: Flow, now: i64) -> Question<'_> {
    Question {
        principal: &identity.principal,
        authority: &identity.authority,
        groups: &identity.groups,
        not_after: Some(identity.not_after),
        flow,
        now,
    }
}

pub fn model() -> impl Strategy<Value = Model> {
    let list = |from: &'static [&'static str], max| subsequence(from, 1..=max);
    let networks =
        (list(PREFIXES, 2), list(PREFIXES, 1), any::<bool>()).prop_map(|(lab, mut all, nested)| {
            all.extend(nested.then_some("net:lab"));
            [("lab", lab), ("all", all)]
        });
    let groups = (
        subsequence(MEMBERS, 0..=2),
        subsequence(NAMES, 0..=1),
        any::<bool>(),
    )
        .prop_map(|(eng, mut staff, nested)| {
            staff.extend(nested.then_some("group:eng"));
            [("eng", eng), ("staff", staff)]
        });
    (proptest::collection::vec(rule(), 0..7), groups, networks).prop_map(
        |(rules, groups, networks)| Model {
            rules,
            groups,
            networks,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let hours = (0..7i64, 0..24i64, 1..=24i64).prop_filter("not empty", |(_, from, to)| from != to);
    let days = (FIRST_DAY..FIRST_DAY + 7, 0..7i64);
    (
        select(&["allow", "allow", "deny"][..]),
        subsequence(WHO, 1..=2),
        subsequence(TO, 1..=2),
        prop_oneof![Just(Vec::new()), subsequence(PORTS, 1..=3)],
        select(&["out", "in", "both"][..]),
        prop_oneof![2 => Just(None), 1 => hours.prop_map(Some)],
        prop_oneof![3 => Just(None), 1 => days.prop_map(Some)],
        any::<(bool, bool)>(),
    )
        .prop_map(
            |(kind, who, to, ports, direction, hours, days, (from, until))| Rule {
                kind,
                who,
                to,
                ports,
                direction,
                hours,
                from: days.filter(|_| from).map(|(first, _)| first),
                until: days.filter(|_| until).map(|(first, more)| first + more),
            },
        )
}

pub fn flow() -> impl Strategy<Value = Flow> {
    let address = prop_oneof![
        4 => (0..4u8, 0..3u8).prop_map(|(net, host)| IpAddr::from([10, net, 0, host])),
        2 => (0..4u16, 0..3u16).prop_map(|(net, host)| IpAddr::from([0xfd00, net, 0, 0, 0, 0, 0, host])),
        1 => any::<[u8; 4]>().prop_map(IpAddr::from),
    ];
    let port = select(
        &[
            None,
            Some(0),
            Some(52),
            Some(53),
            Some(54),
            Some(443),
            Some(65_535),
        ][..],
    );
    let way = select(&[Direction::FromClient, Direction::ToClient][..]);
    (address, select(&[1, 6, 17, 47, 58, 0, 255][..]), port, way).prop_map(
        |(inside, protocol, port, direction)| Flow {
            direction,
            inside,
            protocol,
            port,
        },
    )
}

pub fn now() -> impl Strategy<Value = i64> {
    // Whole hours are the edges of everything that a model says about time.
    (0..20 * 24i64, select(&[0, 1, 3599][..]))
        .prop_map(|(hour, second)| START + hour * 3600 + second)
}

prop_compose! {
    pub fn identity()(
        name in select(NAMES),
        groups in subsequence(&["eng", "ops"][..], 0..=2),
        authority in select(&["corp", "partner"][..]),
    ) -> Identity {
        Identity {
            principal: Principal::parse(name).unwrap(),
            groups: groups.into_iter().map(str::to_owned).collect(),
            authority: authority.to_owned(),
            serial: "01".to_owned(),
            not_before: 0,
            not_after: i64::MAX,
        }
    }
}

pub fn alice() -> Identity {
    Identity {
        principal: Principal::parse("alice@example.com").unwrap(),
        groups: Vec::new(),
        authority: "corp".to_owned(),
        serial: "01".to_owned(),
        not_before: 0,
        not_after: i64::MAX,
    }
}
/// Monday, 5 January 2026, 00:00 UTC.
pub const START: i64 = 1_767_571_200;
const FIRST_DAY: i64 = 5;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const NAMES: &[&str] = &[
    "alice@example.com",
    "bob@example.com",
    "r1.branch.example.com",
];
const MEMBERS: &[&str] = &["alice@example.com", "r1.branch.example.com", "group:ops"];
const WHO: &[&str] = &[
    "*",
    "group:eng",
    "group:staff",
    "group:ops",
    "alice@example.com",
    "r1.branch.example.com",
    "domain:*.example.com",
    "domain:example.com",
    "authority:corp",
];
/// Nested, equal in two rules, adjacent, and everything.
const PREFIXES: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.2/32",
    "10.2.0.0/15",
    "::/0",
    "fd00:1::/32",
    "fd00:1::1/128",
];
const TO: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.2/32",
    "10.2.0.0/15",
    "::/0",
    "fd00:1::1/128",
    "net:lab",
    "net:all",
];
const PORTS: &[&str] = &[
    "tcp/443",
    "tcp/53-443",
    "tcp",
    "udp/53",
    "udp/0-53",
    "icmp",
    "proto/47",
    "proto/6",
];
