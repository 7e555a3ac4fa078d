//! A terminal with the program on it, and somebody who types.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::desk::{Desk, PROGRAM};

/// A pseudo-terminal, which stays when the program has ended.
pub(crate) struct Terminal {
    /// Where somebody types and reads.
    near: File,
    /// Where the program does.
    far: OwnedFd,
    child: Child,
    /// What stood there and was looked at.
    seen: String,
    /// What stands there behind it.
    shown: String,
}

impl Terminal {
    /// The program as the only one of its session; `setsid` is of util-linux.
    pub(crate) fn running(desk: &Desk, arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let near = openpt(flags).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let far = ioctl_tiocgptpeer(&near, flags).unwrap();
        let arguments = [&["--ctty", PROGRAM], arguments].concat();
        let mut command = desk.command("setsid", &arguments);
        let [stdin, stdout, stderr] = [(); 3].map(|()| far.try_clone().unwrap());
        let child = command.stdin(stdin).stdout(stdout).stderr(stderr);
        Self {
            child: child.spawn().unwrap(),
            near: near.into(),
            far,
            seen: String::new(),
            shown: String::new(),
        }
    }

    /// Waits until `text` stands there, behind what was waited for before.
    pub(crate) fn expect(&mut self, text: &str) {
        while !self.shown.contains(text) {
            assert!(self.read(PATIENCE), "no {text:?} in {:?}", self.shown);
        }
        let end = self.shown.find(text).unwrap() + text.len();
        self.seen.extend(self.shown.drain(..end));
    }

    /// Whether it shows what is typed.
    pub(crate) fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.far).unwrap().local_modes;
        modes.contains(LocalModes::ECHO)
    }

    pub(crate) fn kind(&mut self, text: &str) {
        self.near.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end of the program.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Everything that ever stood there.
    pub(crate) fn text(&mut self) -> String {
        while self.read(0) {}
        format!("{}{}", self.seen, self.shown)
    }

    /// Reads what there is; says whether there was something within so many seconds.
    fn read(&mut self, seconds: i64) -> bool {
        let limit = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.near, PollFlags::IN)];
        if poll(&mut fds, Some(&limit)).unwrap() == 0 {
            return false;
        }
        let mut buffer = [0; 4096];
        let length = self.near.read(&mut buffer).unwrap();
        self.shown
            .push_str(&String::from_utf8_lossy(&buffer[..length]));
        true
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Longer than a busy machine takes.
const PATIENCE: i64 = 60;
