//! TUN on Linux: `/dev/net/tun` with the virtio header, which carries what is left to be done.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use adit_core::offload::Offload;
use adit_core::offload::coalesce::{Bundle, Coalescer, Join, MAX_HEADERS, MAX_PACKETS};
use bytes::{Buf as _, Bytes, BytesMut};

use super::steering::Steering;
use super::{MAX_QUEUES, TunError, Waiting, virtio};
use crate::arena::{Arena, MAX_SPACE};

#[derive(Debug)]
pub(super) struct Queues {
    files: Vec<File>,
    /// The one to be read next.
    next: usize,
    /// Those written to since [`take_written`](Self::take_written).
    written: Waiting,
    steering: Steering,
    arena: Arena,
    coalescer: Coalescer,
}

/// Which of a device's queues to open, and how many.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// The only one: creates the device.
    Only,
    /// The first of several: creates the device.
    First(u8),
    /// More.
    Another(u8),
}

impl Queues {
    pub(super) fn open(name: &str, mtu: u16, part: Part) -> Result<Self, TunError> {
        let (count, several) = match part {
            Part::Only => (1, 0),
            Part::First(count) | Part::Another(count) => (count, libc::IFF_MULTI_QUEUE),
        };
        let creates = !matches!(part, Part::Another(_));
        let mut files = Vec::new();
        let mut join = Join::TcpAndUdp;
        for _ in 0..count.clamp(1, MAX_QUEUES) {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(DEVICE)
                .map_err(|error| open_error(name, error))?;
            // Exclusive: a persistent device made beforehand would keep our addresses and routes after a
            // `kill -9`.
            let first = creates && files.is_empty();
            let exclusive = if first { libc::IFF_TUN_EXCL } else { 0 };
            attach(&file, name, several | exclusive)?;
            if first {
                set_mtu(name, mtu)?;
                lengthen_queue(name);
                // Of the device, not of its queues.
                join = ask_for_offloads(&file);
            }
            files.push(file);
        }
        Ok(Self {
            next: 0,
            written: Waiting::default(),
            steering: Steering::new(files.len()),
            files,
            arena: Arena::new(),
            coalescer: Coalescer::new(join),
        })
    }

