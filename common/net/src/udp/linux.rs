//! Socket options of Linux, and what its error numbers mean.

use std::io;
use std::os::fd::AsRawFd as _;

use socket2::Socket;

use super::Steering;

pub(super) fn set_mark(socket: &Socket, mark: u32) -> io::Result<()> {
    socket.set_mark(mark)
}

/// Turns off what quinn-udp 0.6 turns on and nobody reads: with a timestamp, its buffer for control messages is too
/// short, and the kernel leaves out the ECN mark and our own address of every coalesced batch.
pub(super) fn forgo_timestamps(socket: &Socket) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)
}

/// Lets sockets of the same user that ask for it too have the same address.
pub(super) fn share(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

/// Makes the kernel choose between the sockets that share an address, one of which is `socket`.
pub(super) fn steer(socket: &Socket, steering: Steering) -> io::Result<()> {
    // The program's offsets count from the UDP payload. What it cannot read ends it with 0, and a number
    // without a socket leaves the choice to the kernel (`reuseport_select_sock`).
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0),
        // To the last line, or on to the next.
        instruction(
            libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K,
            2,
            steering.to_the_first,
        ),
        instruction(
            libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
            0,
            steering.number_at,
        ),
        instruction(libc::BPF_RET | BPF_A, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option's value is one `sock_fprog`, `program` is one and points to as many instructions as
    // it says, and the kernel copies both.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn instruction(code: u32, jump_if_true: u8, value: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: jump_if_true,
        jf: 0,
        k: value.into(),
    }
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

/// The accumulator as a return value (`linux/filter.h`).
const BPF_A: u32 = 0x10;
