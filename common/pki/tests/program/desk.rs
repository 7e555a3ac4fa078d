//! A folder to work in, with the program and what it answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A folder to work in; the authority is in `ca` below it, unless told otherwise.
pub(crate) struct Desk {
    folder: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn with_authority() -> Self {
        let desk = Self::new();
        desk.run(&["init", "--name", "Example Corp"]).expect(0);
        desk
    }

    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("ADIT_CA_DIR", "ca")
            .env("SUDO_USER", "olga")
            .env_remove("CREDENTIALS_DIRECTORY")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&self.command(PROGRAM, arguments).output().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }

    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path(folder))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// So many operators work here at the same time, each known by a number.
    pub(crate) fn at_once(&self, operators: usize, work: impl Fn(usize) + Sync) {
        let work = &work;
        std::thread::scope(|scope| {
            for operator in 0..operators {
                scope.spawn(move || work(operator));
            }
        });
    }

    /// What `list` tells.
    pub(crate) fn listed(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.run(&["list", "--json"]).expect(0).stdout).unwrap()
    }

    /// What `openssl` answers; `None` where there is none.
    pub(crate) fn openssl(&self, arguments: &[&str]) -> Option<Output> {
        self.command("openssl", arguments).output().ok()
    }
}

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn of(output: &Output) -> Self {
        let outcome = Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        };
        for text in [&outcome.stdout, &outcome.stderr] {
            assert!(!text.contains("PRIVATE KEY"), "a key was printed");
        }
        outcome
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Refused with exactly an error and a hint.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, error: &str, hint: &str) {
        let outcome = self.expect(code);
        let lines: Vec<_> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{outcome:?}");
        for (line, (start, text)) in lines.iter().zip([("error: ", error), ("hint: ", hint)]) {
            assert!(
                line.starts_with(start) && line.contains(text),
                "{outcome:?}"
            );
        }
        assert_eq!(outcome.stdout, "");
    }
}

/// The real one.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_adit-ca");
