//! Replays `fuzz/corpus` through the functions the fuzzer searches with, on the stable compiler.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use adit_tests::fuzz::TARGETS;

#[test]
fn every_file_of_the_corpus_passes_its_target() {
    for (name, target) in TARGETS {
        let files = files(&fuzz().join("corpus").join(name));
        assert!(!files.is_empty(), "the corpus of {name} is empty");
        for file in files {
            let data = fs::read(&file).expect("a corpus file can be read");
            assert!(
                catch_unwind(|| target(&data)).is_ok(),
                "{} broke {name}",
                file.display()
            );
        }
    }
}

#[test]
fn every_target_can_be_searched_and_replayed() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |folder: &str| -> BTreeSet<String> {
        let files = files(&fuzz().join(folder));
        let stem = |file: &PathBuf| Some(file.file_stem()?.to_string_lossy().into_owned());
        files.iter().filter_map(stem).collect()
    };
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    entries
        .map(|entry| entry.expect("a folder can be listed").path())
        .collect()
}
