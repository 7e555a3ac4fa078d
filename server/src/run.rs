//! `adit-server run`: builds the gateway, starts it, and takes it down in the reverse order.
//!
//! Everything that can be refused is tried before the host is changed. What is changed on the host
//! is journalled first and undone on every way out, at the latest by the next start.

use std::path::Path;
use std::time::{Duration, Instant};

use adit_core::admission::Admission;
use adit_net::exit::Failure;
use adit_net::host::Host;
use adit_net::tun::Tun;
use adit_net::udp::{Steering, Udp, UdpOptions};
use adit_net::{clock, control_socket, host, signals};
use adit_tunnel::tls::Algorithms;
use adit_tunnel::{
    ENGINE_AT, EngineKeys, Epoch, Gateway, GatewayConfig, LONG_HEADER, Reception, ReceptionConfig,
    Renewal,
};
use tokio::sync::mpsc::unbounded_channel;
use tracing::{info, warn};

use crate::accounting::Accounting;
use crate::audit::{Audit, Event};
use crate::certificates::{Certificates, Reminders};
use crate::control::{Control, RefusalLog};
use crate::conversations::Conversations;
use crate::desk;
use crate::engines;
use crate::lease_store;
use crate::lists::{self, Ages, Watch};
use crate::load::{self, LoadError, Loaded};
use crate::network::Machine;
use crate::reload;
use crate::resigning::Resigning;
use crate::state::{self, State};

/// Runs the gateway until a signal ends it, with so many engines; 0 leaves their number to the machine.
///
/// # Errors
/// When the configuration is wrong or the environment does not allow it; the host is as before.
pub fn run(path: &Path, engines: u8) -> Result<(), Failure> {
    let loaded = load::load(path)?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    for line in lists::facts(&loaded.authorities) {
        info!("{line}");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(&error).while_doing("cannot start the runtime"))?
        .block_on(serve(path, loaded, engines))
}

async fn serve(path: &Path, loaded: Loaded, engines: u8) -> Result<(), Failure> {
    let config = &loaded.config;
    // First: whoever has it is the one gateway that uses the state.
    let admin = control_socket::Listener::bind(&config.admin_socket)
        .map_err(|error| Failure::environment(&error).with_hint(error.hint()))?;
    let state = State::open(&config.state_directory)?;
    for repair in state.mend()? {
        warn!("{repair}");
    }
    let keys = state.keys()?;
    let leases = state.leases()?;
    let accounting = Accounting::open(&state)?;
    let newest = state.newest_lists()?;
    newest.refuse_older(&loaded.authorities).map_err(|error| {
        Failure::input(&error).with_hint(Some(format!(
            "bring the newest list, or sign a fresh one with `adit-ca crl`; \
             if the authority itself was set back, delete {}",
            state.newest_lists_path().display()
        )))
    })?;
    let certificates = Certificates::open(&state)
        .map_err(|error| Failure::environment(&error).while_doing("cannot keep an inventory"))?;
    let audit = Audit::open(&config.audit_log).map_err(LoadError::from)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = engines::number(engines, cores);
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
    let machine = Machine { link_mtu };
    let mtu = machine.tunnel_mtu(config);
    let queues = Tun::open_several(&config.inside.interface, mtu, count, QUEUES)
        .map_err(|error| Failure::environment(&error).with_hint(error.hint()))?;

    let epoch = epoch();
    let Renewal {
        tls,
        authorities,
        policy,
        inside,
        limits,
        tunnel_mtu,
        second_connection,
    } = reload::renewal(&machine, &loaded);
    let mut admission = Admission::new(policy, &inside.all());
    admission.restore(leases);
    let leases = admission.leases().entries(clock::unix_seconds());
    let reception = Reception::new(ReceptionConfig {
        keys: EngineKeys {
            cid_key: keys.cid,
            reset_key: keys.reset,
            seed: state::random()?,
        },
        limits,
        engines: count,
        tls,
        authorities,
        admission,
        tunnel_mtu,
        second_connection,
        epoch,
    });
    let gateway = |engine| {
        Gateway::new(GatewayConfig {
            engine,
            engines: count,
            inside,
            epoch,
        })
    };

    host.apply(&machine.network(&loaded))
        .await
        .map_err(host_failure)?;
    info!(
        listen = %sockets[0].local_address(),
        engines = count,
        interface = config.inside.interface,
        mtu,
        record_cipher = %Algorithms::for_this_cpu(),
        "the gateway is ready"
    );
    let parts: Vec<Part> = (0..count)
        .map(gateway)
        .zip(sockets)
        .zip(queues)
        .map(|((engine, udp), tun)| (engine, udp, tun))
        .collect();
    let (engines, threads) =
        engines::prepare(parts.into_iter()).map_err(|error| devices(&error))?;
    let (desk, notes) = desk::desk();
    let (lease_store, jobs) = lease_store::lease_store();
    let (decided, decisions) = unbounded_channel();
    let (conversations, heard) = Conversations::open();
    let mut control = Control {
        path,
        loaded,
        machine,
        host: &mut host,
        state,
        keys,
        admin,
        conversations,
        heard,
        engines,
        desk,
        audit,
        accounting,
        certificates,
        leases,
        lease_store,
        decided,
        decisions,
        refusals: RefusalLog::new(Instant::now()),
        newest,
        watch: Watch::default(),
        ages: Ages::default(),
        resigning: Resigning::default(),
        reminders: Reminders::default(),
    };
    let ends = Ends { notes, jobs };
    let served = work(reception, ends, threads, &mut control).await;
    let undone = host.undo().await.map_err(host_failure);
    served.and(undone)
}

