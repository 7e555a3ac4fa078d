//! `adit up`: builds the client, keeps the tunnel up, and puts the host back at the end.
//!
//! Everything that can be refused is tried before the host is changed. What is changed on the host
//! is journalled first and undone on every way out, at the latest by the next start.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use adit_core::identity::{self, AuthorityRule, GroupSource, PrincipalSource};
use adit_core::mtu;
use adit_core::plan::PlanOptions;
use adit_core::status::ClientStatus;
use adit_net::data_loop::DataLoop;
use adit_net::exit::Failure;
use adit_net::host::HostError;
use adit_net::poll::{Poller, Waker};
use adit_net::tun::Tun;
use adit_net::udp::{Udp, UdpOptions};
use adit_net::{control_socket, signals};
use adit_tunnel::tls::{self, Algorithms, GatewayVerifier, QuicClient, TlsError};
use adit_tunnel::{Client, ClientConfig, ClientEvent, EngineKeys, Limits};
use aws_lc_rs::rand;
use rustls::time_provider::DefaultTimeProvider;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::control::{self, Gone, Request};
use crate::network::{ClientNetwork, MARK};
use crate::pipeline::{Command, Pipeline};
use crate::profile::Profile;
use crate::resolve::resolve;

/// Brings the tunnel up and keeps it up until a signal, `adit down`, or a final refusal.
///
/// # Errors
/// When the profile is wrong, the environment does not allow it, or the gateway refuses for good.
pub fn up(path: &Path) -> Result<(), Failure> {
    let profile = Profile::load(path).map_err(|error| {
        let hint = error.hint();
        Failure::input(&error).with_hint(hint)
    })?;
    let tls = tls_config(&profile)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(&error).while_doing("cannot start the runtime"))?;
    let result = runtime.block_on(run(profile, tls));
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn run(profile: Profile, tls: Arc<QuicClient>) -> Result<(), Failure> {
    let listener = control_socket::Listener::bind(&control::socket(&profile.interface))
        .map_err(|error| Failure::environment(&error).with_hint(error.hint()))?;
    let options = UdpOptions {
        mark: Some(MARK),
        ..UdpOptions::default()
    };
    let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0));
    let udp = Udp::bind(any, &options)
        .map_err(|error| Failure::environment(&error).with_hint(error.hint()))?;
    let addresses = resolve(&profile.gateways).await;
    let link_mtu = addresses
        .first()
        .and_then(|gateway| udp.path_mtu(*gateway))
        .unwrap_or(ETHERNET);
    let tunnel_mtu = profile.mtu.unwrap_or_else(|| mtu::tunnel_mtu(link_mtu));
    let plan = PlanOptions {
        full_tunnel: profile.full_tunnel,
    };
    let state = control::state_directory();
    // Leftovers of a client that was killed are undone here, before anything is made.
    let mut network = ClientNetwork::open(&state, &profile.interface, tunnel_mtu, plan)
        .await
        .map_err(|error| host_failure(&error))?;
    let tun = Tun::open(&profile.interface, tunnel_mtu)
        .map_err(|error| Failure::environment(&error).with_hint(error.hint()))?;
    let mut seed = [0; 32];
    rand::fill(&mut seed).map_err(|_| Failure::no("the kernel gives no random bytes"))?;
    let engine = Client::new(
        Instant::now(),
        ClientConfig {
            keys: EngineKeys {
                cid_key: seed,
                reset_key: seed,
                seed,
            },
            limits: Limits {
                max_udp_payload: largest_payload(link_mtu),
                idle_timeout: IDLE_TIMEOUT,
                keep_alive: Some(KEEP_ALIVE),
            },
            tls,
            server_name: profile.server_name.clone(),
            authority: authority(&profile),
            tunnel_mtu,
        },
    );
    let mut ended = keep_up(&profile, engine, udp, tun, &listener, &mut network).await;
    let undone = network.undo().await;
    if let Ok(End::Down(connection)) = &mut ended {
        let error = undone.as_ref().err().map(ToString::to_string);
        // Who asked may have gone; the exit status tells the same.
        let _ = connection.send(&Gone { error }).await;
    }
    ended?;
    undone.map_err(|error| host_failure(&error))
}

