//! A device that gets another name while it is up, and a journal that moves with it.

use std::path::Path;

use adit_net::files;
use adit_net::host::{Host, HostError};
use adit_net::record::{self, Record};
use adit_net::tun::Tun;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::host::gateway;
use crate::namespace::{block_on, dump, run, set_sysctl, sysctl, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_device_is_renamed_while_it_is_up_and_all_it_has_goes_with_it",
            a_device_is_renamed_while_it_is_up,
        ),
        trial(
            "a_move_that_is_taken_back_leaves_no_trace",
            a_move_that_is_taken_back,
        ),
        trial(
            "a_program_killed_at_any_point_of_a_move_is_undone_from_either_place",
            a_program_killed_at_any_point,
        ),
        trial(
            "a_program_killed_before_its_new_name_was_taken_over_is_undone",
            a_program_killed_before_the_move,
        ),
        trial(
            "a_place_of_somebody_else_is_not_taken",
            a_place_of_somebody_else_is_not_taken,
        ),
    ]
}

fn a_device_is_renamed_while_it_is_up() {
    let [old, new] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let before = dump();
    let tun = Tun::open("adit0", 1400).expect("a device");
    block_on(async {
        let mut host = Host::open(old.path(), "adit0").await.expect("a host");
        host.apply(&gateway()).await.expect("applied");
        host.move_to(new.path(), "adit1").await.expect("moved");
        assert_eq!(journals(old.path()), ["adit0.journal"]);
        assert_eq!(journals(new.path()), ["adit1.journal"]);
        host.apply(&gateway()).await.expect("applied");
        host.settle().expect("settled");
        assert_eq!(journals(old.path()), [""; 0]);
        assert_eq!(journals(new.path()), ["adit1.journal"]);
        assert!(run("ip route show").contains("10.20.0.0/16 dev adit1"));
        let addresses = run("ip addr show dev adit1");
        for address in ["10.99.0.1/24", "fd00:ad17::1/64"] {
            assert!(addresses.contains(address), "{addresses}");
        }
        assert_eq!(run("nft list tables").trim(), "table inet adit_adit1");
        let table = run("nft list table inet adit_adit1");
        assert!(table.contains("oif != \"adit1\""), "{table}");
        host.undo().await.expect("undone");
    });
    drop(tun);
    assert_eq!(dump(), before);
    assert_eq!(journals(new.path()), [""; 0]);
}

fn a_move_that_is_taken_back() {
    let [old, new] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let _tun = Tun::open("adit0", 1400).expect("a device");
    block_on(async {
        let mut host = Host::open(old.path(), "adit0").await.expect("a host");
        host.apply(&gateway()).await.expect("applied");
        let before = dump();
        for also_applied in [false, true] {
            host.move_to(new.path(), "adit1").await.expect("moved");
            if also_applied {
                host.apply(&gateway()).await.expect("applied");
            }
            host.move_to(old.path(), "adit0").await.expect("moved back");
            host.apply(&gateway()).await.expect("applied");
            host.settle().expect("settled");
            assert_eq!(dump(), before);
            assert_eq!(journals(old.path()), ["adit0.journal"]);
            assert_eq!(journals(new.path()), [""; 0]);
        }
    });
}

fn a_program_killed_at_any_point() {
    set_sysctl("net/ipv4/ip_forward", "0");
    let before = dump();
    for (steps, to_the_new) in [(1, true), (1, false), (2, true), (2, false), (3, true)] {
        let [old, new] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let tun = Tun::open("adit0", 1400).expect("a device");
        block_on(async {
            let mut host = Host::open(old.path(), "adit0").await.expect("a host");
            host.apply(&gateway()).await.expect("applied");
            host.move_to(new.path(), "adit1").await.expect("moved");
            if steps > 1 {
                host.apply(&gateway()).await.expect("applied");
            }
            if steps > 2 {
                host.settle().expect("settled");
            }
            // Nothing of it runs any more, as after a kill -9.
            std::mem::forget(host);
        });
        drop(tun);
        assert_ne!(dump(), before);
        assert_eq!(sysctl("net/ipv4/ip_forward"), "1");
        let (place, name) = match to_the_new {
            true => (&new, "adit1"),
            false => (&old, "adit0"),
        };
        drop(block_on(Host::open(place.path(), name)).expect("recovered"));
        assert_eq!(dump(), before, "after {steps} steps");
        assert_eq!(sysctl("net/ipv4/ip_forward"), "0");
        for directory in [&old, &new] {
            assert_eq!(journals(directory.path()), [""; 0], "after {steps} steps");
        }
    }
}

fn a_program_killed_before_the_move() {
    set_sysctl("net/ipv4/ip_forward", "0");
    let state = tempfile::tempdir().expect("a directory");
    let before = dump();
    let tun = Tun::open("adit0", 1400).expect("a device");
    let live = Tun::open("live", 1400).expect("a device");
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&gateway()).await.expect("applied");
        std::mem::forget(host);
    });
    let journal = state.path().join("adit0.journal");
    let saved = files::read(&journal).expect("a journal");
    // Another program, which runs.
    files::write_private(&state.path().join("live.journal"), &saved).expect("written");
    drop(tun);
    drop(block_on(Host::open(state.path(), "adit1")).expect("a host"));
    assert_eq!(journals(state.path()), ["live.journal"]);
    drop(live);
    assert_eq!(dump(), before);
    assert_eq!(sysctl("net/ipv4/ip_forward"), "0");
}

fn a_place_of_somebody_else_is_not_taken() {
    let [old, new] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let _tun = Tun::open("adit0", 1400).expect("a device");
    let _other = Tun::open("adit1", 1400).expect("a device");
    block_on(async {
        let mut host = Host::open(old.path(), "adit0").await.expect("a host");
        host.apply(&gateway()).await.expect("applied");
        let before = dump();
        let error = host.move_to(new.path(), "adit1").await.expect_err("taken");
        assert!(matches!(error, HostError::InterfaceTaken { .. }), "{error}");
        let journal = old.path().join("adit0.journal");
        let saved = files::read(&journal).expect("a journal");
        let contents = record::read::<Value>(&journal).expect("readable");
        let Record::Whole(contents) = contents else {
            panic!("{contents:?}");
        };
        let others = contents.to_string().replace("adit_adit0", "adit_other");
        let there = new.path().join("adit2.journal");
        let others: Value = serde_json::from_str(&others).expect("JSON");
        record::write(&there, &others).expect("written");
        let error = host.move_to(new.path(), "adit2").await.expect_err("taken");
        assert!(matches!(error, HostError::JournalTaken { .. }), "{error}");
        // A file is no directory.
        let error = host.move_to(&there, "adit0").await.expect_err("no place");
        assert!(matches!(error, HostError::Journal { .. }), "{error}");
        assert_eq!(dump(), before);
        assert_eq!(files::read(&journal).expect("read"), saved);
        assert_eq!(journals(new.path()), ["adit2.journal"]);
    });
}

fn journals(directory: &Path) -> Vec<String> {
    let paths = files::list(directory).expect("readable");
    let names = paths.iter().filter_map(|path| path.file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}
