//! Links, addresses, routes and sysctls of a namespace, by netlink.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, anyhow};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use super::Namespace;

impl Namespace {
    /// Runs a few netlink requests inside the namespace.
    pub fn netlink<T: Send>(
        &self,
        work: impl AsyncFnOnce(&Handle) -> Result<T, rtnetlink::Error> + Send,
    ) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                work(&handle).await.map_err(|error| anyhow!("{error}"))
            })
        })
        .with_context(|| format!("netlink in {}", self.name()))
    }

    /// Joins two namespaces by a cable: a veth pair, both ends up.
    pub fn connect(
        &self,
        interface: &str,
        other: &Self,
        other_interface: &str,
        mtu: u32,
    ) -> Result<()> {
        let fd = other.raw_fd();
        self.netlink(async |handle| {
            // The far end is born where it belongs, so names cannot collide on the way.
            let peer = LinkMessageBuilder::<LinkUnspec>::new()
                .name(other_interface)
                .setns_by_fd(fd)
                .build();
            let cable = LinkVeth::new(interface, other_interface)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
            handle.link().add(cable.build()).execute().await
        })
        .with_context(|| format!("cannot connect {} to {}", self.name(), other.name()))?;
        for (namespace, interface) in [(self, interface), (other, other_interface)] {
            namespace.set_mtu(interface, mtu)?;
            namespace.up(interface)?;
        }
        Ok(())
    }

    /// Brings an interface up.
    pub fn up(&self, interface: &str) -> Result<()> {
        let message = LinkUnspec::new_with_name(interface).up().build();
        self.netlink(async |handle| handle.link().set(message).execute().await)
    }

    /// Takes an interface down: the cable is pulled.
    pub fn down(&self, interface: &str) -> Result<()> {
        let message = LinkUnspec::new_with_name(interface).down().build();
        self.netlink(async |handle| handle.link().set(message).execute().await)
    }

    /// Sets an interface's MTU.
    pub fn set_mtu(&self, interface: &str, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_name(interface).mtu(mtu).build();
        self.netlink(async |handle| handle.link().set(message).execute().await)
            .with_context(|| format!("cannot give {interface} the MTU {mtu}"))
    }

    /// Adds an address with its prefix; it can be used at once (no duplicate address detection).
    pub fn add_address(&self, interface: &str, address: IpNet) -> Result<()> {
        let index = self.index(interface)?;
        self.netlink(async |handle| {
            let mut request = handle
                .address()
                .add(index, address.addr(), address.prefix_len());
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            request.execute().await
        })
        .with_context(|| format!("cannot add {address} to {interface}"))
    }

    /// Takes an address away.
    pub fn remove_address(&self, interface: &str, address: IpNet) -> Result<()> {
        let index = self.index(interface)?;
        let message = match address.addr() {
            IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(index)
                .address(v4, address.prefix_len())
                .build(),
            IpAddr::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(v6, address.prefix_len())
                .build(),
        };
        self.netlink(async |handle| handle.address().del(message).execute().await)
            .with_context(|| format!("cannot take {address} from {interface}"))
    }

    /// Adds a route by way of a neighbour.
    pub fn add_route(&self, destination: IpNet, via: IpAddr) -> Result<()> {
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.addr(), destination.prefix_len())
            .and_then(|builder| builder.gateway(via))
            .map_err(|error| anyhow!("{error}"))?
            .build();
        self.netlink(async |handle| handle.route().add(message).execute().await)
            .with_context(|| format!("cannot route {destination} via {via}"))
    }

    /// Sends a prefix into an interface that has no neighbours, such as a TUN device.
    pub fn add_device_route(&self, destination: IpNet, interface: &str) -> Result<()> {
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.addr(), destination.prefix_len())
            .map_err(|error| anyhow!("{error}"))?
            .output_interface(self.index(interface)?)
            .build();
        self.netlink(async |handle| handle.route().add(message).execute().await)
            .with_context(|| format!("cannot route {destination} into {interface}"))
    }

    /// Makes the namespace a router for both families.
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Writes a sysctl of the namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| fs::write(format!("/proc/sys/{key}"), value))
            .with_context(|| format!("cannot set {key} in {}", self.name()))
    }

    /// The names of all interfaces.
    pub fn interfaces(&self) -> Result<Vec<String>> {
        let text = self.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        Ok(text
            .lines()
            .skip(2)
            .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
            .collect())
    }

    fn index(&self, interface: &str) -> Result<u32> {
        let name = interface.to_owned();
        self.netlink(async |handle| {
            let links: Vec<_> = handle
                .link()
                .get()
                .match_name(name)
                .execute()
                .try_collect()
                .await?;
            Ok(links.first().map(|link| link.header.index))
        })?
        .with_context(|| format!("{} has no interface {interface}", self.name()))
    }
}
