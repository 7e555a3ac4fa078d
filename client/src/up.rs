//! `adit up`: builds the client, keeps the tunnel up, and puts the host back at the end.
//!
//! Everything that can be refused is tried before the host is changed. What is changed on the host
//! is journalled first and undone on every way out, at the latest by the next start.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use adit_core::close::Refusal;
use adit_core::mtu;
use adit_core::plan::PlanOptions;
use adit_core::session::UserAgent;
use adit_core::session::certificate::Issued;
use adit_core::status::ClientStatus;
use adit_net::data_loop::DataLoop;
use adit_net::exit::{self, Failure};
use adit_net::host::HostError;
use adit_net::poll::{Poller, Waker};
use adit_net::signals::{Signal, Signals};
use adit_net::tun::Tun;
use adit_net::udp::{Udp, UdpOptions};
use adit_net::{clock, control_socket};
use adit_tunnel::tls::{self, Algorithms, GatewayVerifier, QuicClient, TlsError};
use adit_tunnel::{Client, ClientConfig, ClientEvent, EngineKeys, Limits};
use aws_lc_rs::rand;
use rustls::time_provider::DefaultTimeProvider;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::control::{self, Gone, Request};
use crate::network::{ClientNetwork, MARK};
use crate::pipeline::{Command, Pipeline};
use crate::profile::{HTTPS, Profile, authority};
use crate::renewal::{Ending, Watch};
use crate::resolve::resolve;
use crate::successor::Successor;

