//! `adit-server run`: builds the gateway, starts it, and takes it down in the reverse order.
//!
//! Everything that can be refused is tried before the host is changed. What is changed on the host
//! is journalled first and undone on every way out, at the latest by the next start.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use adit_core::admission::Admission;
use adit_core::close::Refusal;
use adit_core::dataplane::TokenBucket;
use adit_core::identity::Principal;
use adit_core::mtu;
use adit_net::exit::Failure;
use adit_net::host::{Host, Network, Routing};
use adit_net::tun::Tun;
use adit_net::udp::{Steering, Udp, UdpOptions};
use adit_net::{clock, control_socket, host, signals};
use adit_tunnel::tls::Algorithms;
use adit_tunnel::{
    ENGINE_AT, EngineKeys, Epoch, Gateway, GatewayConfig, GatewayEvent, InsideAddresses,
    LONG_HEADER, Limits, Reception, ReceptionConfig,
};
use ipnet::IpNet;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::{info, warn};

use crate::admin;
use crate::desk::{self, Desk};
use crate::engines;
use crate::load::{self, Loaded};
use crate::state::{self, State, StateError};

/// Runs the gateway until a signal ends it.
///
/// # Errors
/// When the configuration is wrong or the environment does not allow it; the host is as before.
pub fn run(path: &Path) -> Result<(), Failure> {
    let loaded = load::load(path)?;
    for warning in loaded.policy.warnings() {
        warn!("{warning}");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(&error).while_doing("cannot start the runtime"))?
        .block_on(serve(loaded))
}

async fn serve(loaded: Loaded) -> Result<(), Failure> {
    let config = &loaded.config;
    let state = State::open(&config.state_directory).map_err(state_failure)?;
    let keys = state.keys().map_err(state_failure)?;
    let leases = state.leases().map_err(state_failure)?;
    let admin = control_socket::Listener::bind(&config.admin_socket)
        .map_err(|error| Failure::environment(&error).with_hint(error.hint()))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = config.engines_on(cores);
    let steering = Steering {
        to_the_first: LONG_HEADER,
        number_at: ENGINE_AT,
    };
    let sockets = Udp::bind_several(config.listen, &UdpOptions::default(), count, steering)
        .map_err(|error| Failure::environment(&error).with_hint(error.hint()))?;
    if let Some(hint) = sockets[0].buffers().hint() {
        warn!("the kernel limits the socket buffers; {hint}");
    }
    // Leftovers of a gateway that was killed are undone here, before anything is made.
    let mut host = Host::open(state.directory(), &config.inside.interface)
        .await
        .map_err(host_failure)?;
    let link_mtu = host::largest_link_mtu().await.map_err(host_failure)?;
    let tunnel_mtu = config
        .inside
        .mtu
        .unwrap_or_else(|| mtu::tunnel_mtu(link_mtu));
    let queues = Tun::open_several(&config.inside.interface, tunnel_mtu, count, QUEUES)
        .map_err(|error| Failure::environment(&error).with_hint(error.hint()))?;

    let inside = config.inside_addresses();
    let mut admission = Admission::new(loaded.policy.clone(), &inside);
    admission.restore(leases);
    let epoch = Epoch::new(Instant::now(), clock::unix_seconds());
    let reception = Reception::new(ReceptionConfig {
        keys: EngineKeys {
            cid_key: keys.cid,
            reset_key: keys.reset,
            seed: state::random().map_err(state_failure)?,
        },
        limits: Limits {
            max_udp_payload: u16::try_from(mtu::max_udp_payload(usize::from(link_mtu), false))
                .unwrap_or(u16::MAX),
            idle_timeout: config.idle_timeout,
            keep_alive: None,
        },
        engines: count,
        tls: loaded.tls.clone(),
        authorities: loaded.authorities.clone(),
        admission,
        tunnel_mtu,
        second_connection: config.second_connection,
        epoch,
    });
    let inside = InsideAddresses {
        v4: config.inside.addresses.iter().find_map(|net| match net {
            IpNet::V4(net) => Some(net.addr()),
            IpNet::V6(_) => None,
        }),
        v6: config.inside.addresses.iter().find_map(|net| match net {
            IpNet::V6(net) => Some(net.addr()),
            IpNet::V4(_) => None,
        }),
    };
    let gateway = |engine| {
        Gateway::new(GatewayConfig {
            engine,
            engines: count,
            inside,
            epoch,
        })
    };

    host.apply(&network(&loaded, tunnel_mtu))
        .await
        .map_err(host_failure)?;
    info!(
        listen = %sockets[0].local_address(),
        engines = count,
        interface = config.inside.interface,
        mtu = tunnel_mtu,
        record_cipher = %Algorithms::for_this_cpu(),
        "the gateway is ready"
    );
    let listen = config.listen.to_string();
    let parts: Vec<Part> = (0..count)
        .map(gateway)
        .zip(sockets)
        .zip(queues)
        .map(|((engine, udp), tun)| (engine, udp, tun))
        .collect();
    let served = control(reception, parts, &admin, &state, listen).await;
    let undone = host.undo().await.map_err(host_failure);
    served.and(undone)
}

