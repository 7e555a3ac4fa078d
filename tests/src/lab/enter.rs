//! Leaves the host's network before the first thread exists.

use std::fs;
use std::io;

use anyhow::{Context, Result, anyhow};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

use super::Namespace;
use super::namespace::unshare;

/// Moves this process into fresh network and mount namespaces, and without root into a user namespace
/// in which it is root.
///
/// Must run before any thread is started: the kernel refuses a user namespace to a process with threads.
/// The error names what the machine lacks, so that a caller can say why a ring was not run.
pub fn enter() -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let network = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    let as_root = if uid.is_root() {
        unshare(network)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    };
    if as_root.is_err() {
        unshare(network | UnshareFlags::NEWUSER).map_err(|error| {
            anyhow!("no user namespaces here ({error}); run as root, or allow them: sysctl user.max_user_namespaces=1000")
        })?;
        // Until setgroups is denied the kernel accepts no gid map from an ordinary user (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny").context("cannot write /proc/self/setgroups")?;
        fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))
            .context("cannot write /proc/self/uid_map")?;
        fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
            .context("cannot write /proc/self/gid_map")?;
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("cannot make mounts private")?;
    let here = Namespace::current("lab")?;
    here.up("lo").context(
        "user namespaces exist but give no rights; on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    )?;
    Ok(())
}

/// Says what keeps the programs from running here, or `None`.
pub fn tun_obstacle() -> Option<String> {
    match fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(
            "/dev/net/tun does not exist; load its driver with `modprobe tun`, or in a container \
             add `--device /dev/net/tun`"
                .to_owned(),
        ),
        Err(error) => Some(format!(
            "/dev/net/tun cannot be opened ({error}); run as root, or `sudo chmod 666 /dev/net/tun`, \
             its usual mode: interfaces still take rights, which users have in their own namespaces only"
        )),
    }
}
