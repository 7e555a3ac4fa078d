//! The TUN device: whole IP packets, read and written by the one thread that owns its queues, or some of them. Packets
//! of one flow cross the border to the kernel together, as [`adit_core::offload`] describes.
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
mod steering;
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
mod virtio;

/// In which queues of a [`Tun`] packets wait, by their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting(u16);

impl Waiting {
    /// One more queue.
    pub fn add(&mut self, queue: usize) {
        self.0 |= 1 << queue;
    }

    /// Whether nothing waits.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn all(queues: usize) -> Self {
        Self(u16::MAX >> (usize::from(MAX_QUEUES) - queues))
    }

    fn contains(self, queue: usize) -> bool {
        self.0 & (1 << queue) != 0
    }

    fn remove(&mut self, queue: usize) {
        self.0 &= !(1 << queue);
    }
}

/// The queues of a TUN device that one thread owns: all of them, most often a single one.
#[derive(Debug)]
pub struct Tun {
    queues: os::Queues,
    name: String,
}

impl Tun {
    /// Creates the device `name`, which is down and has no addresses, with this MTU.
    pub fn open(name: &str, mtu: u16) -> Result<Self, TunError> {
        if !is_interface_name(name) {
            return Err(TunError::Name { name: name.into() });
        }
        Ok(Self {
            queues: os::Queues::open(name, mtu, os::Part::Only)?,
            name: name.into(),
        })
    }

    /// The same for `threads` threads, with `each` queues for each of them, at most [`MAX_QUEUES`].
    ///
    /// The kernel puts a packet into the queue that the other direction of its flow was last written to; into
    /// any, always the same, when there was none. What comes from one address is written to one queue, so that
    /// whoever is flooded fills that queue and not those of others: who shares it is written to another.
    pub fn open_several(
        name: &str,
        mtu: u16,
        threads: u8,
        each: u8,
    ) -> Result<Vec<Self>, TunError> {
        if !is_interface_name(name) {
            return Err(TunError::Name { name: name.into() });
        }
        (0..threads.max(1))
            .map(|thread| {
                let part = if thread == 0 {
                    os::Part::First(each)
                } else {
                    os::Part::Another(each)
                };
                Ok(Self {
                    queues: os::Queues::open(name, mtu, part)?,
                    name: name.into(),
                })
            })
            .collect()
    }

    /// The name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads one packet of up to 64 KiB, from each queue in turn, and what is left to be done on it. The result
    /// starts with `headroom` arbitrary bytes, then comes the packet.
    ///
    /// `None` means that nothing is waiting. An error means that the device is gone (deleted by somebody);
    /// `InvalidData` alone is passing. `headroom` is at most [`MAX_HEADROOM`].
    pub fn recv(&mut self, headroom: usize) -> io::Result<Option<(BytesMut, Offload)>> {
        let mut waiting = Waiting::all(self.queues.iter().count());
        self.queues.recv(&mut waiting, headroom)
    }

    /// The same, looking only where packets are said to wait; a queue that is found empty is taken out.
    pub fn recv_waiting(
        &mut self,
        waiting: &mut Waiting,
        headroom: usize,
    ) -> io::Result<Option<(BytesMut, Offload)>> {
        self.queues.recv(waiting, headroom)
    }

    /// Takes a packet for the kernel, which gets it with [`flush`](Self::flush): together with others of its flow
    /// where the device allows that, and in order within the flow.
    pub fn send(&mut self, packet: Bytes) {
        self.queues.send(packet);
    }

    /// Hands everything taken to the kernel and returns how many packets it refused: malformed ones, or all when
    /// the link is down.
    pub fn flush(&mut self) -> usize {
        self.queues.flush()
    }

    /// Where the kernel puts answers to what was handed over since this was last asked. What it answers by itself, as it
    /// acknowledges what it receives, waits there already.
    pub fn answered(&mut self) -> Waiting {
        self.queues.take_written()
    }

    /// The queues in their order, to be watched.
    #[cfg(unix)]
    pub fn queues(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
        self.queues.iter()
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

/// The most queues of one thread.
pub const MAX_QUEUES: u8 = 16;

/// The most headroom that can be asked of [`Tun::recv`]: two variable-length integers (RFC 9297 §2.1).
pub const MAX_HEADROOM: usize = 16;