/// How the tunnel ended without a failure.
enum End {
    Signal,
    /// Somebody waits for the answer that the host is as before.
    Down(control_socket::Connection),
}

/// Runs the packet thread and the control plane until one of them ends.
async fn keep_up(
    profile: &Profile,
    engine: Client,
    udp: Udp,
    tun: Tun,
    listener: &control_socket::Listener,
    network: &mut ClientNetwork,
) -> Result<End, Failure> {
    let devices = |error: &std::io::Error| {
        Failure::environment(error).while_doing("the packet thread cannot use its devices")
    };
    let poller = Poller::new(&udp, &tun).map_err(|error| devices(&error))?;
    let (commands, inbox) = mpsc::channel();
    let asker = Asker {
        commands,
        waker: poller.waker(),
    };
    let (outbox, mut events) = unbounded_channel();
    let (ended, mut end) = oneshot::channel();
    let mut pipeline = Pipeline::new(engine, inbox, outbox);
    let thread = std::thread::Builder::new()
        .name("packets".to_owned())
        .spawn(move || {
            let result = DataLoop::new(udp, tun, poller).run(&mut pipeline);
            // The receiver is gone only when the process ends anyway.
            let _ = ended.send(result);
        })
        .map_err(|error| devices(&error))?;
    // The engine asked for addresses before anybody listened; its loop learns by the first wake.
    asker.waker.wake();

    let mut signals = signals::Signals::new().map_err(|error| devices(&error))?;
    let mut control = Control {
        profile,
        asker: &asker,
        network,
        last_error: None,
    };
    let outcome = loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    if let Err(failure) = control.handle_events(event, &mut events).await {
                        break Err(failure);
                    }
                }
                None => break Ok(End::Signal),
            },
            accepted = listener.accept() => match accepted {
                Ok(connection) => {
                    if let Some(end) = control.answer(connection).await {
                        break Ok(end);
                    }
                }
                Err(error) => warn!(%error, "a control connection failed"),
            },
            signal = signals.stop() => {
                info!(signal, "stopping");
                break Ok(End::Signal);
            }
            result = &mut end => {
                break match result {
                    Ok(Err(error)) => Err(devices(&error)),
                    Ok(Ok(())) | Err(_) => Ok(End::Signal),
                };
            }
        }
    };
    // The thread may have ended by itself; then nobody takes the command.
    asker.tell(Command::Shutdown);
    let _ = thread.join();
    outcome
}

/// The control plane's way to ask the packet thread.
#[derive(Clone)]
struct Asker {
    commands: mpsc::Sender<Command>,
    waker: Waker,
}

impl Asker {
    fn tell(&self, command: Command) {
        // It fails when the packet thread has ended, which is noticed elsewhere.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

/// What the control plane knows while the tunnel is kept up.
struct Control<'a> {
    profile: &'a Profile,
    asker: &'a Asker,
    network: &'a mut ClientNetwork,
    last_error: Option<String>,
}

impl Control<'_> {
    /// Follows the engine; of several assignments that wait only the last is applied.
    async fn handle_events(
        &mut self,
        first: ClientEvent,
        more: &mut UnboundedReceiver<ClientEvent>,
    ) -> Result<(), Failure> {
        let mut assignment = None;
        let mut next = Some(first);
        while let Some(event) = next {
            match event {
                ClientEvent::NeedAddresses => {
                    // Beside everything else: a resolver can take long to say nothing.
                    let (asker, names) = (self.asker.clone(), self.profile.gateways.clone());
                    tokio::spawn(async move {
                        asker.tell(Command::Gateways(resolve(&names).await));
                    });
                }
                ClientEvent::Dialing(gateway) => info!(%gateway, "connecting"),
                ClientEvent::Connected(gateway) => {
                    info!(%gateway, "connected");
                    self.last_error = None;
                }
                ClientEvent::Assigned(assigned) => assignment = Some(assigned),
                ClientEvent::Lost { refusal, retry_in } => {
                    warn!(reason = %refusal, ?retry_in, "no tunnel");
                    self.last_error = Some(refusal.to_string());
                }
                ClientEvent::GoingAway => info!("the gateway is about to stop"),
                ClientEvent::Stopped(refusal) => {
                    return Err(
                        Failure::no(refusal.to_string()).with_hint(Some(refusal.kind.hint()))
                    );
                }
            }
            next = more.try_recv().ok();
        }
        if let Some(assignment) = assignment {
            self.network
                .follow(&assignment)
                .await
                .map_err(|error| host_failure(&error))?;
        }
        Ok(())
    }

