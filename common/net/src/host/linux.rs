//! Changing a Linux host, with a way back.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Connected, Family, HostError, Network, Routing};
use crate::files;

mod change;
mod journal;
mod masquerade;
mod moving;
mod netlink;
mod sysctl;

use change::Change;
use journal::{Entry, Journal};
use netlink::Netlink;

/// The host as one tunnel has changed it. Dropping it undoes the changes.
///
/// All methods run within a tokio runtime; a current-thread one is enough. They are for the network namespace
/// of the thread that opened the value.
#[derive(Debug)]
pub struct Host {
    netlink: Netlink,
    state_directory: PathBuf,
    interface: String,
    journal: Journal,
    /// What was made, in that order.
    made: Vec<Entry>,
    /// Whether dropping undoes: not while undoing is all that is done, which would never end where it fails.
    armed: bool,
}

impl Host {
    /// Prepares for changes for the TUN device `interface`, and undoes what an earlier run left behind.
    ///
    /// The device need not exist yet. The journal is kept in `state_directory`, which is made if missing.
    pub async fn open(state_directory: &Path, interface: &str) -> Result<Self, HostError> {
        files::create_state_directory(state_directory)?;
        Journal::new(state_directory, interface).mend()?;
        let mut host = Self::load(state_directory, interface)?;
        if !host.made.is_empty() {
            let changes = host.made.len();
            tracing::warn!(
                interface,
                changes,
                "an earlier run did not clean up; undoing its changes"
            );
        }
        host.undo().await?;
        if let Err(error) = Self::undo_the_dead(state_directory, interface).await {
            tracing::warn!(%error, "what another run left behind stays");
        }
        host.armed = true;
        Ok(host)
    }

    /// A netlink connection lives in the runtime it was made in; the one of this call may be another.
    fn reconnect(&mut self) -> Result<(), HostError> {
        self.netlink = connect()?;
        Ok(())
    }

    fn load(state_directory: &Path, interface: &str) -> Result<Self, HostError> {
        let mut journal = Journal::new(state_directory, interface);
        Ok(Self {
            netlink: connect()?,
            state_directory: state_directory.into(),
            interface: interface.into(),
            made: journal.read()?,
            journal,
            armed: false,
        })
    }

    /// Makes the host look like `network`, from whatever was applied before.
    ///
    /// After an error the host is somewhere in between; [`undo`](Self::undo) or another call leads out.
    pub async fn apply(&mut self, network: &Network) -> Result<(), HostError> {
        self.reconnect()?;
        let index = index_of(&self.netlink, &self.interface).await?;
        let wanted = self.wanted(network, index).await?;
        let mut added = Vec::new();
        for change in wanted.iter().filter(|change| !self.has(change)) {
            let was = match change {
                Change::Sysctl { path, value } => match sysctl::read(path) {
                    Some(was) if was != *value => Some(was),
                    // Set already, by the administrator: not ours to take back. Or not in this kernel.
                    _ => continue,
                },
                _ => None,
            };
            added.push(Entry {
                change: change.clone(),
                was,
            });
        }
        // From here on an undo covers everything below, whether it was reached or not.
        self.made.extend(added.iter().cloned());
        self.journal.write(&self.made)?;
        for entry in &added {
            if let Err(error) = self.make(&entry.change, index).await {
                if matches!(entry.change, Change::Masquerade { .. }) {
                    // One transaction: nothing of it was made, and undoing would fail for the same reason.
                    self.made.retain(|made| made != entry);
                }
                return Err(error);
            }
        }
        let (kept, removed) = std::mem::take(&mut self.made)
            .into_iter()
            .partition(|entry| wanted.contains(&entry.change));
        self.made = kept;
        let removed: Vec<Entry> = removed;
        for entry in removed.iter().rev() {
            if !is_replaced(&entry.change, &wanted)
                && let Err(error) = self.unmake(entry, Some(index)).await
            {
                self.made.extend(removed.iter().cloned());
                return Err(error);
            }
        }
        let address = |entry: &Entry| matches!(entry.change, Change::Address { .. });
        if removed.iter().any(address) {
            self.restore(index).await?;
        }
        self.journal.write(&self.made)
    }

