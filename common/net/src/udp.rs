//! The outside socket: batches of UDP datagrams with ECN, destination addresses, GSO and GRO.
//!
//! One socket serves both families. Addresses are always in their own family here: `::ffff:192.0.2.1` never
//! leaves this module. Datagrams are never fragmented by IP (RFC 9000 §14). Sending and receiving never block,
//! and no ICMP message of a stranger ends a loop.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;
use quinn_udp::{RecvMeta, UdpSockRef};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use thiserror::Error;

use crate::arena::Arena;

#[cfg_attr(target_os = "linux", path = "udp/linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "udp/unsupported.rs")]
mod os;
mod sender;

pub use sender::UdpSender;

pub use quinn_udp::{EcnCodepoint, Transmit};

/// How to open the socket.
#[derive(Clone, Copy, Debug)]
pub struct UdpOptions {
    /// The firewall mark of everything sent (SO_MARK), which keeps the tunnel's own packets out of the tunnel.
    pub mark: Option<u32>,
    /// The receive buffer to ask for, in bytes.
    pub receive_buffer: usize,
    /// The send buffer to ask for, in bytes.
    pub send_buffer: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            mark: None,
            receive_buffer: BUFFER,
            send_buffer: BUFFER,
        }
    }
}

/// How the kernel chooses between several sockets of one address, by what a datagram begins with.
#[derive(Clone, Copy, Debug)]
pub struct Steering {
    /// A first byte with one of these bits set leads to the first socket.
    pub to_the_first: u8,
    /// Otherwise the byte at this offset is the number of the socket.
    pub number_at: u8,
}

/// What the kernel granted of the buffers asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Bytes of receive buffer.
    pub receive: usize,
    /// Bytes of send buffer.
    pub send: usize,
    /// Whether one of them is less than asked for.
    pub capped: bool,
}

impl Buffers {
    /// How to lift the kernel's limit, when it capped a buffer.
    pub fn hint(&self) -> Option<String> {
        self.capped
            .then(|| format!("sysctl -w net.core.rmem_max={BUFFER} net.core.wmem_max={BUFFER}"))
    }
}

/// Datagrams received from one peer in one batch: equally long, but for the last.
#[derive(Debug)]
pub struct Received {
    /// Who sent them.
    pub remote: SocketAddr,
    /// The address of ours they were sent to.
    pub local_ip: Option<IpAddr>,
    /// Their ECN mark.
    pub ecn: Option<EcnCodepoint>,
    /// The length of each datagram but the last, which may be shorter.
    pub stride: usize,
    /// The datagrams, one after the other.
    pub data: BytesMut,
}

impl Received {
    /// Splits off the next datagram without copying it.
    pub fn next_datagram(&mut self) -> Option<BytesMut> {
        if self.data.is_empty() {
            return None;
        }
        let len = self.stride.clamp(1, self.data.len());
        Some(self.data.split_to(len))
    }
}

/// Whose a socket's port is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Own,
    /// Of several sockets, of which one has it already.
    Shared,
}

/// A bound UDP socket, for the one thread that owns it.
#[derive(Debug)]
pub struct Udp {
    sender: UdpSender,
    local: SocketAddr,
    mark: Option<u32>,
    buffers: Buffers,
    /// Fixed space for each message of one receive call; small messages are copied out of it.
    slots: Vec<BytesMut>,
    /// What is told about each message.
    metas: Vec<RecvMeta>,
    /// How many messages the next receive call asks for.
    asks: usize,
    spare: VecDeque<BytesMut>,
    arena: Arena,
}