/// Brings the tunnel up and keeps it up until a signal, `adit down`, or a final refusal.
///
/// # Errors
/// When the profile is wrong, the environment does not allow it, or the gateway refuses for good.
pub fn up(path: &Path) -> Result<(), Failure> {
    let profile = Profile::load(path).map_err(|error| {
        let hint = error.hint();
        Failure::input(&error).with_hint(hint)
    })?;
    let tls = tls_config(&profile).map_err(|error| {
        Failure::input(&error)
            .while_doing(&path.display().to_string())
            .with_hint(Some(
                "certificate, key and ca must be what `adit-ca issue` wrote",
            ))
    })?;
    let watch = Watch::new(&profile)
        .map_err(|error| Failure::input(&error).while_doing(&path.display().to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(&error).while_doing("cannot start the runtime"))?;
    let result = runtime.block_on(run(profile, tls, watch));
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn run(profile: Profile, tls: Arc<QuicClient>, watch: Watch) -> Result<(), Failure> {
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
    let port = profile.gateways.first().map_or(HTTPS, |(_, port)| *port);
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
            authority: authority(&profile.server_name, port),
            user_agent: Some(user_agent()),
            tunnel_mtu,
        },
    );
    let mut ended = keep_up(&profile, watch, engine, udp, tun, &listener, &mut network).await;
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
    watch: Watch,
    engine: Client,
    udp: Udp,
    tun: Tun,
    listener: &control_socket::Listener,
    network: &mut ClientNetwork,
) -> Result<End, Failure> {
    let devices = |error: &std::io::Error| {
        Failure::environment(error).while_doing("the packet thread cannot use its devices")
    };
    let poller = Poller::new().map_err(|error| devices(&error))?;
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

    let mut signals = Signals::new().map_err(|error| devices(&error))?;
    let mut control = Control {
        profile,
        asker: &asker,
        network,
        last_error: None,
        ending: Ending::new(watch.card().clone()),
        watch,
        renewal_error: None,
        successor: Successor::new(profile),
    };
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            signal = signals.next() => match signal {
                Signal::Reload => control.look_for_renewal(),
                Signal::Stop(signal) => {
                    info!(signal, "stopping");
                    break Ok(End::Signal);
                }
            },
            _ = look.tick() => {
                control.look_around();
                control.ask_for_successor().await;
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
    watch: Watch,
    /// Why the last certificate that was found is not used.
    renewal_error: Option<String>,
    ending: Ending,
    /// The certificate that is to follow the present one.
    successor: Successor,
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
                ClientEvent::MovedOver { gateway, serial } => {
                    match serial {
                        Some(serial) => {
                            info!(%gateway, serial, "the session goes on with the renewed certificate");
                        }
                        None => info!(%gateway, "the session goes on over a new connection"),
                    }
                    self.renewal_error = None;
                    self.ending = Ending::new(self.watch.card().clone());
                }
                ClientEvent::Stayed { refusal, retry_in } => {
                    warn!(
                        reason = %refusal,
                        ?retry_in,
                        "the session did not move to a new connection and goes on as it was"
                    );
                    self.renewal_error = Some(refusal.to_string());
                }
                ClientEvent::Certificate(outcome) => self.succeed(&outcome),
                ClientEvent::GoingAway => info!("the gateway announced the end of the connection"),
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

    /// Looks at the clock and at the files.
    fn look_around(&mut self) {
        if self.watch.has_changed() {
            self.look_for_renewal();
        }
        if let Some(left) = self.ending.take(clock::unix_seconds()) {
            let profile = self.profile.path.display();
            warn!(
                serial = self.ending.serial(),
                "the session ends with its certificate in {left} s; a renewed one in {profile} is taken without a break"
            );
        }
    }

    /// Hands a renewed certificate to the engine, if there is one and nothing is wrong with it.
    fn look_for_renewal(&mut self) {
        match self.watch.look(clock::unix_seconds()) {
            Ok(Some(tls)) => {
                let certificate = tls.certificate();
                info!(
                    serial = certificate.serial,
                    "a renewed certificate was found"
                );
                self.renewal_error = None;
                self.asker.tell(Command::Renew(tls));
                self.successor
                    .follow(self.watch.leaf(), clock::unix_seconds());
            }
            Ok(None) => self.renewal_error = None,
            Err(error) => {
                let text = exit::chain(&error);
                if self.renewal_error.as_ref() != Some(&text) {
                    warn!(
                        error = text,
                        "the changed profile is not used; the session goes on as it was"
                    );
                }
                self.renewal_error = Some(text);
            }
        }
    }

    /// Asks the gateway for another certificate when the time has come.
    async fn ask_for_successor(&mut self) {
        let Some(request) = self.successor.request(clock::unix_seconds()) else {
            return;
        };
        let (reply, answer) = oneshot::channel();
        self.asker.tell(Command::AskCertificate { request, reply });
        if answer.await == Ok(true) {
            self.successor.asked(clock::unix_seconds());
        }
    }

    /// Takes over what the gateway answered.
    fn succeed(&mut self, outcome: &Result<Issued, Refusal>) {
        if self.successor.take(outcome, clock::unix_seconds()) {
            // It stands in the profile, and comes from there like any other.
            self.look_for_renewal();
        }
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
        status.renewal_error.clone_from(&self.renewal_error);
        status.now = clock::unix_seconds();
        status
    }
}

/// TLS with a profile's certificate, for the gateway it believes.
///
/// # Errors
/// When certificate, key and authority do not fit together.
pub fn tls_config(profile: &Profile) -> Result<Arc<QuicClient>, TlsError> {
    let algorithms = Algorithms::for_this_cpu();
    let provider = Arc::new(algorithms.provider());
    let verifier = GatewayVerifier::new(profile.anchors.clone(), &provider)?;
    tls::client_config(
        algorithms,
        profile.credentials.clone(),
        verifier,
        Arc::new(DefaultTimeProvider),
    )
}

/// This program on this host: the gateway's operator sees on which device a certificate is used.
pub(crate) fn user_agent() -> UserAgent {
    let host = adit_net::host::name();
    UserAgent::of_host(env!("CARGO_PKG_VERSION"), std::env::consts::OS, &host)
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
/// How soon a renewed certificate is found: a `stat` of the profile and of the files it names each time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Under the shortest timeout of a NAT's UDP mapping in the field, and a third of the idle timeout.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
