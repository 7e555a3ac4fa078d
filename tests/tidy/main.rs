//! The repository's own rules (CONTRIBUTING.md), as tests.

mod dependencies;
mod sources;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sources::all;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a member of the workspace")
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Fails with one line per finding.
fn none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n{}", findings.join("\n"));
}

#[test]
fn files_are_at_most_800_lines() {
    let long = all()
        .iter()
        .filter(|source| source.text.lines().count() > 800);
    none(
        "a file has one responsibility",
        long.map(|source| source.path.clone()).collect(),
    );
}

#[test]
fn names_are_nouns_of_the_domain() {
    let banned = [
        "util", "utils", "helper", "helpers", "manager", "types", "misc", "common",
    ];
    let findings = all()
        .iter()
        .filter(|source| {
            let stem = Path::new(&source.path)
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            banned.contains(&stem) || stem == "mod"
        })
        .map(|source| source.path.clone());
    none(
        "a file is named by what it is about, and foo.rs sits beside foo/",
        findings.collect(),
    );
}

#[test]
fn the_pure_crates_read_no_clock_and_touch_no_host() {
    let banned = [
        "std::fs",
        "std::env",
        "std::thread",
        "std::process",
        "UdpSocket",
        "TcpStream",
        "TcpListener",
        "UnixStream",
        "Instant::now",
        "SystemTime::now",
        "println!",
        "eprintln!",
        "tokio::",
        "libc::",
        "rustix::",
    ];
    let pure = all().iter().filter(|source| {
        source.path.starts_with("common/core/src") || source.path.starts_with("common/tunnel/src")
    });
    let findings = pure.flat_map(|source| source.lines_with(&banned)).collect();
    none("core and tunnel are functions of their arguments", findings);
}

#[test]
fn the_authority_is_told_the_time() {
    let library = all().iter().filter(|source| {
        source.path.starts_with("common/pki/src") && !source.path.starts_with("common/pki/src/cli")
    });
    let banned = ["now_utc", "SystemTime::now", "UnixTime::now", "clock::"];
    let findings = library.flat_map(|source| source.lines_with(&banned));
    none(
        "only adit-ca's command line reads the clock",
        findings.collect(),
    );
}

#[test]
fn platform_code_is_in_the_shell_only() {
    let elsewhere = all()
        .iter()
        .filter(|source| !source.path.starts_with("common/net/"));
    let elsewhere = elsewhere.filter(|source| source.path != THIS);
    let findings = elsewhere
        .flat_map(|source| source.lines_with(&["cfg(target_os", "cfg(unix", "cfg(windows"]));
    none("cfg(target_os) outside common/net", findings.collect());
}

#[test]
fn unsafe_code_is_in_the_shell_and_the_lab_only() {
    let elsewhere = all().iter().filter(|source| {
        !source.path.starts_with("common/net/")
            && !source.path.starts_with("tests/src/lab/")
            && source.path != THIS
    });
    let findings = elsewhere.flat_map(|source| {
        source.lines_with(&["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"])
    });
    none(
        "unsafe outside common/net and tests/src/lab",
        findings.collect(),
    );
}

#[test]
fn nothing_is_left_to_do_in_a_comment() {
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
        ["todo", "!("].concat(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    none(
        "an open end belongs into an issue",
        all()
            .iter()
            .flat_map(|source| source.raw_lines_with(&words))
            .collect(),
    );
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = all().iter().filter(|source| {
        let first = source
            .text
            .lines()
            .find(|line| !line.is_empty())
            .unwrap_or_default();
        !first.starts_with("//!")
            && !source.path.contains("fuzz_targets")
            && !source.path.ends_with("/tests.rs")
    });
    none(
        "a file begins with its purpose",
        silent.map(|source| source.path.clone()).collect(),
    );
}

#[test]
fn the_map_is_short_and_true() {
    let map = read("ARCHITECTURE.md");
    assert!(
        map.lines().count() <= 200,
        "ARCHITECTURE.md has {} lines",
        map.lines().count()
    );
    none(
        "ARCHITECTURE.md names what does not exist",
        missing_paths(&map),
    );
    none(
        "README.md names what does not exist",
        missing_paths(&read("README.md")),
    );
    none(
        "CONTRIBUTING.md names what does not exist",
        missing_paths(&read("CONTRIBUTING.md")),
    );
}

#[test]
fn every_example_configuration_is_read_by_a_test() {
    let mut findings = Vec::new();
    for entry in fs::read_dir(root().join("config")).expect("config/ exists") {
        let path = entry.expect("config/ can be listed").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        let text = fs::read_to_string(&path).expect("an example can be read");
        if let Err(error) = text.parse::<toml::Table>() {
            findings.push(format!("config/{name} is not TOML: {error}"));
        }
        let named = format!("config/{name}");
        if !all().iter().any(|source| {
            source.path != THIS && source.text.contains(&named) && source.text.contains("#[test]")
        }) {
            findings.push(format!(
                "config/{name} is read by no test of the program it configures"
            ));
        }
    }
    none("examples are parsed as the programs parse them", findings);
}

#[test]
fn scripts_stop_at_their_first_error() {
    for script in [".ci/run", "tests/interop/setup.sh"] {
        assert!(read(script).contains("set -euo pipefail"), "{script}");
    }
}

/// Paths in backticks or links that look like files of this repository and are not there.
fn missing_paths(text: &str) -> Vec<String> {
    let tops = [
        "common/", "server/", "client/", "tests/", "config/", "fuzz/", ".ci/", ".cargo/",
    ];
    let mut missing = BTreeSet::new();
    for word in text.split(|c: char| c.is_whitespace() || "`()[],;|\"'*".contains(c)) {
        let word = word.trim_end_matches(['.', ':', '…']);
        if word.contains('<') || word.contains('{') || !tops.iter().any(|top| word.starts_with(top))
        {
            continue;
        }
        if !root().join(word).exists() {
            missing.insert(word.to_owned());
        }
    }
    missing.into_iter().collect()
}

/// This file quotes what it forbids.
const THIS: &str = "tests/tidy/main.rs";
