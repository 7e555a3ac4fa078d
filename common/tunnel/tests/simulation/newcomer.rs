//! A machine that has no certificate yet and asks for one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_core::close::Refusal;
use adit_core::session::UserAgent;
use adit_core::session::certificate::{CertificateAsk, Issued, Occasion, Secret};
use adit_core::session::enrolment::EnrolmentConfig as Asked;
use adit_tunnel::tls::QuicClient;
use adit_tunnel::{Enrolment, EnrolmentConfig};

use super::world::{GATEWAY, World, keys, limits};

pub struct Newcomer {
    pub engine: Enrolment,
    pub address: SocketAddr,
    pub outcome: Option<Result<Issued, Refusal>>,
    /// Whether its network carries anything.
    pub online: bool,
}

impl Newcomer {
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.engine.poll_timeout()
    }

    /// Everything that is due; returns what it sends, and where to.
    pub fn turn(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        self.engine.handle_timeout(now);
        if let Some(outcome) = self.engine.poll_outcome() {
            assert!(self.outcome.replace(outcome).is_none(), "a second outcome");
        }
        let (mut buf, mut out) = (Vec::new(), Vec::new());
        while let Some(transmit) = self.engine.poll_transmit(now, &mut buf) {
            let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
            for datagram in buf[..transmit.size].chunks(segment) {
                out.push((transmit.destination, datagram.to_vec()));
            }
        }
        out
    }
}

impl World {
    /// A machine at `address` with a code of this secret for this gateway.
    pub fn add_newcomer(&mut self, address: SocketAddr, secret: &str) -> usize {
        let tls = self.pinned_tls();
        self.add_newcomer_with(address, secret, tls, "vpn.example.com", &[GATEWAY])
    }

    pub fn add_newcomer_with(
        &mut self,
        address: SocketAddr,
        secret: &str,
        tls: Arc<QuicClient>,
        server_name: &str,
        gateways: &[&str],
    ) -> usize {
        let number = 10_000 + self.newcomers.len() as u16;
        let ask = CertificateAsk {
            occasion: Occasion::Enrolment(Secret::parse(secret).unwrap()),
            request: b"request".to_vec(),
            user_agent: Some(UserAgent::of_host("0.1.0", "linux", "laptop")),
        };
        let config = EnrolmentConfig {
            keys: keys(number, 1),
            limits: limits(None),
            tls,
            server_name: server_name.to_owned(),
            asked: Asked::new(server_name, ask),
            gateways: gateways.iter().map(|text| text.parse().unwrap()).collect(),
        };
        self.newcomers.push(Newcomer {
            engine: Enrolment::new(self.now, config),
            address,
            outcome: None,
            online: true,
        });
        self.newcomers.len() - 1
    }
}
