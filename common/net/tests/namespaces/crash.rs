//! A program that dies without a chance to clean up, and the next one that does it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use adit_net::host::{Host, HostError, Network};
use adit_net::record::{self, Record};
use adit_net::tun::Tun;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::host::{full_tunnel, gateway};
use crate::namespace::{block_on, dump, set_sysctl, sysctl, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "the_next_start_undoes_what_a_killed_program_left",
            the_next_start_undoes_it,
        ),
        trial(
            "a_journal_of_another_boot_is_not_acted_on",
            a_journal_of_another_boot_is_not_acted_on,
        ),
        trial(
            "a_damaged_journal_is_put_aside_and_not_acted_on",
            a_damaged_journal_is_put_aside_and_not_acted_on,
        ),
    ]
}

fn the_next_start_undoes_it() {
    let state = tempfile::tempdir().expect("a directory");
    set_sysctl("net/ipv4/ip_forward", "0");
    let before = dump();
    let mut victim = Command::new(std::env::current_exe().expect("this program"))
        .env(VICTIM, state.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut line = String::new();
    let output = victim.stdout.take().expect("piped");
    BufReader::new(output)
        .read_line(&mut line)
        .expect("readable");
    assert_eq!(line, "applied\n");
    victim.kill().expect("killed");
    victim.wait().expect("ended");
    let after = dump();
    assert!(
        after.contains("suppress_prefixlength") && after.contains("adit_adit0"),
        "{after}"
    );
    assert!(
        !after.contains("dev adit0"),
        "what is on the device goes with it"
    );
    assert_eq!(sysctl("net/ipv4/ip_forward"), "1");
    for _ in 0..2 {
        block_on(Host::open(state.path(), "adit0")).expect("recovered");
        assert_eq!(dump(), before);
        assert_eq!(sysctl("net/ipv4/ip_forward"), "0");
    }
}

fn a_journal_of_another_boot_is_not_acted_on() {
    let state = tempfile::tempdir().expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    let journal = state.path().join("adit0.journal");
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&everything()).await.expect("applied");
        let Record::Whole(mut saved) = record::read::<Value>(&journal).expect("readable") else {
            panic!("no journal");
        };
        host.undo().await.expect("undone");
        saved["boot"] = "00000000-0000-0000-0000-000000000000".into();
        record::write(&journal, &saved).expect("written");
    });
    set_sysctl("net/ipv4/ip_forward", "1");
    block_on(Host::open(state.path(), "adit0")).expect("a host");
    assert_eq!(sysctl("net/ipv4/ip_forward"), "1", "a setting of this boot");
    assert!(!journal.exists());
}

fn a_damaged_journal_is_put_aside_and_not_acted_on() {
    let state = tempfile::tempdir().expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    let journal = state.path().join("adit0.journal");
    set_sysctl("net/ipv4/ip_forward", "0");
    let turned = block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&everything()).await.expect("applied");
        let saved = std::fs::read_to_string(&journal).expect("a journal");
        host.undo().await.expect("undone");
        // One bit on the disk: another value to restore than there was.
        let turned = saved.replace("\"was\":\"0\"", "\"was\":\"1\"");
        assert_ne!(turned, saved);
        turned
    });
    adit_net::files::write_private(&journal, turned.as_bytes()).expect("written");
    adit_net::files::write_private(&state.path().join(".adit0.journal.7.0"), b"half")
        .expect("written");
    let before = dump();
    let mut host = block_on(Host::open(state.path(), "adit0")).expect("a host");
    assert_eq!(dump(), before);
    assert_eq!(sysctl("net/ipv4/ip_forward"), "0");
    let names = adit_net::files::list(state.path()).expect("readable");
    let aside = state.path().join("adit0.journal.damaged");
    assert_eq!(names, std::slice::from_ref(&aside));
    let kept = std::fs::read_to_string(aside).expect("readable");
    assert_eq!(kept, turned);
    // Of somebody else it is left alone, and said.
    adit_net::files::write_private(&state.path().join("adit1.journal"), b"{").expect("written");
    let error = block_on(host.move_to(state.path(), "adit1")).expect_err("damaged");
    assert!(matches!(error, HostError::JournalDamaged { .. }), "{error}");
    assert!(error.hint().expect("a hint").contains("adit1.journal"));
}

/// Both sides' changes at once.
fn everything() -> Network {
    Network {
        forwarding: true,
        masquerade: gateway().masquerade,
        ..full_tunnel()
    }
}

pub(crate) fn is_victim() -> bool {
    std::env::var_os(VICTIM).is_some()
}

/// Changes everything, says so, and waits for its end.
pub(crate) fn be_victim() -> ! {
    let state = std::env::var_os(VICTIM).expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    block_on(async {
        let mut host = Host::open(Path::new(&state), "adit0")
            .await
            .expect("a host");
        host.apply(&everything()).await.expect("applied");
        use std::io::Write as _;
        std::io::stdout().write_all(b"applied\n").expect("heard");
        std::future::pending().await
    })
}

const VICTIM: &str = "ADIT_NET_TEST_VICTIM";
