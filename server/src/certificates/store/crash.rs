//! The file and a `kill -9` at every one of its writes.
//!
//! The test runs itself as a child that writes and says what is written; strace kills it at the first, the
//! second, the third system call that changes a file, until it comes to its end unharmed. Where strace may not
//! trace, the child is killed at moments that come as they come.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::tests::seen;
use super::*;

const PATH: &str = "ADIT_CERTIFICATES_OF_A_CRASH_TEST";
/// Transactions of a child.
const WRITES: u64 = 12;
/// The system calls by which SQLite changes files.
const CALLS: &str = "pwrite64,ftruncate,fdatasync,fsync,unlink";

#[test]
#[ignore = "the child of the other test"]
fn child() {
    let Some(path) = std::env::var_os(PATH) else {
        return;
    };
    let mut store = Store::open(Path::new(&path)).unwrap();
    let begun = store
        .all()
        .unwrap()
        .iter()
        .map(|known| known.sessions)
        .max();
    for number in begun.unwrap_or(0)..begun.unwrap_or(0) + WRITES {
        let at = i64::try_from(number).unwrap();
        // Both rows, or neither.
        let rows = [
            seen("a", 1, at),
            seen("b", 1, at),
            seen(&format!("n{number}"), 1, at),
        ];
        store.write(rows.iter(), at).unwrap();
        // Not by the harness, which would keep it for later.
        let mut said = std::io::stdout().lock();
        writeln!(said, "written {}", number + 1).unwrap();
        said.flush().unwrap();
    }
}

#[test]
#[allow(clippy::print_stdout)]
fn a_kill_at_any_write_loses_nothing_that_was_written_and_leaves_nothing_half() {
    let can_trace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("certificates.db");
    let mut written = 0;
    let mut kills = 0_u64;
    for round in 1..=MOST_ROUNDS {
        let said = if can_trace {
            traced(&path, round)
        } else {
            chased(&path, round)
        };
        let Said { last, killed } = said;
        kills += u64::from(killed);
        written = last.unwrap_or(written).max(written);
        let store = Store::open(&path).unwrap();
        let sessions: BTreeMap<String, u64> = store
            .all()
            .unwrap()
            .into_iter()
            .map(|known| (known.fingerprint, known.sessions))
            .collect();
        let of = |name: &str| sessions.get(name).copied().unwrap_or(0);
        assert_eq!(of("a"), of("b"), "half a write in round {round}");
        // A write may be whole without the child having lived to say so.
        let whole = of("a");
        assert!(
            whole == written || whole == written + 1,
            "round {round}: {whole} writes are there, {written} were said to be"
        );
        assert_eq!(
            sessions.len() as u64,
            if whole == 0 { 0 } else { whole + 2 }
        );
        assert!(!folder.path().join("certificates.db.damaged").exists());
        written = whole;
        if !killed {
            assert!(kills > 0, "no round was interrupted");
            println!("{kills} kills, {written} writes, none lost");
            return;
        }
    }
    assert!(!can_trace, "the child never came to its end");
}

struct Said {
    /// The last write the child said it had done, counted over all rounds.
    last: Option<u64>,
    killed: bool,
}

/// A child that is killed when it makes the system call of this number.
fn traced(path: &Path, number: u64) -> Said {
    let mut child = Command::new("strace");
    child.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
    child.arg(format!("trace={CALLS}"));
    child.arg("-e");
    child.arg(format!("inject={CALLS}:signal=KILL:when={number}"));
    child.arg(std::env::current_exe().unwrap());
    let output = with_arguments(&mut child, path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Said {
        last: text.lines().filter_map(number_of).next_back(),
        killed: !output.status.success(),
    }
}

/// A child that is killed after it has said something for this number of times.
fn chased(path: &Path, number: u64) -> Said {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let mut child = with_arguments(&mut child, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = None;
    for said in lines
        .map_while(Result::ok)
        .filter_map(|line| number_of(&line))
    {
        last = Some(said);
        if said % WRITES == number % WRITES {
            let _ = child.kill();
        }
    }
    Said {
        last,
        killed: !child.wait().unwrap().success(),
    }
}

fn with_arguments<'a>(child: &'a mut Command, path: &Path) -> &'a mut Command {
    let this = "certificates::store::crash::child";
    child
        .args([
            this,
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(PATH, path)
        .stderr(Stdio::null())
}

fn number_of(line: &str) -> Option<u64> {
    // The harness begins a line before the child does.
    line.rsplit_once("written ")?.1.trim().parse().ok()
}

/// More than a child makes calls, by far.
const MOST_ROUNDS: u64 = 400;
