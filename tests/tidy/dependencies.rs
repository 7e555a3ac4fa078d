//! Rules about what the packages depend on.

use std::process::Command;

use serde_json::Value;
use toml::Table;

use super::{none, read};

#[test]
fn the_pure_crates_depend_on_nothing_that_does_io() {
    let mut findings = Vec::new();
    for (manifest, banned) in [
        (
            "common/core/Cargo.toml",
            &[
                "tokio",
                "mio",
                "socket2",
                "libc",
                "rustix",
                "quinn",
                "quinn-udp",
                "quinn-proto",
                "rustls",
                "nix",
            ][..],
        ),
        (
            "common/tunnel/Cargo.toml",
            &[
                "tokio",
                "mio",
                "socket2",
                "libc",
                "rustix",
                "quinn",
                "quinn-udp",
                "nix",
            ][..],
        ),
    ] {
        let table: Table = read(manifest).parse().expect("a manifest is TOML");
        let dependencies = table
            .get("dependencies")
            .and_then(|value| value.as_table())
            .cloned()
            .unwrap_or_default();
        for name in dependencies
            .keys()
            .filter(|name| banned.contains(&name.as_str()))
        {
            findings.push(format!("{manifest}: {name}"));
        }
    }
    none("core and tunnel are sans-IO", findings);
}

#[test]
fn only_the_programs_join_the_parts() {
    let mut findings = Vec::new();
    for (manifest, allowed) in [
        ("common/core/Cargo.toml", &[][..]),
        ("common/tunnel/Cargo.toml", &["adit-core"][..]),
        ("common/net/Cargo.toml", &["adit-core"][..]),
        ("common/pki/Cargo.toml", &["adit-core", "adit-net"][..]),
    ] {
        let table: Table = read(manifest).parse().expect("a manifest is TOML");
        let dependencies = table
            .get("dependencies")
            .and_then(|value| value.as_table())
            .cloned()
            .unwrap_or_default();
        for name in dependencies
            .keys()
            .filter(|name| name.starts_with("adit-") && !allowed.contains(&name.as_str()))
        {
            findings.push(format!("{manifest}: {name}"));
        }
    }
    none("the direction of dependencies", findings);
}

#[test]
fn every_dependency_is_permissively_licensed() {
    let deny: Table = read("deny.toml").parse().expect("deny.toml is TOML");
    let allowed: Vec<&str> = deny["licenses"]["allow"]
        .as_array()
        .expect("deny.toml has licenses.allow")
        .iter()
        .filter_map(|value| value.as_str())
        .collect();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
            &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .current_dir(super::root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let mut findings = Vec::new();
    for package in metadata["packages"]
        .as_array()
        .expect("metadata has packages")
    {
        let licence = package["license"].as_str().unwrap_or("none");
        if !permitted(licence, &allowed) {
            findings.push(format!(
                "{} {}: {licence}",
                package["name"], package["version"]
            ));
        }
    }
    none("licences", findings);
}

/// An SPDX expression of OR, AND and parentheses, as crates write them; `/` is an old way to write OR.
fn permitted(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (result, rest) = alternatives(&words, allowed);
    result && rest.is_empty()
}

fn alternatives<'a>(words: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    let (mut result, mut rest) = conjunction(words, allowed);
    while let Some(("OR", tail)) = rest.split_first().map(|(word, tail)| (*word, tail)) {
        let (next, after) = conjunction(tail, allowed);
        (result, rest) = (result | next, after);
    }
    (result, rest)
}

fn conjunction<'a>(words: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    let (mut result, mut rest) = term(words, allowed);
    while let Some(("AND", tail)) = rest.split_first().map(|(word, tail)| (*word, tail)) {
        let (next, after) = term(tail, allowed);
        (result, rest) = (result & next, after);
    }
    (result, rest)
}

fn term<'a>(words: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    match words {
        ["(", rest @ ..] => {
            let (result, rest) = alternatives(rest, allowed);
            (result, rest.strip_prefix(&[")"]).unwrap_or(rest))
        }
        [name, "WITH", exception, rest @ ..] => (
            allowed.contains(&format!("{name} WITH {exception}").as_str()),
            rest,
        ),
        [name, rest @ ..] => (allowed.contains(name), rest),
        [] => (false, words),
    }
}

#[test]
fn licence_expressions_are_read_correctly() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("ISC AND (GPL-3.0 AND MIT)", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("", false),
    ] {
        assert_eq!(permitted(expression, &allowed), expected, "{expression}");
    }
}
