//! One network namespace: code and child processes run inside it, and it ends with its last user.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::Process;

/// A network namespace, kept alive by its file descriptor; clones are the same namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    file: OwnedFd,
}

/// What a child process finds changed around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// Everything as the test sees it.
    #[default]
    Whole,
    /// `/dev/net` is empty: a machine without the tun module.
    WithoutTun,
    /// The same files, but no rights over the network: what an ordinary user has.
    WithoutRights,
    /// A host with this name.
    Named(&'static str),
    /// The first directory of each pair stands in place of the second: a machine of its own.
    Instead(Vec<(CString, CString)>),
}

impl Namespace {
    /// Makes a new, empty namespace with loopback up.
    pub fn new(name: &str) -> Result<Self> {
        let file = thread::scope(|scope| {
            scope
                .spawn(|| -> io::Result<OwnedFd> {
                    unshare(UnshareFlags::NEWNET)?;
                    Ok(File::open("/proc/thread-self/ns/net")?.into())
                })
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        })
        .with_context(|| format!("cannot make the namespace {name}"))?;
        let namespace = Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                file,
            }),
        };
        // A cable here has two ends and no strangers: a link-local address that is tentative for its
        // first second only keeps routers from finding their neighbours.
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
        }
        namespace.up("lo")?;
        Ok(namespace)
    }

    /// The namespace of the calling thread.
    pub fn current(name: &str) -> Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")
            .context("cannot open /proc/thread-self/ns/net")?
            .into();
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                file,
            }),
        })
    }

    /// The name given at birth; for messages only.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.inner.file.as_raw_fd()
    }

    /// Runs `work` on a thread inside the namespace and gives back what it returns.
    ///
    /// Sockets made in there stay in the namespace wherever they are used later. Child processes
    /// started in there would die with the thread: use [`Namespace::spawn`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(
                        self.inner.file.as_fd(),
                        Some(LinkNameSpaceType::Network),
                    )
                    .expect("a namespace that is held open can be entered");
                    work()
                })
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a program inside the namespace; it is killed when the returned value or the test dies.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        self.spawn_seeing(command, Sight::Whole)
    }

    /// Like [`Namespace::spawn`], with a changed view of the file system.
    pub fn spawn_seeing(&self, mut command: Command, sight: Sight) -> Result<Process> {
        let fd = self.raw_fd();
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec only system calls are made: nothing is allocated, no lock is
        // taken, and `fd` is held open by `self` until the child has called exec.
        unsafe {
            command.pre_exec(move || {
                let signal = Some(rustix::process::Signal::KILL);
                rustix::process::set_parent_process_death_signal(signal)?;
                if rustix::process::getppid() != Some(parent) {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                move_into_link_name_space(fd, Some(LinkNameSpaceType::Network))?;
                match &sight {
                    Sight::Whole => {}
                    Sight::WithoutTun => {
                        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
                        mount(c"none", c"/dev/net", c"tmpfs", MountFlags::empty(), c"")?;
                    }
                    Sight::Named(name) => {
                        rustix::thread::unshare_unsafe(UnshareFlags::NEWUTS)?;
                        rustix::system::sethostname(name.as_bytes())?;
                    }
                    // Rights do not reach out of a new user namespace; files still know their owner.
                    Sight::WithoutRights => {
                        rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER)?;
                    }
                    Sight::Instead(pairs) => {
                        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
                        for (ours, theirs) in pairs {
                            mount_bind(ours, theirs)?;
                        }
                    }
                }
                Ok(())
            });
        }
        Process::start(self.name(), command)
    }
}

/// Gives the calling thread namespaces of its own.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: file descriptors are not unshared, which is the one thing that could invalidate values
    // other code holds.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}