    pub(super) fn recv(
        &mut self,
        waiting: &mut Waiting,
        headroom: usize,
    ) -> io::Result<Option<(BytesMut, Offload)>> {
        // The header stands where the headroom will be, or the end of it.
        let front = headroom.max(virtio::HEADER);
        while !waiting.is_empty() {
            let at = self.next;
            if !waiting.contains(at) {
                self.next = (at + 1) % self.files.len();
                continue;
            }
            let space = self.arena.space(MAX_SPACE);
            let len = match self.files[at].read(&mut space[front - virtio::HEADER..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    waiting.remove(at);
                    self.steering.empty(at);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.next = (at + 1) % self.files.len();
            let mut packet = self.arena.take(front - virtio::HEADER + len);
            let offload = packet
                .get(front - virtio::HEADER..)
                .and_then(|bytes| bytes.first_chunk())
                .and_then(virtio::decode)
                .ok_or(io::ErrorKind::InvalidData)?;
            packet.advance(front - headroom);
            self.steering.read(at, &packet[headroom..]);
            return Ok(Some((packet, offload)));
        }
        Ok(None)
    }

    pub(super) fn send(&mut self, packet: Bytes) {
        self.coalescer.push(packet);
    }

    pub(super) fn flush(&mut self) -> usize {
        let mut refused = 0;
        self.coalescer.flush();
        while let Some(bundle) = self.coalescer.pop() {
            if let Err(error) = self.write(&bundle) {
                refused += self.write_apart(&bundle, &error);
            }
            self.coalescer.recycle(bundle);
        }
        refused
    }

    pub(super) fn take_written(&mut self) -> Waiting {
        std::mem::take(&mut self.written)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.files.iter().map(|file| file.as_fd())
    }

    /// Writes a bundle with one system call and without copying it.
    fn write(&mut self, bundle: &Bundle) -> io::Result<()> {
        let packets = bundle.packets();
        let at = self.queue_for(bundle);
        self.written.add(at);
        let file = &self.files[at];
        let mut headers = [0; MAX_HEADERS];
        let Some(joined) = bundle.headers(&mut headers) else {
            let packet = packets.first().map_or(&[][..], |packet| packet);
            return write_vectored(file, &[&virtio::PLAIN, packet].map(IoSlice::new));
        };
        let virtio = virtio::encode(&joined, headers[0] >> 4 == 4);
        let mut slices = [IoSlice::new(&[]); MAX_PACKETS + 2];
        slices[0] = IoSlice::new(&virtio);
        slices[1] = IoSlice::new(&headers[..joined.header]);
        for (slice, packet) in slices[2..].iter_mut().zip(packets) {
            *slice = IoSlice::new(&packet[joined.header..]);
        }
        write_vectored(file, &slices[..packets.len() + 2])
    }

    /// The queue where answers to a bundle shall come to.
    fn queue_for(&mut self, bundle: &Bundle) -> usize {
        let first = bundle.packets().first();
        first.map_or(0, |packet| self.steering.queue_for(packet))
    }

    /// The device refused a bundle: gives it the packets one by one, and returns how many of them it
    /// refuses too. A kernel that does not take what it offered is not asked again.
    fn write_apart(&mut self, bundle: &Bundle, cause: &io::Error) -> usize {
        if bundle.packets().len() == 1 {
            tracing::trace!(error = %cause, "the TUN device refused a packet");
            return 1;
        }
        if cause.raw_os_error() == Some(libc::EINVAL) {
            tracing::warn!(%cause, "the TUN device refuses joined packets; they go one by one");
            self.coalescer.join(Join::Nothing);
        }
        let at = self.queue_for(bundle);
        let file = &self.files[at];
        let refused = bundle.packets().iter().filter(|packet| {
            let slices = [&virtio::PLAIN, &packet[..]].map(IoSlice::new);
            write_vectored(file, &slices).is_err()
        });
        refused.count()
    }
}

fn write_vectored(file: &File, slices: &[IoSlice<'_>]) -> io::Result<()> {
    loop {
        match rustix::io::writev(file, slices) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks for whole packets of TCP and, from Linux 6.2 on, UDP. Without offloads everything still works.
fn ask_for_offloads(file: &File) -> Join {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    for (features, join) in [(tcp | udp, Join::TcpAndUdp), (tcp, Join::Tcp)] {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        #[allow(unsafe_code)]
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as _, features) };
        if result == 0 {
            return join;
        }
    }
    let error = io::Error::last_os_error();
    tracing::warn!(%error, "the TUN device has no offloads; every packet costs a system call");
    Join::Nothing
}

fn open_error(name: &str, source: io::Error) -> TunError {
    match source.raw_os_error() {
        // ENXIO and ENODEV: the node is there, the driver is not.
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => TunError::NoDriver,
        Some(libc::EPERM | libc::EACCES) => TunError::Permission { name: name.into() },
        _ => TunError::System {
            name: name.into(),
            call: "open /dev/net/tun",
            source,
        },
    }
}

fn attach(file: &File, name: &str, how: libc::c_int) -> Result<(), TunError> {
    let mut request = request(name);
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | how;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is, and keeps no pointer to it.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    if result == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    let name = name.to_owned();
    Err(match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunError::Permission { name },
        // With IFF_TUN_EXCL the kernel says EBUSY of every existing interface; tell the kinds apart.
        Some(libc::EBUSY) if !is_tun(&name) => TunError::NotTun { name },
        Some(libc::EBUSY) => TunError::Busy { name },
        _ => TunError::System {
            name,
            call: "TUNSETIFF",
            source,
        },
    })
}

fn is_tun(name: &str) -> bool {
    std::path::Path::new("/sys/class/net")
        .join(name)
        .join("tun_flags")
        .exists()
}

fn set_mtu(name: &str, mtu: u16) -> Result<(), TunError> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
        .or_else(|_| socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None))
        .map_err(|source| TunError::System {
            name: name.into(),
            call: "socket",
            source,
        })?;
    let mut request = request(name);
    request.ifr_ifru.ifru_mtu = mtu.into();
    // SAFETY: SIOCSIFMTU reads one `ifreq`, which `request` is, and keeps no pointer to it.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU as _, &request) };
    if result == 0 {
        return Ok(());
    }
    Err(TunError::Mtu {
        name: name.into(),
        mtu,
        source: io::Error::last_os_error(),
    })
}

/// The kernel drops what does not fit its queue of the device, packet by packet whatever their size: the
/// default of 500 is five milliseconds of 100,000 small ones a second, less than a busy machine may let
/// the packet thread wait. Shorter, everything still works.
fn lengthen_queue(name: &str) {
    let Ok(socket) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
        .or_else(|_| socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None))
    else {
        return;
    };
    let mut request = request(name);
    // `ifr_qlen` is the same place in the union; the C library's binding has no name for it.
    request.ifr_ifru.ifru_mtu = QUEUE;
    // SAFETY: SIOCSIFTXQLEN reads one `ifreq`, which `request` is, and keeps no pointer to it.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFTXQLEN as _, &request) };
    if result != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "the queue keeps its length");
    }
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data for which all zeroes is a value.
    #[allow(unsafe_code)]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name was checked: at most 15 bytes, so that the last one stays zero.
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// Packets in each of the kernel's queues of the device.
const QUEUE: libc::c_int = 2000;
const DEVICE: &str = "/dev/net/tun";
