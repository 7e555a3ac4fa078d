//! The TUN device: whole IP packets, read and written by the one thread that owns a queue. Packets of one flow
//! cross the border to the kernel together, as [`adit_core::offload`] describes.
//!
//! [`Tun::recv`] yields packets with headroom in front, so that the HTTP datagram prefix (RFC 9297 §2.1) is
//! written in place. Reading and writing never block. One packet that the kernel refuses never harms the device.
//!
//! The device lives as long as its last [`Tun`]: closing it takes its addresses and routes with it, also after
//! `kill -9`. Addresses, routes and the link's state are the business of [`crate::host`].

use std::io;

use adit_core::offload::Offload;
use bytes::{Bytes, BytesMut};
use thiserror::Error;

#[cfg_attr(target_os = "linux", path = "tun/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "tun/unsupported.rs")]
mod os;
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
mod virtio;

/// An open queue of a TUN device, most often its only one.
#[derive(Debug)]
pub struct Tun {
    queue: os::Queue,
    name: String,
}

impl Tun {
    /// Creates the device `name`, which is down and has no addresses, with this MTU.
    pub fn open(name: &str, mtu: u16) -> Result<Self, TunError> {
        if !is_interface_name(name) {
            return Err(TunError::Name { name: name.into() });
        }
        Ok(Self {
            queue: os::Queue::open(name, mtu, os::Queues::Only)?,
            name: name.into(),
        })
    }

    /// The same with `count` queues, for as many threads.
    ///
    /// The kernel puts a packet into the queue that the other direction of its flow was last written to; into
    /// any, always the same, when there was none.
    pub fn open_several(name: &str, mtu: u16, count: u8) -> Result<Vec<Self>, TunError> {
        if count <= 1 {
            return Ok(vec![Self::open(name, mtu)?]);
        }
        if !is_interface_name(name) {
            return Err(TunError::Name { name: name.into() });
        }
        let queues =
            std::iter::once(os::Queues::First).chain(std::iter::repeat(os::Queues::Another));
        queues
            .take(count.into())
            .map(|queue| {
                Ok(Self {
                    queue: os::Queue::open(name, mtu, queue)?,
                    name: name.into(),
                })
            })
            .collect()
    }

    /// The name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one packet of up to 64 KiB, and what is left to be done on it. The result starts with `headroom`
    /// arbitrary bytes, then comes the packet.
    ///
    /// `None` means that nothing is waiting. An error means that the device is gone (deleted by somebody);
    /// `InvalidData` alone is passing. `headroom` is at most [`MAX_HEADROOM`].
    pub fn recv(&mut self, headroom: usize) -> io::Result<Option<(BytesMut, Offload)>> {
        self.queue.recv(headroom)
    }

    /// Takes a packet for the kernel, which gets it with [`flush`](Self::flush): together with others of its flow
    /// where the device allows that, and in order within the flow.
    pub fn send(&mut self, packet: Bytes) {
        self.queue.send(packet);
    }

    /// Hands everything taken to the kernel and returns how many packets it refused: malformed ones, or all when
    /// the link is down.
    pub fn flush(&mut self) -> usize {
        self.queue.flush()
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Tun {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

/// Whether Linux accepts `name` for an interface, and takes it literally.
pub fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Why a TUN device could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TunError {
    /// Not a name for an interface.
    #[error("{name:?} cannot be the name of an interface")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The kernel has no TUN driver here, or the container hides it.
    #[error("/dev/net/tun does not exist")]
    NoDriver,
    /// The process may not make interfaces.
    #[error("no permission to create the interface {name}")]
    Permission {
        /// What was asked for.
        name: String,
    },
    /// Another program holds the device, or it was made to persist.
    #[error("the interface {name} exists already")]
    Busy {
        /// What was asked for.
        name: String,
    },
    /// An interface of another kind has this name.
    #[error("{name} exists and is not a TUN device")]
    NotTun {
        /// What was asked for.
        name: String,
    },
    /// The kernel refuses this MTU.
    #[error("the interface {name} cannot have an MTU of {mtu}")]
    Mtu {
        /// The interface.
        name: String,
        /// What was asked for.
        mtu: u16,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else; `call` failed.
    #[error("cannot create the interface {name}: {call} failed")]
    System {
        /// What was asked for.
        name: String,
        /// The system call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no code for this system.
    #[error("TUN devices are not supported on this operating system")]
    Unsupported,
}

impl TunError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Name { .. } => Some("use 1 to 15 letters, digits, '-', '_' or '.'"),
            Self::NoDriver => Some(
                "load the driver with `modprobe tun`; in a container, add `--device /dev/net/tun`",
            ),
            Self::Permission { .. } => Some(
                "run as root, or grant CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)",
            ),
            Self::Busy { .. } => Some(
                "stop the other program (`ip link delete` removes a leftover), or choose another `interface`",
            ),
            Self::NotTun { .. } => Some("choose another name with `interface`"),
            Self::Mtu { .. } => Some("use 68 to 65535, and 1280 or more for IPv6"),
            Self::System { .. } => None,
            Self::Unsupported => Some("Adit runs on Linux"),
        }
    }
}

/// The most headroom that can be asked of [`Tun::recv`]: two variable-length integers (RFC 9297 §2.1).
pub const MAX_HEADROOM: usize = 16;
