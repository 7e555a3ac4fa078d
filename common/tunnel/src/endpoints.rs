//! Where links come from: one quinn-proto endpoint for each.
//!
//! quinn-proto's endpoint routes datagrams to connections and cannot give one away. With an endpoint
//! of its own a connection can: its handshake runs on one thread, its packets on another. Routing
//! between links is done by [`crate::links`]; an endpoint costs a link one or two kilobytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_core::flow::HashKey;
use adit_core::session::Place;
use aws_lc_rs::hmac;
use quinn_proto::{
    ClientConfig, ConnectError, Connection, ConnectionHandle, ConnectionId, Endpoint,
    EndpointConfig, ServerConfig,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::cid::{self, EngineIds, Issued};
use crate::link::Link;
use crate::transport::{EngineKeys, Limits, endpoint_config};

/// Makes endpoints and links.
pub(crate) struct Endpoints {
    config: EndpointConfig,
    key: Arc<hmac::Key>,
    seeds: StdRng,
    next_serial: u64,
}

impl Endpoints {
    pub(crate) fn new(keys: &EngineKeys, limits: &Limits) -> Self {
        Self {
            config: endpoint_config(keys, limits),
            key: cid::marking_key(&keys.cid_key),
            seeds: StdRng::from_seed(keys.seed),
            next_serial: 0,
        }
    }

    /// An endpoint whose connection ids name `engine`, and where those ids are reported.
    pub(crate) fn endpoint(
        &mut self,
        engine: u8,
        server: Option<Arc<ServerConfig>>,
    ) -> (Endpoint, Issued) {
        let issued = Issued::default();
        let (ids, key, seed) = (issued.clone(), Arc::clone(&self.key), self.seed());
        let mut config = self.config.clone();
        config.cid_generator(move || {
            Box::new(EngineIds::new(engine, Arc::clone(&key), seed, ids.clone()))
        });
        let seed = self.seed();
        let endpoint = Endpoint::new(Arc::new(config), server, true, Some(seed));
        (endpoint, issued)
    }

    /// A link of the only connection that `endpoint` has; `first` is the id its first packet named.
    pub(crate) fn link<M: crate::link::Machine>(
        &mut self,
        now: Instant,
        endpoint: Endpoint,
        connection: (ConnectionHandle, Connection),
        issued: Issued,
        first: Option<ConnectionId>,
    ) -> Link<M> {
        self.next_serial += 1;
        let first = first.into_iter().collect();
        Link::new(now, self.next_serial, endpoint, connection, issued, first)
    }

    /// Where the next connection of somebody on `engine` should begin.
    pub(crate) fn place(&mut self, engine: u8) -> Place {
        Place(cid::place(engine, &self.key, self.seeds.random()))
    }

    /// The engine that the first datagram of a connection asks for, by a place that was given out here.
    pub(crate) fn placed(&self, id: &ConnectionId) -> Option<u8> {
        cid::placed(&self.key, id)
    }

    /// A destination connection id that begins with a place and cannot be guessed (RFC 9000 §7.2).
    pub(crate) fn id_at(&mut self, place: Place) -> ConnectionId {
        let unpredictable: [u8; 8] = self.seeds.random();
        ConnectionId::new(&[place.0, unpredictable].concat())
    }

    /// A link to a gateway.
    pub(crate) fn connect<M: crate::link::Machine>(
        &mut self,
        now: Instant,
        config: ClientConfig,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<Link<M>, ConnectError> {
        let (mut endpoint, issued) = self.endpoint(0, None);
        let connection = endpoint.connect(now, config, remote, server_name)?;
        Ok(self.link(now, endpoint, connection, issued, None))
    }

    /// The secret of a session's flow table.
    pub(crate) fn hash_key(&mut self) -> HashKey {
        HashKey::new(self.seeds.random())
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.seeds.fill_bytes(&mut seed);
        seed
    }
}