    /// Makes addresses and routes again that went with a removed address: the kernel drops its neighbours in
    /// the same subnet, and the routes of a device without any address.
    async fn restore(&self, index: u32) -> Result<(), HostError> {
        let present = self.netlink.addresses().await;
        let present = present.map_err(refused("list the addresses"))?;
        for entry in &self.made {
            let made = match &entry.change {
                // Adding would replace it, and touch what nothing has happened to.
                Change::Address { prefix } if present.contains(&(index, *prefix)) => continue,
                Change::Address { prefix } => self.netlink.add_address(index, *prefix).await,
                Change::Route { table, prefix } => {
                    self.netlink.add_route(index, *table, *prefix).await
                }
                _ => continue,
            };
            let interface = &self.interface;
            unless_there(made).map_err(refused(format!("restore what {interface} had")))?;
        }
        Ok(())
    }

    /// Takes back everything [`apply`](Self::apply) made. Every change is tried; the first failure is returned,
    /// and what failed stays in the journal.
    pub async fn undo(&mut self) -> Result<(), HostError> {
        self.reconnect()?;
        let index = match index_of(&self.netlink, &self.interface).await {
            Ok(index) => Some(index),
            Err(HostError::NoInterface { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut left = Vec::new();
        let mut first = None;
        for entry in std::mem::take(&mut self.made).into_iter().rev() {
            if let Err(error) = self.unmake(&entry, index).await {
                tracing::warn!(%error, ?entry, "a change of the host could not be undone");
                first.get_or_insert(error);
                left.insert(0, entry);
            }
        }
        self.made = left;
        self.journal.write(&self.made)?;
        first.map_or(Ok(()), Err)
    }

    fn has(&self, change: &Change) -> bool {
        self.made.iter().any(|entry| entry.change == *change)
    }

    async fn wanted(&self, network: &Network, index: u32) -> Result<Vec<Change>, HostError> {
        let mut network = network.clone();
        if !sysctl::has_ipv6() {
            let v4 = |prefix: &ipnet::IpNet| Family::of(prefix) == Family::V4;
            if !network.addresses.iter().chain(&network.routes).all(v4) {
                tracing::warn!("IPv6 is disabled on this host; the tunnel carries IPv4 only");
            }
            network.addresses.retain(v4);
            network.routes.retain(v4);
            network.unreachable.retain(|family| *family == Family::V4);
        }
        let mut settings = Vec::new();
        if network.forwarding {
            settings.extend(self.forwarding().await?);
        }
        if network.routing != Routing::All {
            settings.extend(self.reverse_path(&mut network));
        }
        settings.extend(change::changes(&network, &self.interface, index));
        Ok(settings)
    }

    async fn forwarding(&self) -> Result<Vec<Change>, HostError> {
        let mut settings = vec![setting("net/ipv4/ip_forward", "1")];
        if sysctl::has_ipv6() {
            // A forwarding host ignores router announcements unless told otherwise, and would lose the default
            // route it has from them.
            let announced = self.netlink.announced_routes().await;
            let announced = announced.map_err(refused("list the routes"))?;
            for link in links(&self.netlink).await? {
                let path = format!("net/ipv6/conf/{}/accept_ra", link.name);
                let ours = self.has(&setting(&path, "2"));
                if announced.contains(&link.index)
                    && (ours || sysctl::read(&path).as_deref() == Some("1"))
                {
                    settings.push(setting(&path, "2"));
                }
            }
            settings.push(setting("net/ipv6/conf/all/forwarding", "1"));
        }
        Ok(settings)
    }

    /// The reverse path filter looks up the sender of an incoming packet without its mark, and so finds the
    /// tunnel for the gateway's own packets. Strict, it drops them when the route differs; loose, when there is
    /// none. Both keep a tunnel from coming up (RFC 3704 §2).
    fn reverse_path(&self, network: &mut Network) -> Vec<Change> {
        let mode = |interface: &str| sysctl::read(&format!("net/ipv4/conf/{interface}/rp_filter"));
        let all = mode("all");
        let interfaces = sysctl::interfaces_v4().unwrap_or_default();
        let any = |wanted: &str| {
            all.as_deref() == Some(wanted)
                || interfaces
                    .iter()
                    .any(|name| mode(name).as_deref() == Some(wanted))
        };
        let filtered = any("1") || any("2");
        if filtered && network.unreachable.contains(&Family::V4) {
            // Into the device, where it ends as well: this is a route in the filter's eyes.
            network.unreachable.retain(|family| *family != Family::V4);
            network.routes.push(change::everything(Family::V4));
        }
        let ours = setting("net/ipv4/conf/all/rp_filter", "2");
        if self.has(&ours) || (any("1") && all.as_deref() != Some("2")) {
            return vec![ours];
        }
        Vec::new()
    }

    async fn make(&self, change: &Change, index: u32) -> Result<(), HostError> {
        let kernel = &self.netlink;
        let interface = &self.interface;
        match change {
            Change::Sysctl { path, value } => sysctl::write(path, value),
            Change::Link { mtu } => self
                .set_link_up(index, *mtu)
                .await
                .map_err(refused(format!("set {interface} up with MTU {mtu}"))),
            Change::Address { prefix } => kernel
                .add_address(index, *prefix)
                .await
                .map_err(refused(format!("add the address {prefix} to {interface}"))),
            Change::Route { table, prefix } => match kernel.add_route(index, *table, *prefix).await
            {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Err(HostError::RouteTaken { prefix: *prefix })
                }
                other => other.map_err(refused(format!(
                    "add the route {prefix} through {interface}"
                ))),
            },
            Change::Unreachable { table, family } => {
                unless_there(kernel.add_unreachable(*table, *family).await)
                    .map_err(refused("add an unreachable default route"))
            }
            Change::Rule(rule) => unless_there(kernel.add_rule(rule).await)
                .map_err(refused(format!("add the routing rule {}", rule.priority))),
            Change::Masquerade { table, sources } => masquerade::make(table, interface, sources),
        }
    }

    /// A link-local address would bring router solicitations and its own source address into the tunnel.
    async fn set_link_up(&self, index: u32, mtu: u16) -> io::Result<()> {
        let forbidden = self.netlink.forbid_link_local(index).await.is_ok();
        self.netlink.set_link_up(index, mtu).await?;
        // Below an MTU of 1280 a device has no IPv6 to configure. When it grows, it gets it all at once.
        if !forbidden && sysctl::has_ipv6() && mtu >= MIN_IPV6_MTU {
            self.netlink.forbid_link_local(index).await?;
            for (of, address) in self.netlink.addresses().await? {
                if of == index && is_link_local(address.addr()) {
                    unless_gone(self.netlink.remove_address(index, address).await)?;
                }
            }
        }
        Ok(())
    }

    async fn unmake(&self, entry: &Entry, index: Option<u32>) -> Result<(), HostError> {
        let kernel = &self.netlink;
        match (&entry.change, index) {
            (Change::Sysctl { path, value }, _) => match (&entry.was, sysctl::read(path)) {
                // Whoever changed it since has the last word.
                (Some(was), Some(current)) if current == *value => sysctl::write(path, was),
                _ => Ok(()),
            },
            (Change::Unreachable { table, family }, _) => {
                unless_gone(kernel.remove_unreachable(*table, *family).await)
                    .map_err(refused("remove an unreachable default route"))
            }
            (Change::Rule(rule), _) => unless_gone(kernel.remove_rule(rule).await).map_err(
                refused(format!("remove the routing rule {}", rule.priority)),
            ),
            (Change::Masquerade { table, .. }, _) => match masquerade::remove(table) {
                // Without it the table was not made either, and no start must fail for that.
                Err(HostError::NoNft) => Ok(()),
                other => other,
            },
            (Change::Link { .. }, Some(index)) => unless_gone(kernel.set_link_down(index).await)
                .map_err(refused("set the interface down")),
            (Change::Address { prefix }, Some(index)) => {
                unless_gone(kernel.remove_address(index, *prefix).await)
                    .map_err(refused(format!("remove the address {prefix}")))
            }
            (Change::Route { table, prefix }, Some(index)) => {
                unless_gone(kernel.remove_route(index, *table, *prefix).await)
                    .map_err(refused(format!("remove the route {prefix}")))
            }
            // They went with the device.
            (Change::Link { .. } | Change::Address { .. } | Change::Route { .. }, None) => Ok(()),
        }
    }
}

/// The networks the host is part of through interfaces that are up; loopback and link-local excluded.
pub async fn connected() -> Result<Vec<Connected>, HostError> {
    let kernel = connect()?;
    let links = links(&kernel).await?;
    let addresses = kernel.addresses().await;
    let addresses = addresses.map_err(refused("list the addresses"))?;
    let mut connected = Vec::new();
    for (index, address) in addresses {
        let Some(link) = links.iter().find(|link| link.index == index) else {
            continue;
        };
        let network = Connected {
            prefix: address.trunc(),
            interface: link.name.clone(),
        };
        if link.up
            && !link.loopback
            && !is_link_local(address.addr())
            && !connected.contains(&network)
        {
            connected.push(network);
        }
    }
    Ok(connected)
}

/// The host's own name, as its owner chose it.
pub fn name() -> String {
    let host = rustix::system::uname();
    host.nodename().to_string_lossy().into_owned()
}

/// The largest MTU of the interfaces that are up, loopback excluded; Ethernet's on a host without any.
pub async fn largest_link_mtu() -> Result<u16, HostError> {
    let links = links(&connect()?).await?;
    let others = links.iter().filter(|link| link.up && !link.loopback);
    let largest = others
        .map(|link| u16::try_from(link.mtu).unwrap_or(u16::MAX))
        .max();
    Ok(largest.unwrap_or(ETHERNET_MTU))
}

/// The kernel's number of an interface.
pub async fn interface_index(name: &str) -> Result<u32, HostError> {
    index_of(&connect()?, name).await
}

async fn index_of(kernel: &Netlink, name: &str) -> Result<u32, HostError> {
    let links = links(kernel).await?;
    let link = links.iter().find(|link| link.name == name);
    link.map(|link| link.index)
        .ok_or_else(|| HostError::NoInterface { name: name.into() })
}

async fn links(kernel: &Netlink) -> Result<Vec<netlink::Link>, HostError> {
    let links = kernel.links().await;
    links.map_err(refused("list the interfaces"))
}

/// The interface through which a packet to `destination` leaves when it carries `mark`: what the kernel's rules
/// and routes say at this moment. `None` when it has no way out.
pub async fn route_to(destination: IpAddr, mark: Option<u32>) -> Result<Option<String>, HostError> {
    let kernel = connect()?;
    // The kernel's answer for "no route" and "unreachable" is an error of the request.
    let Ok(Some(index)) = kernel.lookup(destination, mark).await else {
        return Ok(None);
    };
    let links = links(&kernel).await?;
    let link = links.into_iter().find(|link| link.index == index);
    Ok(link.map(|link| link.name))
}

/// Whether new interfaces can have IPv6 addresses. [`Host::apply`] leaves IPv6 out where they cannot.
pub fn has_ipv6() -> bool {
    sysctl::has_ipv6()
}

impl Drop for Host {
    fn drop(&mut self) {
        if !self.armed || self.made.is_empty() {
            return;
        }
        let (directory, interface) = (self.state_directory.clone(), self.interface.clone());
        // Within a runtime nothing can be waited for; a thread of its own has another. It is in the same
        // network namespace, and knows from the journal what to do.
        let undo = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(refused("start a runtime"))?;
            runtime.block_on(async { Self::load(&directory, &interface)?.undo().await })
        });
        if let Ok(Err(error)) = undo.join() {
            tracing::error!(%error, "the changes of the host could not be undone");
        }
    }
}

/// Whether making one of the wanted changes has taken this one back: a device has one MTU, the packet filter one
/// table of a name.
fn is_replaced(change: &Change, wanted: &[Change]) -> bool {
    match change {
        Change::Link { .. } => true,
        Change::Masquerade { table, .. } => wanted
            .iter()
            .any(|other| matches!(other, Change::Masquerade { table: name, .. } if name == table)),
        _ => false,
    }
}

fn connect() -> Result<Netlink, HostError> {
    Netlink::connect().map_err(refused("open a netlink socket"))
}

fn setting(path: &str, value: &str) -> Change {
    Change::Sysctl {
        path: path.into(),
        value: value.into(),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn unless_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(
                    libc::ENOENT
                        | libc::ENXIO
                        | libc::ESRCH
                        | libc::ENODEV
                        | libc::EADDRNOTAVAIL
                        | libc::ENETDOWN
                )
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn refused(action: impl Into<String>) -> impl FnOnce(io::Error) -> HostError {
    let action = action.into();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied => HostError::Permission { action },
        _ => HostError::Refused { action, source },
    }
}

const ETHERNET_MTU: u16 = 1500;

/// RFC 8200 §5.
const MIN_IPV6_MTU: u16 = 1280;