impl Udp {
    /// Binds `count` sockets to `local`, for as many threads. The kernel steers each datagram to one of them;
    /// where it cannot, any of them may get it, though always the same one from the same peer.
    pub fn bind_several(
        local: SocketAddr,
        options: &UdpOptions,
        count: u8,
        steering: Steering,
    ) -> Result<Vec<Self>, UdpError> {
        let first = Self::bind(local, options)?;
        if count <= 1 {
            return Ok(vec![first]);
        }
        let local = first.local_address();
        // The first was bound alone, so that a port somebody else has is noticed, even somebody who would
        // share it: two gateways on one port would lose half of each other's datagrams.
        os::share(&first.sender.socket)
            .map_err(|source| UdpError::of(local, "SO_REUSEPORT", source))?;
        let mut sockets = vec![first];
        for _ in 1..count {
            sockets.push(Self::bind_exactly(local, options, Port::Shared)?);
        }
        if let Err(error) = os::steer(&sockets[0].sender.socket, steering) {
            tracing::warn!(%error, "the kernel does not steer datagrams to their engines; the engines do");
        }
        Ok(sockets)
    }

    /// Binds to `local`. The wildcard `[::]` takes both families, or IPv4 alone where the host has no IPv6.
    pub fn bind(local: SocketAddr, options: &UdpOptions) -> Result<Self, UdpError> {
        match Self::bind_exactly(local, options, Port::Own) {
            Err(UdpError::NoFamily { .. }) if local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.port());
                tracing::info!(local = %v4, "this host has no IPv6; the outside socket is IPv4 only");
                Self::bind_exactly(v4, options, Port::Own)
            }
            other => other,
        }
    }

    fn bind_exactly(local: SocketAddr, options: &UdpOptions, port: Port) -> Result<Self, UdpError> {
        let fail = |call| move |source| UdpError::of(local, call, source);
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))
            .map_err(fail("socket"))?;
        if local.is_ipv6() {
            socket.set_only_v6(false).map_err(fail("IPV6_V6ONLY"))?;
        }
        if let Some(mark) = options.mark {
            os::set_mark(&socket, mark).map_err(|source| match source.kind() {
                io::ErrorKind::PermissionDenied => UdpError::Mark { mark },
                _ => UdpError::of(local, "SO_MARK", source),
            })?;
        }
        if port == Port::Shared {
            os::share(&socket).map_err(fail("SO_REUSEPORT"))?;
        }
        let buffers = size_buffers(&socket, options);
        socket.bind(&SockAddr::from(local)).map_err(fail("bind"))?;
        let local = socket
            .local_addr()
            .and_then(|address| {
                let address = address.as_socket();
                address.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
            })
            .map_err(fail("getsockname"))?;
        Ok(Self {
            slots: (0..BATCH).map(|_| BytesMut::zeroed(SLOT)).collect(),
            metas: vec![RecvMeta::default(); BATCH],
            asks: FEWEST,
            spare: VecDeque::new(),
            arena: Arena::new(),
            mark: options.mark,
            sender: UdpSender::new(socket, local.is_ipv6()).map_err(fail("setsockopt"))?,
            local,
            buffers,
        })
    }

    /// The bound address with the real port. A wildcard stays one.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Whether the socket reaches IPv6 peers. It reaches IPv4 peers when it does not, or is bound to `[::]`.
    pub fn is_ipv6(&self) -> bool {
        self.local.is_ipv6()
    }

    /// What the kernel granted of the buffers.
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// How many datagrams one [`send`](Self::send) takes: 1 without segmentation offload. It can fall to 1.
    pub fn max_segments(&self) -> usize {
        self.sender.state.max_gso_segments()
    }

    /// Receives what is waiting, at most a few batches of coalesced datagrams, and appends it to `into`.
    ///
    /// Returns whether more may wait. An error is not about a peer; it means the socket is unusable.
    pub fn recv(&mut self, into: &mut Vec<Received>) -> io::Result<bool> {
        let asks = self.asks;
        let count = {
            let mut tries = PENDING_ERRORS;
            loop {
                let mut slots = self.slots[..asks].iter_mut();
                let mut buffers: [IoSliceMut<'_>; BATCH] =
                    std::array::from_fn(|_| match slots.next() {
                        Some(slot) => IoSliceMut::new(slot),
                        None => IoSliceMut::new(&mut []),
                    });
                let socket = UdpSockRef::from(&self.sender.socket);
                let buffers = &mut buffers[..asks];
                match self.sender.state.recv(socket, buffers, &mut self.metas) {
                    Ok(count) => break count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break 0,
                    // An ICMP message about an earlier datagram. Anybody can send one: it is not news
                    // (RFC 9000 §14.2.1), and reading it cleared it.
                    Err(error) if tries > 0 && is_passing(&error) => tries -= 1,
                    Err(error) => return Err(error),
                }
            }
        };
        self.asks = (2 * count).clamp(FEWEST, BATCH);
        for at in 0..count {
            let meta = self.metas[at];
            if meta.len == 0 {
                continue;
            }
            let data = if meta.len <= COPIED {
                self.arena.copy(&self.slots[at][..meta.len])
            } else {
                let fresh = self.fresh_slot();
                let mut slot = std::mem::replace(&mut self.slots[at], fresh);
                let data = slot.split_to(meta.len);
                slot.clear();
                if self.spare.len() == MAX_SPARE {
                    self.spare.pop_front();
                }
                self.spare.push_back(slot);
                data
            };
            into.push(Received {
                remote: canonical(meta.addr),
                local_ip: meta.dst_ip.map(|ip| ip.to_canonical()),
                ecn: meta.ecn,
                stride: meta.stride,
                data,
            });
        }
        Ok(count == asks)
    }

    /// Sends one datagram, or several of `segment_size` bytes, at most [`max_segments`](Self::max_segments).
    ///
    /// `WouldBlock` asks to wait until the socket is writable, and nothing was sent. Any other error is about
    /// these datagrams alone (no route, too big for the interface, refused by a firewall): they are lost, as
    /// datagrams may be.
    pub fn send(&mut self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.sender.send(transmit)
    }

    /// Another way to send from this socket, for another thread.
    pub fn sender(&self) -> io::Result<UdpSender> {
        UdpSender::new(self.sender.socket.try_clone()?, self.is_ipv6())
    }

    /// The MTU of the route to `remote` as the kernel knows it (IP layer), for this socket's mark.
    ///
    /// `None` when there is no route or the system does not say.
    pub fn path_mtu(&self, remote: SocketAddr) -> Option<u16> {
        path_mtu(remote, self.mark)
    }

    /// The address this host would use towards `remote`, for this socket's mark. `None` without a route.
    pub fn source_towards(&self, remote: SocketAddr) -> Option<IpAddr> {
        let probe = probe(remote, self.mark).ok()?;
        Some(probe.local_addr().ok()?.as_socket()?.ip().to_canonical())
    }

    fn fresh_slot(&mut self) -> BytesMut {
        // The last one used is the one that is still in the cache.
        let free = (0..self.spare.len())
            .rev()
            .find(|&at| self.spare[at].try_reclaim(SLOT));
        match free.and_then(|at| self.spare.remove(at)) {
            Some(mut slot) => {
                // SAFETY: every slot is made with SLOT initialised bytes, `try_reclaim` never reallocates, and
                // it made all SLOT bytes of that same allocation available again.
                #[allow(unsafe_code)]
                unsafe {
                    slot.set_len(SLOT);
                }
                slot
            }
            None => BytesMut::zeroed(SLOT),
        }
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Udp {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.sender.socket.as_fd()
    }
}

/// The MTU of the route to `remote` for packets with `mark`; see [`Udp::path_mtu`].
pub fn path_mtu(remote: SocketAddr, mark: Option<u32>) -> Option<u16> {
    let probe = probe(remote, mark).ok()?;
    let mtu = os::path_mtu(&probe, remote.is_ipv6()).ok()?;
    Some(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Connecting a datagram socket sends nothing; it makes the kernel choose the route and the source address.
fn probe(remote: SocketAddr, mark: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(remote),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if let Some(mark) = mark {
        os::set_mark(&socket, mark)?;
    }
    socket.connect(&SockAddr::from(remote))?;
    Ok(socket)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            // Flow information is of the packet, not of the peer: it must not tell two peers apart.
            None => SocketAddr::V6(std::net::SocketAddrV6::new(
                *v6.ip(),
                v6.port(),
                0,
                v6.scope_id(),
            )),
        },
        v4 @ SocketAddr::V4(_) => v4,
    }
}

fn size_buffers(socket: &Socket, options: &UdpOptions) -> Buffers {
    let receive = os::size_receive_buffer(socket, options.receive_buffer);
    let send = os::size_send_buffer(socket, options.send_buffer);
    Buffers {
        receive,
        send,
        capped: receive < options.receive_buffer || send < options.send_buffer,
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::Interrupted
    ) || quinn_udp::is_msg_size_err(error)
        || os::is_icmp_error(error)
}

/// Why the outside socket could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UdpError {
    /// Another socket has the port.
    #[error("UDP {address} is in use by another program")]
    InUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// A port below 1024 without the right to it.
    #[error("no permission to listen on UDP {address}")]
    Permission {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The address is not one of this host.
    #[error("{address} is not an address of this host")]
    NotOurs {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The host lacks the address family.
    #[error("this host has no support for the address family of {address}")]
    NoFamily {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The firewall mark needs a right the process lacks.
    #[error("no permission to set the firewall mark {mark:#x}")]
    Mark {
        /// The mark.
        mark: u32,
    },
    /// Anything else; `call` failed.
    #[error("cannot open UDP {address}: {call} failed")]
    System {
        /// What was asked for.
        address: SocketAddr,
        /// The system call or option.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl UdpError {
    fn of(address: SocketAddr, call: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Permission { address },
            io::ErrorKind::AddrNotAvailable if is_wildcard_v6(address) => {
                Self::NoFamily { address }
            }
            io::ErrorKind::AddrNotAvailable => Self::NotOurs { address },
            _ if os::is_no_family(&source) => Self::NoFamily { address },
            _ => Self::System {
                address,
                call,
                source,
            },
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => {
                Some("`ss -ulpn` shows who; choose another port or stop that program")
            }
            Self::Permission { .. } => {
                Some("run as root, grant CAP_NET_BIND_SERVICE, or choose a port of 1024 or more")
            }
            Self::NotOurs { .. } => {
                Some("`ip address` lists this host's addresses; [::] takes all of them")
            }
            Self::NoFamily { .. } => Some("listen on an address of the other family"),
            Self::Mark { .. } => Some("run as root, or grant CAP_NET_ADMIN"),
            Self::System { .. } => None,
        }
    }
}

/// With IPv6 disabled by sysctl the family exists, and `[::]` cannot be bound.
fn is_wildcard_v6(address: SocketAddr) -> bool {
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// Half a second of 100 Mbit/s, or a stall of 50 ms at 1 Gbit/s.
const BUFFER: usize = 7 << 20;

/// Most messages per receive call. With GRO each is up to 64 datagrams; without, twice as many would only spare
/// a hundredth of what a datagram costs.
const BATCH: usize = 16;

/// Fewest messages a receive call asks for: preparing for more costs a datagram that comes alone more than it costs to
/// ask again. Each call asks for twice as many as came with the last.
const FEWEST: usize = 2;

/// The largest UDP payload, rounded up.
const SLOT: usize = 64 * 1024;

/// Messages up to this length are copied out, so that one small datagram does not hold up a whole slot.
const COPIED: usize = 8 * 1024;

/// Slots waiting for their datagrams to be dropped.
const MAX_SPARE: usize = 32;

/// Socket errors skipped per call; a socket that gives nothing else is broken.
const PENDING_ERRORS: u32 = 64;
