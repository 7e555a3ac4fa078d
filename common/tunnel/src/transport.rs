//! QUIC transport settings of both roles, each constant with its reason.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn_proto::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
};

use crate::congestion::RelayFactory;

/// The secrets that must outlive a restart, and a seed.
///
/// With the same keys a restarted gateway recognises its old clients' connection ids and resets
/// them at once, rather than leaving them to an idle timeout.
#[derive(Clone)]
pub struct EngineKeys {
    /// Marks connection ids as ours.
    pub cid_key: [u8; 32],
    /// Derives stateless-reset tokens (RFC 9000 §10.3).
    pub reset_key: [u8; 32],
    /// Seeds the random parts; new at every start.
    pub seed: [u8; 32],
}

/// Limits that depend on the machine rather than on the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest UDP payload this machine's links can send and receive, in bytes.
    ///
    /// The peer is told, so that neither side probes above it.
    pub max_udp_payload: u16,
    /// Silence after which a session is given up.
    pub idle_timeout: Duration,
    /// How often to break the silence; `None` leaves that to the peer.
    pub keep_alive: Option<Duration>,
}

/// What all links of a process have in common, connection ids and seeds apart.
pub(crate) fn endpoint_config(keys: &EngineKeys, limits: &Limits) -> EndpointConfig {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &keys.reset_key);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    // The grease bit costs a random number per packet and hides nothing from a firewall.
    config.grease_quic_bit(false);
    // Below 1200 the setter refuses, and so does QUIC: the default is the right answer then.
    let _ = config.max_udp_payload_size(limits.max_udp_payload.max(MIN_UDP_PAYLOAD));
    config
}

pub(crate) fn transport_config(limits: &Limits) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(limits.max_udp_payload.max(MIN_UDP_PAYLOAD))
        .black_hole_cooldown(BLACK_HOLE_COOLDOWN);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(ACK_THRESHOLD)
        .max_ack_delay(Some(ACK_DELAY));
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(MAX_REQUESTS)
        .max_concurrent_uni_streams(MAX_UNI)
        .stream_receive_window(STREAM_WINDOW)
        .receive_window(CONNECTION_WINDOW)
        .send_window(SEND_WINDOW)
        .max_idle_timeout(IdleTimeout::try_from(limits.idle_timeout).ok())
        .keep_alive_interval(limits.keep_alive)
        .initial_mtu(MIN_UDP_PAYLOAD)
        .min_mtu(MIN_UDP_PAYLOAD)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE))
        .datagram_send_buffer_size(DATAGRAM_SEND)
        .congestion_controller_factory(Arc::new(RelayFactory));
    Arc::new(config)
}

/// How long the path is taken for one of 1200 bytes after bursts of loss looked like a black hole. Without
/// congestion control such bursts are ordinary, and a search costs a few packets.
const BLACK_HOLE_COOLDOWN: Duration = Duration::from_secs(1);
/// RFC 9000 §14: every QUIC path carries this; the tunnel must come up on an IP MTU of 1280.
pub const MIN_UDP_PAYLOAD: u16 = 1200;
/// One tunnel request, a few refused ones, and none to spare for a flood.
const MAX_REQUESTS: VarInt = VarInt::from_u32(16);
/// RFC 9114 §6.2: at least three for control, encoder and decoder; the rest for greasing.
const MAX_UNI: VarInt = VarInt::from_u32(8);
/// Control traffic only: capsules are at most 64 KiB.
const STREAM_WINDOW: VarInt = VarInt::from_u32(128 * 1024);
const CONNECTION_WINDOW: VarInt = VarInt::from_u32(256 * 1024);
/// Stream bytes in flight: not exempt from congestion control by RFC 9484, so kept harmless.
const SEND_WINDOW: u64 = 64 * 1024;
/// Drained after every batch of UDP input, so this only bounds one batch.
const DATAGRAM_RECEIVE: usize = 4 * 1024 * 1024;
/// Flushed after every batch of inside packets; what does not fit is dropped and counted.
const DATAGRAM_SEND: usize = 1024 * 1024;
/// Acknowledge every 256th packet, some six GSO batches: an ACK costs a system call of its own, a wakeup at the other
/// end, and a walk through the table of packets in flight.
const ACK_THRESHOLD: VarInt = VarInt::from_u32(256);
/// How long an acknowledgement may wait; bounds how late a lost MTU probe is noticed.
const ACK_DELAY: Duration = Duration::from_millis(5);
