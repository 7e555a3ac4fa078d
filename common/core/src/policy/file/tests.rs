use super::*;

fn error(text: &str) -> ConfigError {
    parse(text, "p.toml").unwrap_err()
}

fn warnings(text: &str) -> Vec<String> {
    let policy = parse(text, "p.toml").unwrap();
    policy.warnings.iter().map(ToString::to_string).collect()
}

/// A rule that is right, but for what is added to it.
fn allow(more: &str) -> String {
    format!("[[allow]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n{more}")
}

#[test]
fn the_annotated_example_is_valid_and_raises_no_warning() {
    let text = include_str!("../../../../../config/policy.toml");
    let policy = parse(text, "policy.toml").unwrap();
    assert_eq!(policy.warnings, []);
    assert_eq!(policy.failed_tests(0), []);
}

#[test]
fn the_annotated_example_stays_valid_with_everything_in_it_switched_on() {
    let text = include_str!("../../../../../config/policy.toml");
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            // Prose begins with a capital letter or is no TOML.
            Some(code) if code.starts_with('[') || code.contains(" = ") && !code.ends_with('.') => {
                code
            }
            _ => line,
        })
        .collect();
    let policy = parse(&uncommented.join("\n"), "policy.toml").unwrap();
    assert!(policy.rules.len() > 3, "{}", policy.rules.len());
    assert_eq!(policy.failed_tests(1_800_000_000), []);
}

#[test]
fn every_error_of_addresses_has_its_line() {
    for (text, expected) in [
        (
            "[pool]\nv4 = \"10.0.0.1/24\"",
            "p.toml:2: pool.v4: 10.0.0.1/24 has host bits set",
        ),
        ("[pool]\nv5 = 1", "p.toml:2: unknown field `v5`"),
        (
            "[[principal]]\nname = \"a@b.c\"\naddresses = [\"10.0.0.1\"]\n\
             [[principal]]\nname = \"d@e.f\"\naddresses = [\"10.0.0.1\"]",
            "p.toml:6: principal.addresses: 10.0.0.1 belongs to a@b.c already",
        ),
        (
            "[[site]]\nprincipal = \"a.b\"\nnetworks = []",
            "p.toml:3: site.networks: an empty list",
        ),
        (
            "[[site]]\nprincipal = \"a.b\"\nnetworks = [\"10.1.0.0/16\"]\n\
             [[site]]\nprincipal = \"c.d\"\nnetworks = [\"10.1.0.0/16\"]",
            "p.toml:6: site.networks: 10.1.0.0/16 belongs to a.b already",
        ),
        (
            "[pool]\nv4 = \"10.1.0.0/24\"\n[[site]]\nprincipal = \"a.b\"\nnetworks = [\"10.0.0.0/8\"]",
            "p.toml:5: site.networks: 10.0.0.0/8 overlaps the pool 10.1.0.0/24",
        ),
        (
            "[pool]\nv4 = \"10.1.0.0/24\"\n[[principal]]\nname = \"a.b\"\naddresses = [\"10.1.0.255\"]",
            "p.toml:5: principal.addresses: 10.1.0.255 is no host address of its pool",
        ),
        (
            "[[site]]\nprincipal = \"a.b\"\nnetworks = [\"10.2.0.9/32\"]\n\
             [[principal]]\nname = \"c.d\"\naddresses = [\"10.2.0.9\"]",
            "p.toml:6: principal.addresses: 10.2.0.9 belongs to the site a.b already",
        ),
    ] {
        let message = error(text).to_string();
        assert!(
            message.starts_with(expected),
            "{message}\nexpected {expected}"
        );
    }
}

