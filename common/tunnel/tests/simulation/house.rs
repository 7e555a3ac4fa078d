//! A gateway as a whole: the front desk and the engine, which talk to each other without threads.

use std::time::Instant;

use adit_core::dataplane::Counters;
use adit_core::table::leases::LeaseEntry;
use adit_tunnel::{
    Census, Datagram, Gateway, GatewayConfig, GatewayEvent, Offload, Reception, ReceptionConfig,
    Transmit,
};
use bytes::{Bytes, BytesMut};

pub struct House {
    reception: Reception,
    gateway: Gateway,
}

impl House {
    pub fn new(reception: ReceptionConfig, gateway: GatewayConfig) -> Self {
        Self {
            reception: Reception::new(reception),
            gateway: Gateway::new(gateway),
        }
    }

    pub fn handle_udp(&mut self, now: Instant, datagram: Datagram) {
        self.gateway.handle_udp(now, datagram);
        self.talk(now);
    }

    pub fn handle_inside(&mut self, now: Instant, buffer: BytesMut, offload: Offload) {
        self.gateway.handle_inside(now, buffer, offload);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.gateway.handle_timeout(now);
        self.talk(now);
        self.reception.handle_timeout(now);
        self.talk(now);
        self.gateway.handle_timeout(now);
        self.talk(now);
        self.reception.handle_timeout(now);
    }

    pub fn has_full_batch(&self) -> bool {
        self.gateway.has_full_batch()
    }

    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        match self.reception.poll_transmit(now, buf) {
            Some(transmit) => Some(transmit),
            None => self.gateway.poll_transmit(now, buf),
        }
    }

    pub fn poll_inside(&mut self) -> Option<Bytes> {
        self.gateway.poll_inside()
    }

    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        match self.reception.poll_event() {
            Some(event) => Some(event),
            None => self.gateway.poll_event(),
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let both = [self.reception.poll_timeout(), self.gateway.poll_timeout()];
        both.into_iter().flatten().min()
    }

    pub fn shutdown(&mut self, now: Instant) {
        self.reception.shutdown(now);
        self.gateway.shutdown(now);
    }

    pub fn leases(&self) -> Vec<LeaseEntry> {
        self.reception.leases()
    }

    pub fn counters(&self) -> Counters {
        let mut all = self.gateway.counters();
        all.add(self.reception.counters());
        all
    }

    pub fn census(&self) -> Census {
        let (desk, engine) = (self.reception.census(), self.gateway.census());
        assert_eq!(
            desk.sessions, engine.sessions,
            "desk and engine agree about who is here"
        );
        Census {
            connections: desk.connections + engine.connections,
            handshakes: desk.handshakes,
            ..engine
        }
    }

    fn talk(&mut self, now: Instant) {
        loop {
            let mut quiet = true;
            while let Some(message) = self.gateway.poll_message() {
                quiet = false;
                self.reception.handle_message(now, message);
            }
            while let Some(message) = self.reception.poll_message() {
                quiet = false;
                self.gateway.handle_message(now, message);
            }
            if quiet {
                return;
            }
        }
    }
}
