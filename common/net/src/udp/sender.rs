//! Sending on the outside socket: batches of datagrams, with segmentation offload as long as it works.

use std::io;
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::Socket;

use super::{PENDING_ERRORS, os};

/// A way to send from a socket; several threads may have one each.
#[derive(Debug)]
pub struct UdpSender {
    pub(super) socket: Socket,
    pub(super) state: UdpSocketState,
    is_ipv6: bool,
    offload_lost: bool,
}

impl UdpSender {
    pub(super) fn new(socket: Socket, is_ipv6: bool) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        os::forgo_timestamps(&socket)?;
        Ok(Self {
            socket,
            state,
            is_ipv6,
            offload_lost: false,
        })
    }

    /// Sends one datagram, or several of `segment_size` bytes; see [`Udp::send`](super::Udp::send).
    pub fn send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.addressed(transmit.destination),
            src_ip: transmit.src_ip.map(|ip| self.addressed_ip(ip)),
            ..transmit.clone()
        };
        match self.try_send(&transmit) {
            Err(error) if lacks_offload(&error, &transmit) => {
                self.send_one_by_one(&transmit, &error)
            }
            other => other,
        }
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut tries = PENDING_ERRORS;
        loop {
            match self
                .state
                .try_send(UdpSockRef::from(&self.socket), transmit)
            {
                // A pending ICMP error is reported by the next call in place of doing it.
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::ConnectionRefused => {
                    tries -= 1
                }
                other => return other,
            }
        }
    }

    /// A driver can refuse segmentation at any time, not only at start: quinn-udp has then set
    /// `max_segments` to 1, and this batch is the last.
    fn send_one_by_one(&mut self, transmit: &Transmit<'_>, cause: &io::Error) -> io::Result<()> {
        if !self.offload_lost {
            self.offload_lost = true;
            tracing::warn!(%cause, "segmentation offload failed; datagrams are sent one by one");
        }
        let segment = transmit
            .segment_size
            .unwrap_or(transmit.contents.len())
            .max(1);
        for (at, contents) in transmit.contents.chunks(segment).enumerate() {
            let one = Transmit {
                contents,
                segment_size: None,
                ..transmit.clone()
            };
            match self.try_send(&one) {
                Err(error) if at == 0 => return Err(error),
                // The rest is lost: sending the batch again would duplicate its beginning.
                Err(_) => return Ok(()),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn addressed(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.is_ipv6 => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            other => other,
        }
    }

    fn addressed_ip(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(v4) if self.is_ipv6 => v4.to_ipv6_mapped().into(),
            other => other,
        }
    }
}

/// EIO and EINVAL are how drivers and old kernels refuse segmentation (quinn-udp, `unix.rs`).
fn lacks_offload(error: &io::Error, transmit: &Transmit<'_>) -> bool {
    let batch = transmit
        .segment_size
        .is_some_and(|segment| segment < transmit.contents.len());
    batch && os::is_offload_refusal(error)
}
