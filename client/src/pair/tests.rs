//! Pairs that are replaced, refused, and interrupted at every call that changes the disk.
//!
//! The test runs itself as a child that replaces a pair; strace kills it at each such call, one after another.
//! Without strace, or where the kernel forbids it, nothing is killed.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use adit_pki::{Authority, Credential, IssueRequest};
use tempfile::TempDir;

use super::*;

/// A folder with a pair, and another pair to replace it.
struct Place {
    folder: TempDir,
    old: Credential,
    new: Credential,
}

impl Place {
    fn new() -> Self {
        let authority = Authority::ephemeral("Example", NOW).unwrap();
        let [old, new] = [(); 2].map(|()| {
            let request = IssueRequest::client("alice@example.com", NOW);
            authority.issue(&request, NOW).unwrap()
        });
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            old,
            new,
        };
        place.reset();
        place
    }

    /// The old pair and nothing else; the new one stands in a folder below.
    fn reset(&self) {
        for file in files::list(self.folder.path()).unwrap() {
            if file.is_file() {
                fs::remove_file(file).unwrap();
            }
        }
        let _ = fs::create_dir(self.path("new"));
        for (name, mode, contents) in [
            ("alice.pem", 0o644, &self.old.certificate_pem[..]),
            ("alice.key", 0o400, &self.old.key_pem[..]),
            ("new/alice.pem", 0o644, &self.new.certificate_pem[..]),
            ("new/alice.key", 0o600, &self.new.key_pem[..]),
        ] {
            self.write(name, mode, contents);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, mode: u32, contents: &str) {
        fs::write(self.path(name), contents).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn pair(&self) -> Pair {
        Pair::new(self.path("alice.pem"), self.path("alice.key"))
    }

    fn replace(&self) -> Result<(), FileError> {
        self.pair()
            .replace(&self.new.certificate_pem, &self.new.key_pem)
    }

    /// Whether the new pair is there; one of the two must be, whole, as it was kept, and nothing beside it.
    #[track_caller]
    fn is_replaced(&self) -> bool {
        let read = |name: &str| fs::read_to_string(self.path(name)).unwrap();
        let both = (read("alice.pem"), read("alice.key"));
        let of = |credential: &Credential| {
            both.0 == credential.certificate_pem && both.1 == *credential.key_pem
        };
        assert!(of(&self.old) || of(&self.new), "half a pair");
        let mode = |name: &str| fs::metadata(self.path(name)).unwrap().permissions().mode();
        let modes = ["alice.pem", "alice.key"].map(|name| mode(name) & 0o7777);
        assert_eq!(modes, [0o644, 0o400]);
        let names = files::list(self.folder.path()).unwrap();
        assert_eq!(names.len(), 3, "{names:?}");
        of(&self.new)
    }
}

#[test]
fn a_pair_is_replaced_with_its_permissions_and_leaves_nothing_behind() {
    let place = Place::new();
    place.pair().probe().unwrap();
    assert!(!place.is_replaced());
    place.replace().unwrap();
    assert!(place.is_replaced());
    assert_eq!(place.pair().settle().unwrap(), None);
}

#[test]
fn links_to_the_files_stay_links() {
    let place = Place::new();
    let links = tempfile::tempdir().unwrap();
    let [certificate, key] = ["alice.pem", "alice.key"].map(|name| {
        let link = links.path().join(name);
        symlink(place.path(name), &link).unwrap();
        link
    });
    let pair = Pair::new(certificate.clone(), key);
    pair.replace(&place.new.certificate_pem, &place.new.key_pem)
        .unwrap();
    assert!(certificate.is_symlink());
    assert!(place.is_replaced());
}

#[test]
fn one_file_with_both_is_replaced_in_one_step() {
    let place = Place::new();
    let both = format!(
        "{}{}",
        place.old.key_pem.as_str(),
        place.old.certificate_pem
    );
    place.write("both.pem", 0o600, &both);
    let path = place.path("both.pem");
    let pair = Pair::new(path.clone(), path.clone());
    pair.replace(&place.new.certificate_pem, &place.new.key_pem)
        .unwrap();
    let both = fs::read(&path).unwrap();
    assert!(fits(&both, &both));
    assert!(both.starts_with(place.new.certificate_pem.trim_end().as_bytes()));
    assert_eq!(pair.settle().unwrap(), None);
}

#[test]
fn a_certificate_of_another_key_does_not_fit() {
    let Place { old, new, .. } = Place::new();
    let fit = |credential: &Credential, key: &Credential| {
        fits(
            credential.certificate_pem.as_bytes(),
            key.key_pem.as_bytes(),
        )
    };
    assert!(fit(&old, &old) && fit(&new, &new));
    assert!(!fit(&old, &new) && !fit(&new, &old));
    assert!(!fits(b"", new.key_pem.as_bytes()));
}

#[test]
fn what_somebody_else_put_there_meanwhile_stays() {
    let place = Place::new();
    // Interrupted before the certificate's turn; then somebody replaced the pair.
    place.write(".alice.pem.next", 0o644, &place.new.certificate_pem);
    assert_eq!(place.pair().settle().unwrap(), Some(Settled::TakenBack));
    assert!(!place.is_replaced());
    // Interrupted when both were written, by a certificate that is older than the one that is there.
    let authority = Authority::ephemeral("Example", NOW - 2 * 86_400).unwrap();
    let request = IssueRequest::client("alice@example.com", NOW);
    let (begin, end) = (request.not_before, request.not_after);
    let older = authority
        .issue(&request.valid(begin - 86_400, end), NOW)
        .unwrap();
    place.write(".alice.pem.next", 0o644, &older.certificate_pem);
    place.write(".alice.key.next", 0o600, &older.key_pem);
    assert_eq!(place.pair().settle().unwrap(), Some(Settled::TakenBack));
    assert!(!place.is_replaced());
}

#[test]
fn a_folder_that_cannot_be_written_is_found_out_before_anything_is_done() {
    let place = Place::new();
    // Root writes everywhere, but not below a file.
    let pair = Pair::new(place.path("alice.pem"), place.path("alice.pem/alice.key"));
    assert!(pair.probe().is_err());
    assert!(
        pair.replace(&place.new.certificate_pem, &place.new.key_pem)
            .is_err()
    );
    assert!(!place.is_replaced());
}

/// When certificates are issued; nobody asks whether they are good today.
const NOW: i64 = 1_800_000_000;
const FOLDER: &str = "ADIT_PAIR_OF_A_CRASH_TEST";
/// The calls by which anything on the disk changes; strace leaves out those that a machine lacks.
const CALLS: &str =
    "?write,?fsync,?rename,?renameat,?renameat2,?unlink,?unlinkat,?chmod,?fchmod,?fchown";

#[test]
#[ignore = "the child of the other test"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let read = |name: &str| fs::read_to_string(folder.join("new").join(name)).unwrap();
    let pair = Pair::new(folder.join("alice.pem"), folder.join("alice.key"));
    pair.settle().unwrap();
    pair.replace(&read("alice.pem"), &read("alice.key"))
        .unwrap();
}

