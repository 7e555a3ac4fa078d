//! Socket options of Linux, and what its error numbers mean.

use std::io;
use std::os::fd::AsRawFd as _;

use socket2::Socket;

pub(super) fn set_mark(socket: &Socket, mark: u32) -> io::Result<()> {
    socket.set_mark(mark)
}

/// Turns off what quinn-udp 0.6 turns on and nobody reads: with a timestamp, its buffer for control messages is too
/// short, and the kernel leaves out the ECN mark and our own address of every coalesced batch.
pub(super) fn forgo_timestamps(socket: &Socket) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)
}

/// Returns the bytes granted.
pub(super) fn size_receive_buffer(socket: &Socket, bytes: usize) -> usize {
    // FORCE passes the limit of the sysctl, and needs CAP_NET_ADMIN in the first user namespace.
    if set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
    // The kernel doubles what it grants for its own bookkeeping (socket(7)).
    socket.recv_buffer_size().unwrap_or(0) / 2
}

/// Returns the bytes granted.
pub(super) fn size_send_buffer(socket: &Socket, bytes: usize) -> usize {
    if set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
        let _ = socket.set_send_buffer_size(bytes);
    }
    socket.send_buffer_size().unwrap_or(0) / 2
}

/// The MTU of a connected socket's route.
pub(super) fn path_mtu(socket: &Socket, v6: bool) -> io::Result<u32> {
    let (level, option) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU)
    };
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the option's value is one int, `value` is one, and `len` says its size.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw mut value).cast(),
            &mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(value).map_err(|_| io::ErrorKind::InvalidData.into())
}

pub(super) fn is_no_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

pub(super) fn is_offload_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

/// What the kernel makes of ICMP messages, beyond the kinds the standard library names (`icmp_err_convert`).
pub(super) fn is_icmp_error(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPROTO | libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EHOSTDOWN | libc::ENONET)
    )
}

fn set(socket: &Socket, level: libc::c_int, option: libc::c_int, value: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is one int, `value` is one, and its size is passed.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
