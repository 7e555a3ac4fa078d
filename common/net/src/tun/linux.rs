//! TUN on Linux: `/dev/net/tun` without a packet information header.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use bytes::BytesMut;

use super::TunError;
use crate::arena::{Arena, MAX_SPACE};

#[derive(Debug)]
pub(super) struct Queue {
    file: File,
    arena: Arena,
}

impl Queue {
    pub(super) fn open(name: &str, mtu: u16) -> Result<Self, TunError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(|error| open_error(name, error))?;
        attach(&file, name)?;
        set_mtu(name, mtu)?;
        Ok(Self {
            file,
            arena: Arena::new(),
        })
    }

    pub(super) fn recv(&mut self, headroom: usize) -> io::Result<Option<BytesMut>> {
        loop {
            let space = self.arena.space(MAX_SPACE);
            match self.file.read(&mut space[headroom..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => return Ok(Some(self.arena.take(headroom + len))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        loop {
            match self.file.write(packet) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        // Every packet is written at once; a coalescing queue writes here what it holds.
        Ok(())
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
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

fn attach(file: &File, name: &str) -> Result<(), TunError> {
    let mut request = request(name);
    // Exclusive: a persistent device made beforehand would keep our addresses and routes after a `kill -9`.
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
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

const DEVICE: &str = "/dev/net/tun";