/// This moment by both clocks; a calendar that counts whole seconds would be late by part of one.
fn epoch() -> Epoch {
    let milliseconds = clock::unix_milliseconds();
    let part = Duration::from_millis(milliseconds.rem_euclid(1000).unsigned_abs());
    let now = Instant::now();
    let begun = now.checked_sub(part).unwrap_or(now);
    Epoch::new(begun, milliseconds.div_euclid(1000))
}

/// An engine with its socket and its TUN queue.
type Part = (Gateway, Udp, Tun);

/// What the front desk and the lease store hear.
struct Ends {
    notes: desk::Inbox,
    jobs: lease_store::Jobs,
}

/// Runs the packet threads, the front desk and the lease store, and serves the control plane until one of them ends.
async fn work(
    reception: Reception,
    ends: Ends,
    threads: Vec<engines::Prepared>,
    control: &mut Control<'_>,
) -> Result<(), Failure> {
    let (outbox, mut events) = unbounded_channel();
    let (ended, mut end) = unbounded_channel();
    let (engines, desk) = (control.engines.clone(), control.desk.clone());
    let leases = control.lease_store.clone();
    let socket = engines::sender(&threads).map_err(|error| devices(&error))?;
    let store = lease_store::start(
        ends.jobs,
        control.state.clone(),
        control.leases.clone(),
        desk.clone(),
    )
    .map_err(|error| devices(&error))?;
    let front = desk::start(
        reception,
        ends.notes,
        socket,
        engines.clone(),
        leases.clone(),
        outbox.clone(),
    )
    .map_err(|error| devices(&error))?;
    let threads = engines::start(threads, &engines, &outbox, &desk, &ended)
        .map_err(|error| devices(&error))?;
    // From here on this is the control thread. When many come at once it has as much to write down as the engines to do.
    adit_net::priority::yield_to_packets();

    let mut signals = signals::Signals::new().map_err(|error| devices(&error))?;
    control.audit.write(&Event::Start {
        version: env!("CARGO_PKG_VERSION"),
        listen: control.loaded.config.listen,
    });
    control.remember_lists();
    let outcome = control.serve(&mut signals, &mut events, end.recv()).await;
    // A thread may have ended by itself; then nobody takes the command.
    desk.close();
    let _ = front.join();
    leases.close();
    let _ = store.join();
    engines.shutdown();
    for thread in threads {
        let _ = thread.join();
    }
    control.finish(&mut events);
    match outcome.flatten() {
        Some(Err(error)) => Err(devices(&error)),
        Some(Ok(())) | None => Ok(()),
    }
}

fn devices(error: &std::io::Error) -> Failure {
    Failure::environment(error).while_doing("the packet thread cannot use its devices")
}

fn host_failure(error: host::HostError) -> Failure {
    let hint = error.hint();
    Failure::environment(&error).with_hint(hint)
}

/// Queues of the TUN device for each engine. A program on the gateway's own host can flood a session faster than it is
/// served; it fills the queue of that session, which one in eight others shares.
const QUEUES: u8 = 8;