#[test]
fn every_error_of_rules_has_its_line_and_key_and_says_what_to_do() {
    let rule = |who: &str, to: &str| format!("\n[[allow]]\nwho = {who}\nto = {to}");
    for (text, expected) in [
        (
            rule("[]", "[\"::/0\"]"),
            "p.toml:3: allow.who: an empty list",
        ),
        (rule("[\"*\"]", "[]"), "p.toml:4: allow.to: an empty list"),
        (
            rule("[\"a*@b.c\"]", "[\"::/0\"]"),
            "p.toml:3: allow.who: a name with * in it",
        ),
        (
            rule("[\"*\"]", "[\"10.0.0.0/33\"]"),
            "p.toml:4: allow.to: \"10.0.0.0/33\" is no prefix",
        ),
        (
            rule("[\"*\"]", "[\"db.example.com\"]"),
            "p.toml:4: allow.to: \"db.example.com\" is no prefix",
        ),
        (
            rule("[\"*\"]", "[\"10.0.0.1/8\"]"),
            "p.toml:4: allow.to: 10.0.0.1/8 has host bits set",
        ),
        (
            rule("[\"*\"]", "[\"net:lab\"]"),
            "p.toml:4: allow.to: there is no network \"lab\"",
        ),
        (allow("ports = []"), "p.toml:4: allow.ports: an empty list"),
        (
            allow("ports = [\"tcp/9-8\"]"),
            "p.toml:4: allow.ports: the ports 9-8 end before they begin",
        ),
        (
            allow("ports = [\"tcp/80\",\n\"icmp/8\"]"),
            "p.toml:5: allow.ports: \"icmp/8\" names ports",
        ),
        (
            allow("ports = [\"http\"]"),
            "p.toml:4: allow.ports: \"http\" is no protocol",
        ),
        (
            allow("ports = [\"proto/256\"]"),
            "p.toml:4: allow.ports: \"proto/256\" is no protocol number",
        ),
        (
            allow("direction = \"up\""),
            "p.toml:4: allow.direction: \"up\" is no direction",
        ),
        (allow("hours = []"), "p.toml:4: allow.hours: an empty list"),
        (
            allow("hours = [\"mon 8-9\"]"),
            "p.toml:4: allow.hours: \"8\" is no time of day",
        ),
        (
            allow("hours = [\"mon\"]"),
            "p.toml:4: allow.hours: \"mon\" is no span of time",
        ),
        (
            allow("from = 12:00:00"),
            "p.toml:4: allow.from: 12:00:00 has no date",
        ),
        (
            allow("from = 2026-02-02\nuntil = 2026-02-01"),
            "p.toml:5: allow.until: 2026-02-01 is not after",
        ),
        (
            allow("from = 2026-02-02T08:00:00\nuntil = 2026-02-02T08:00:00"),
            "p.toml:5: allow.until: 2026-02-02T08:00:00 is not after",
        ),
        (
            allow("rate = \"fast\""),
            "p.toml:4: allow.rate: \"fast\" is no rate",
        ),
        (
            allow("").replace("allow", "deny") + "rate = \"1 MB/s\"",
            "p.toml:4: deny.rate: a rule that denies has no rate",
        ),
        (
            allow("name = \"\""),
            "p.toml:4: allow.name: a name has 1 to 64 bytes",
        ),
        (
            allow("name = \"a\"\n") + &allow("name = \"a\"").replace("allow", "deny"),
            "p.toml:8: deny.name: \"a\" is also the name of the rule at line 4",
        ),
        (
            "\ntimezone = \"Europe/Nowhere\"".to_owned(),
            "p.toml:2: timezone: there is no time zone \"Europe/Nowhere\"",
        ),
        (
            "[networks]\na = []".to_owned(),
            "p.toml:2: networks: an empty list",
        ),
        (
            "[networks]\na = [\"host\"]".to_owned(),
            "p.toml:2: networks: \"host\" is no prefix",
        ),
        (
            "[networks]\na = [\"net:b\"]".to_owned(),
            "p.toml:2: networks: there is no network \"b\"",
        ),
        (
            "[networks]\nz = [\"net:b\"]\na = [\"10.0.0.0/8\"]\nb = [\"net:a\", \"net:z\"]"
                .to_owned(),
            "p.toml:4: networks: \"b\" contains itself: b -> z -> b",
        ),
        (
            "[groups]\nx = [\"group:x\"]".to_owned(),
            "p.toml:2: groups: \"x\" contains itself: x -> x",
        ),
    ] {
        let error = error(&text);
        let message = error.to_string();
        assert!(
            message.starts_with(expected),
            "{message}\nexpected {expected}"
        );
        let in_itself = ["a name has"].iter().any(|said| message.contains(said));
        assert!(error.hint().is_some() || in_itself, "no hint: {message}");
    }
    for (text, expected) in [
        (
            allow("port = [\"tcp/1\"]"),
            "p.toml:4: unknown field `port`",
        ),
        (
            "[[allow]]\nto = []".to_owned(),
            "p.toml:1: missing field `who`",
        ),
        (
            rule("[\"a@\"]", "[\"::/0\"]"),
            "p.toml:3: allow.who: mail address",
        ),
        (
            rule("[\"group:\"]", "[\"::/0\"]"),
            "p.toml:3: allow.who: a group without name",
        ),
        (
            rule("[\"authority:\"]", "[\"::/0\"]"),
            "p.toml:3: allow.who: an authority without name",
        ),
        (
            rule("[\"domain:\"]", "[\"::/0\"]"),
            "p.toml:3: allow.who: a domain without name",
        ),
        (
            "[groups]\neng = [\n\"a@\"]".to_owned(),
            "p.toml:3: groups: mail address",
        ),
    ] {
        let message = error(&text).to_string();
        assert!(
            message.starts_with(expected),
            "{message}\nexpected {expected}"
        );
    }
}