/// The child under strace with these options, and whether it was killed.
fn run_child(place: &Place, options: &[&str]) -> bool {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq"])
        .args(options)
        .arg(std::env::current_exe().unwrap())
        .args([
            "pair::tests::child",
            "--exact",
            "--ignored",
            "--test-threads=1",
        ])
        .env(FOLDER, place.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = command.status().unwrap();
    status.signal() == Some(9) || status.code() == Some(137)
}

/// The calls of the child that nobody stops: of each its name, and which of its thread's it is.
fn calls(place: &Place) -> Vec<(String, usize)> {
    let trace = place.path("new/trace");
    let (calls, path) = (format!("trace={CALLS}"), trace.to_str().unwrap());
    run_child(place, &["-e", &calls, "-e", "signal=none", "-o", path]);
    let mut numbers: BTreeMap<(String, String), usize> = BTreeMap::new();
    let text = fs::read_to_string(&trace).unwrap();
    let calls = text.lines().filter_map(|line| {
        let (thread, call) = line.split_once(' ')?;
        let name = call.trim_start().split_once('(')?.0.to_owned();
        let number = numbers
            .entry((thread.to_owned(), name.clone()))
            .or_default();
        *number += 1;
        Some((name, *number))
    });
    calls.collect()
}

#[test]
#[allow(clippy::print_stdout)]
fn a_kill_at_any_write_leaves_one_pair_or_the_other() {
    let can_trace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can_trace {
        return;
    }
    let place = Place::new();
    let calls = calls(&place);
    assert!(place.is_replaced(), "by the child that nobody killed");
    let mut settled = BTreeMap::new();
    for (call, number) in &calls {
        place.reset();
        let trace = format!("trace={call}");
        let inject = format!("inject={call}:signal=KILL:when={number}");
        let is_killed = run_child(&place, &["-o", "/dev/null", "-e", &trace, "-e", &inject]);
        assert!(is_killed, "{call} {number}");
        let outcome = place.pair().settle().unwrap();
        let is_replaced = place.is_replaced();
        match outcome {
            Some(Settled::Finished) => assert!(is_replaced, "{call} {number}"),
            Some(Settled::TakenBack) => assert!(!is_replaced, "{call} {number}"),
            None => {}
        }
        *settled.entry(format!("{outcome:?}")).or_insert(0) += 1;
        // And the next renewal is one like any other.
        place.replace().unwrap();
        assert!(place.is_replaced());
    }
    println!("{} kills: {settled:?}", calls.len());
    // Before both were written, before each of the two renames, and after them.
    assert!(calls.len() >= 12 && settled.len() == 3, "{settled:?}");
    assert!(settled["Some(Finished)"] >= 3, "{settled:?}");
}
