//! Socket options on systems for which there is no code: what the standard calls give, and no more.

use std::io;

use socket2::Socket;

use super::Steering;

pub(super) fn set_mark(_socket: &Socket, _mark: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn forgo_timestamps(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

pub(super) fn share(_socket: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn steer(_socket: &Socket, _steering: Steering) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn size_receive_buffer(socket: &Socket, bytes: usize) -> usize {
    let _ = socket.set_recv_buffer_size(bytes);
    socket.recv_buffer_size().unwrap_or(0)
}

pub(super) fn size_send_buffer(socket: &Socket, bytes: usize) -> usize {
    let _ = socket.set_send_buffer_size(bytes);
    socket.send_buffer_size().unwrap_or(0)
}

pub(super) fn path_mtu(_socket: &Socket, _v6: bool) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn is_no_family(_error: &io::Error) -> bool {
    false
}

pub(super) fn is_offload_refusal(_error: &io::Error) -> bool {
    false
}

pub(super) fn is_icmp_error(_error: &io::Error) -> bool {
    false
}