#[test]
fn every_error_of_sessions_has_its_line_and_key_and_says_what_to_do() {
    let session =
        |who: &str, maximum: &str| format!("[[session]]\nwho = [{who}]\nmaximum = \"{maximum}\"\n");
    for (text, expected) in [
        (session("", "8h"), "p.toml:2: session.who: an empty list"),
        (
            session("\"group:\"", "8h"),
            "p.toml:2: session.who: a group without name",
        ),
        (
            session("\"*\"", "eight hours"),
            "p.toml:3: session.maximum: \"eight hours\" is no length of time",
        ),
        (
            session("\"*\"", "9s"),
            "p.toml:3: session.maximum: \"9s\" is less than 10s",
        ),
        (
            session("\"*\"", "8h") + "hours = []\n",
            "p.toml:4: unknown field `hours`",
        ),
    ] {
        let error = error(&text);
        assert!(error.to_string().starts_with(expected), "{error}");
        if expected.contains("session.") && !expected.contains("group") {
            assert!(error.hint().is_some(), "{error}");
        }
    }
    // A group that only a maximum names is used.
    let text = "[groups]\nhr = [\"a@b.c\"]\n".to_owned() + &session("\"group:hr\"", "8h");
    assert_eq!(warnings(&text), Vec::<String>::new());
}

#[test]
fn every_error_of_tests_has_its_line() {
    let test = |port: &str, expect: &str, more: &str| {
        format!(
            "[[test]]\nwho = \"a@b.c\"\nto = \"10.0.0.1\"\nport = \"{port}\"\nexpect = \"{expect}\"\n{more}"
        )
    };
    for (text, expected) in [
        (
            test("tcp", "deny", ""),
            "p.toml:4: test.port: \"tcp\" is no port",
        ),
        (
            test("tcp/1-2", "deny", ""),
            "p.toml:4: test.port: \"tcp/1-2\" is more than one port",
        ),
        (
            test("icmp/8", "deny", ""),
            "p.toml:4: test.port: \"icmp/8\" names ports",
        ),
        (
            test("icmp", "maybe", ""),
            "p.toml:5: test.expect: \"maybe\" is no answer",
        ),
        (
            test("icmp", "deny", "rule = \"x\""),
            "p.toml:6: test.rule: there is no rule \"x\"",
        ),
        (
            test("icmp", "deny", "direction = \"both\""),
            "p.toml:6: test.direction: a flow has one direction",
        ),
        (
            test("icmp", "deny", "at = 2026-01-01"),
            "p.toml:6: test.at: 2026-01-01 has no time",
        ),
    ] {
        let message = error(&text).to_string();
        assert!(
            message.starts_with(expected),
            "{message}\nexpected {expected}"
        );
    }
}

#[test]
fn names_that_no_rule_uses_are_warnings() {
    let text = "[groups]\nused = [\"group:inner\"]\ninner = [\"a@b.c\"]\nidle = []\n\
                [networks]\nlab = [\"net:rack\"]\nrack = [\"10.0.0.0/8\"]\nspare = [\"net:rack\"]\n\
                [[allow]]\nwho = [\"group:used\", \"group:of-certificates\"]\nto = [\"net:lab\"]";
    assert_eq!(
        warnings(text),
        [
            "p.toml:8: networks: no rule uses the network \"spare\"",
            "p.toml:4: groups: no rule uses the group \"idle\"",
        ]
    );
}

#[test]
fn a_rule_that_another_covers_whole_is_a_warning() {
    let two = |first: &str, second: &str| warnings(&format!("{first}\n{second}"));
    let office = "[[allow]]\nname = \"office\"\nwho = [\"group:staff\"]\nto = [\"10.0.0.0/8\"]\nports = [\"tcp\"]\n";
    let shadowed = ["p.toml:7: allow: the rule decides nothing, shadowed by \"office\" (p.toml:1)"];
    let none: [&str; 0] = [];
    let web = |more: &str| {
        format!(
            "[[allow]]\nwho = [\"group:staff\"]\nto = [\"10.1.0.0/16\", \"10.2.0.0/16\"]\nports = [\"tcp/443\"]\n{more}"
        )
    };
    assert_eq!(two(office, &web("")), shadowed);
    assert_eq!(two(office, &web("hours = [\"mon 08:00-09:00\"]")), shadowed);
    // Each of these says something that the first does not.
    assert_eq!(two(office, &web("direction = \"both\"")), none);
    assert_eq!(two(office, &web("").replace("tcp/443", "udp/443")), none);
    assert_eq!(two(office, &web("").replace("10.2.", "11.2.")), none);
    assert_eq!(
        two(office, &web("").replace("group:staff", "group:guests")),
        none
    );
    assert_eq!(
        two(
            &office.replace("ports", "hours = [\"mon 08:00-09:00\"]\nports"),
            &web("")
        ),
        none
    );
    // The order counts among rules that allow, and not for those that deny.
    assert_eq!(two(&web(""), office), none);
    assert_eq!(
        two(&web(""), &office.replace("allow", "deny")),
        ["p.toml:1: allow: the rule decides nothing, shadowed by \"office\" (p.toml:6)"]
    );
    assert_eq!(
        two(
            &office.replace("allow", "deny"),
            office.replace("office", "o").as_str()
        )
        .len(),
        1
    );
}

