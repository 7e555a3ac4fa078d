//! What the gateway is on its machine: the host's part, and the limits that come from it.

use adit_core::mtu;
use adit_net::host::{Network, Routing};
use adit_tunnel::Limits;
use ipnet::IpNet;

use crate::config::ServerConfig;
use crate::load::Loaded;

/// What was found out about the machine at the start.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// The largest MTU of its links.
    pub link_mtu: u16,
}

impl Machine {
    /// MTU of the TUN device.
    pub fn tunnel_mtu(&self, config: &ServerConfig) -> u16 {
        let chosen = config.inside.mtu;
        chosen.unwrap_or_else(|| mtu::tunnel_mtu(self.link_mtu))
    }

    /// Limits of QUIC connections.
    pub fn limits(&self, config: &ServerConfig) -> Limits {
        let payload = mtu::max_udp_payload(usize::from(self.link_mtu), false);
        Limits {
            max_udp_payload: u16::try_from(payload).unwrap_or(u16::MAX),
            idle_timeout: config.idle_timeout,
            keep_alive: None,
        }
    }

    /// What the gateway changes on its host.
    pub fn network(&self, loaded: &Loaded) -> Network {
        let config = &loaded.config;
        let own: Vec<IpNet> = config.inside.addresses.iter().map(IpNet::trunc).collect();
        // The networks of the gateway's own addresses are routed by the kernel already.
        let routes: Vec<IpNet> = loaded
            .policy
            .routed_prefixes()
            .into_iter()
            .filter(|prefix| !own.iter().any(|net| net.contains(prefix)))
            .collect();
        let masquerade = if config.inside.masquerade {
            own.iter().chain(&routes).copied().collect()
        } else {
            Vec::new()
        };
        Network {
            mtu: self.tunnel_mtu(config),
            addresses: config.inside.addresses.clone(),
            routes,
            routing: Routing::All,
            unreachable: Vec::new(),
            forwarding: config.inside.forwarding,
            masquerade,
        }
    }
}