    /// Answers one request; `Some` when it ends the tunnel.
    async fn answer(&mut self, mut connection: control_socket::Connection) -> Option<End> {
        match connection.receive().await {
            Ok(Request::Status {}) => {
                let status = self.status().await;
                if let Err(error) = connection.send(&status).await {
                    warn!(%error, "a status request was not answered");
                }
                None
            }
            Ok(Request::Down {}) => Some(End::Down(connection)),
            Err(error) => {
                warn!(%error, "a control request was not understood");
                None
            }
        }
    }

    async fn status(&self) -> ClientStatus {
        let (reply, answer) = oneshot::channel();
        self.asker.tell(Command::Status(reply));
        let mut status = answer.await.unwrap_or_default();
        status.interface = self.profile.interface.clone();
        status.last_error.clone_from(&self.last_error);
        let routes = &self.network.plan().routes;
        status.routes = routes.iter().map(ToString::to_string).collect();
        status.certificate_not_after = not_after(self.profile);
        status
    }
}

fn tls_config(profile: &Profile) -> Result<Arc<QuicClient>, Failure> {
    let wrong = |error: &TlsError| {
        Failure::input(error)
            .while_doing(&profile.path.display().to_string())
            .with_hint(Some(
                "certificate, key and ca must be what `adit-ca issue` wrote",
            ))
    };
    let algorithms = Algorithms::for_this_cpu();
    let provider = Arc::new(algorithms.provider());
    let verifier =
        GatewayVerifier::new(profile.anchors.clone(), &provider).map_err(|error| wrong(&error))?;
    tls::client_config(
        algorithms,
        profile.credentials.clone(),
        verifier,
        Arc::new(DefaultTimeProvider),
    )
    .map_err(|error| wrong(&error))
}

/// When the client's own certificate ends; the rule for names does not matter for that.
fn not_after(profile: &Profile) -> Option<i64> {
    let rule = AuthorityRule {
        name: String::new(),
        principal: vec![PrincipalSource::Email, PrincipalSource::Dns],
        groups: GroupSource::None,
    };
    let leaf = profile.credentials.chain.first()?;
    identity::extract(leaf, &rule)
        .ok()
        .map(|identity| identity.not_after)
}

/// `:authority` of the request: the port is left out when it is the default (RFC 9110 §4.2.2).
fn authority(profile: &Profile) -> String {
    let host = if profile.server_name.contains(':') {
        format!("[{}]", profile.server_name)
    } else {
        profile.server_name.clone()
    };
    match profile.gateways.first() {
        Some((_, port)) if *port != 443 => format!("{host}:{port}"),
        _ => host,
    }
}

/// What fits a packet of the link over IPv4; over IPv6 the last probe is 20 bytes too long and
/// costs nothing.
fn largest_payload(link_mtu: u16) -> u16 {
    u16::try_from(mtu::max_udp_payload(usize::from(link_mtu), false)).unwrap_or(u16::MAX)
}

fn host_failure(error: &HostError) -> Failure {
    Failure::environment(error).with_hint(error.hint())
}

/// The MTU of nearly every link, for a gateway that cannot be routed to yet.
const ETHERNET: u16 = 1500;
/// A gateway that is gone is noticed within this time, and another is dialled.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Under the shortest timeout of a NAT's UDP mapping in the field, and a third of the idle timeout.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