#[test]
fn a_wider_who_covers_a_narrower_one_as_far_as_the_file_says_so() {
    let text = |wide: &str, narrow: &str| {
        format!(
            "[groups]\nstaff = [\"alice@example.com\", \"group:eng\"]\neng = [\"bob@example.com\"]\n\
             [[allow]]\nwho = [{wide:?}]\nto = [\"10.0.0.0/8\"]\n\
             [[deny]]\nwho = [\"group:eng\"]\nto = [\"11.0.0.0/8\"]\n\
             [[deny]]\nwho = [\"group:staff\"]\nto = [\"12.0.0.0/8\"]\n\
             [[allow]]\nwho = [{narrow:?}]\nto = [\"10.0.0.0/8\"]"
        )
    };
    for (wide, narrow, covered) in [
        ("*", "alice@example.com", true),
        ("*", "authority:corp", true),
        ("group:staff", "alice@example.com", true),
        ("group:staff", "bob@example.com", true),
        ("group:staff", "group:eng", true),
        ("group:eng", "group:staff", false),
        ("group:staff", "carol@example.com", false),
        ("domain:*ample.com", "carol@example.com", true),
        ("domain:*.com", "domain:*.example.com", false),
        ("alice@example.com", "*", false),
    ] {
        assert_eq!(
            !warnings(&text(wide, narrow)).is_empty(),
            covered,
            "{wide} {narrow}"
        );
    }
}

#[test]
fn rules_of_one_file_keep_their_order_whatever_they_do() {
    let text = allow("") + &allow("").replace("allow", "deny") + &allow("name = \"last\"");
    let policy = parse(&text, "p.toml").unwrap();
    let rules: Vec<String> = policy
        .rules
        .iter()
        .map(|rule| format!("{}: {rule}", rule.name()))
        .collect();
    assert_eq!(
        rules,
        [
            "allow at p.toml:1: allow * to 10.0.0.0/8",
            "deny at p.toml:4: deny * to 10.0.0.0/8",
            "last: allow * to 10.0.0.0/8",
        ]
    );
}

#[test]
fn a_rule_is_shown_in_one_line() {
    let text = "[networks]\nlab = [\"10.3.0.0/16\"]\n[[allow]]\nwho = [\"*\", \"group:a\", \"domain:*.b\", \"authority:c\", \"d@e\"]\n\
                to = [\"net:lab\", \"10.1.2.3\"]\nports = [\"tcp/80-81\", \"icmp\"]\ndirection = \"both\"\n\
                hours = [\"mon 08:00-09:00\"]\nuntil = 2026-12-31\nrate = \"1 MB/s\"\n";
    let policy = parse(text, "p.toml").unwrap();
    assert_eq!(
        policy.rules[0].to_string(),
        "allow *, group:a, domain:*.b, authority:c, d@e to and from net:lab, 10.1.2.3/32 on tcp/80-81, icmp, \
         hours mon 08:00-09:00 until 2026-12-31, at most 8 Mbit/s"
    );
}

#[test]
fn long_chains_and_long_lists_are_no_danger() {
    use std::fmt::Write as _;
    // A network in a network, and so on: no recursion, and each is read once.
    let mut text = String::from("[networks]\nn0 = [\"10.0.0.0/8\"]\n");
    for n in 1..20_000 {
        let _ = writeln!(
            text,
            "n{n} = [\"net:n{}\", \"10.{}.{}.0/24\"]",
            n - 1,
            n / 256,
            n % 256
        );
    }
    text.push_str("[groups]\n");
    for n in 1..20_000 {
        let _ = writeln!(text, "g{n} = [\"group:g{}\"]", n - 1);
    }
    text.push_str("[[allow]]\nwho = [\"group:g19999\"]\nto = [\"net:n19999\"]\n");
    let policy = parse(&text, "p.toml").unwrap();
    assert_eq!(policy.warnings, []);
    let alice = crate::identity::Principal::parse("alice").unwrap();
    let access = policy.access_of(&alice, "", &["g0".to_owned()], 0).unwrap();
    assert_eq!(access.groups.len(), 20_000);
    assert_eq!(access.filter.routes().len(), 1);
}