/// An engine with its socket and its TUN queue.
type Part = (Gateway, Udp, Tun);

/// Runs the packet threads and the front desk, and serves the control plane until one of them ends.
async fn control(
    reception: Reception,
    parts: Vec<Part>,
    admin: &control_socket::Listener,
    state: &State,
    listen: String,
) -> Result<(), Failure> {
    let devices = |error: &std::io::Error| {
        Failure::environment(error).while_doing("the packet thread cannot use its devices")
    };
    let socket = parts[0].1.sender().map_err(|error| devices(&error))?;
    let (engines, threads) =
        engines::prepare(parts.into_iter()).map_err(|error| devices(&error))?;
    let (outbox, mut events) = unbounded_channel();
    let (ended, mut end) = unbounded_channel();
    let (desk, notes) = desk::desk();
    let front = desk::start(reception, notes, socket, engines.clone(), outbox.clone())
        .map_err(|error| devices(&error))?;
    let threads = engines::start(threads, &engines, &outbox, &desk, &ended)
        .map_err(|error| devices(&error))?;

    let mut signals = signals::Signals::new().map_err(|error| devices(&error))?;
    let mut refusals = RefusalLog::new(Instant::now());
    let outcome = loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    handle_events(event, &mut events, &desk, state, &mut refusals).await;
                }
                None => break Ok(()),
            },
            request = admin.accept() => match request {
                Ok(connection) => admin::answer(connection, &engines, &desk, &listen).await,
                Err(error) => warn!(%error, "an admin connection failed"),
            },
            signal = signals.stop() => {
                info!(signal, "stopping");
                break Ok(());
            }
            result = end.recv() => {
                break match result {
                    Some(Err(error)) => Err(devices(&error)),
                    Some(Ok(())) | None => Ok(()),
                };
            }
        }
    };
    // A thread may have ended by itself; then nobody takes the command.
    desk.close();
    let _ = front.join();
    engines.shutdown();
    for thread in threads {
        let _ = thread.join();
    }
    outcome
}

/// Refusals in the log: all of them in ordinary times, a sample of a flood.
struct RefusalLog {
    allowance: TokenBucket,
    suppressed: u64,
}

impl RefusalLog {
    fn new(now: Instant) -> Self {
        Self {
            allowance: TokenBucket::new(now, REFUSALS_PER_SECOND, REFUSAL_BURST),
            suppressed: 0,
        }
    }

    fn log(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        principal: Option<&Principal>,
        refusal: &Refusal,
    ) {
        if !self.allowance.take(now) {
            self.suppressed += 1;
            return;
        }
        warn!(
            %remote,
            principal = principal.map(Principal::as_str),
            reason = %refusal,
            suppressed = self.suppressed,
            "connection refused"
        );
        self.suppressed = 0;
    }
}

/// Logs what happened and saves the leases once for everything that waits.
async fn handle_events(
    first: GatewayEvent,
    more: &mut UnboundedReceiver<GatewayEvent>,
    desk: &Desk,
    state: &State,
    refusals: &mut RefusalLog,
) {
    let mut leases_changed = false;
    let mut next = Some(first);
    while let Some(event) = next {
        match event {
            GatewayEvent::Opened(session) => info!(
                principal = %session.identity.principal,
                serial = session.identity.serial,
                addresses = ?session.addresses,
                remote = %session.remote,
                "session opened"
            ),
            GatewayEvent::Refused {
                remote,
                principal,
                refusal,
            } => refusals.log(Instant::now(), remote, principal.as_ref(), &refusal),
            GatewayEvent::Closed { session, reason } => info!(
                principal = %session.identity.principal,
                remote = %session.remote,
                reason,
                "session closed"
            ),
            GatewayEvent::LeasesChanged => leases_changed = true,
        }
        next = more.try_recv().ok();
    }
    if leases_changed
        && let Some(leases) = desk.leases().await
        && let Err(error) = state.save_leases(&leases)
    {
        warn!(%error, "the leases were not saved; a restart may change addresses");
    }
}

/// What the gateway changes on its host.
fn network(loaded: &Loaded, mtu: u16) -> Network {
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
        mtu,
        addresses: config.inside.addresses.clone(),
        routes,
        routing: Routing::All,
        unreachable: Vec::new(),
        forwarding: config.inside.forwarding,
        masquerade,
    }
}

fn host_failure(error: host::HostError) -> Failure {
    let hint = error.hint();
    Failure::environment(&error).with_hint(hint)
}

fn state_failure(error: StateError) -> Failure {
    let hint = match &error {
        StateError::File(error) => error.hint(),
        StateError::Damaged { path, .. } => Some(format!(
            "delete {} to start with none of it; addresses and keys are made anew",
            path.display()
        )),
        StateError::Random => None,
    };
    Failure::environment(&error).with_hint(hint)
}

/// Strangers must not be able to fill the disk.
const REFUSALS_PER_SECOND: u32 = 5;
const REFUSAL_BURST: u32 = 50;

/// Queues of the TUN device for each engine. A program on the gateway's own host can flood a session faster than it is
/// served; it fills the queue of that session, which one in eight others shares.
const QUEUES: u8 = 8;
