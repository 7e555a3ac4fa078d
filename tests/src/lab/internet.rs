//! The topology every whole-program test stands on; [`crate::lab`] has the picture.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;

use super::{Namespace, Snapshot, until};

/// How an [`Internet`] is to be built.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Number of laptops.
    pub laptops: u8,
    /// Whether the branch office exists.
    pub branch: bool,
    /// MTU between the routers in the middle: the outer path's MTU.
    pub path_mtu: u32,
    /// MTU of everything else, including the office network.
    pub link_mtu: u32,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            laptops: 1,
            branch: false,
            path_mtu: 1500,
            link_mtu: 1500,
        }
    }
}

/// A gateway with an office behind it, laptops elsewhere, and two routers between them.
#[derive(Debug)]
pub struct Internet {
    /// Where clients run.
    pub laptops: Vec<Namespace>,
    /// The clients' first router.
    pub near: Namespace,
    /// The gateway's router; relays run here.
    pub far: Namespace,
    /// Where `adit-server` runs.
    pub gateway: Namespace,
    /// The host behind the gateway.
    pub office: Namespace,
    /// A second site.
    pub branch: Option<Branch>,
}

/// A site with a router (an Adit client) and a host that knows nothing of Adit.
#[derive(Debug)]
pub struct Branch {
    /// Where the site's `adit` runs.
    pub router: Namespace,
    /// A host of the site's network.
    pub host: Namespace,
}

impl Internet {
    /// Builds it.
    pub fn new(layout: Layout) -> Result<Self> {
        let near = Namespace::new("near")?;
        let far = Namespace::new("far")?;
        let gateway = Namespace::new("gateway")?;
        let office = Namespace::new("office")?;
        near.forward()?;
        far.forward()?;

        near.connect("far", &far, "near", layout.path_mtu)?;
        far.connect("gateway", &gateway, "wan", layout.link_mtu)?;
        gateway.connect("lan", &office, "eth0", layout.link_mtu)?;
        addresses(&near, "far", ["192.0.2.1/24", "2001:db8:2::1/64"])?;
        addresses(&far, "near", ["192.0.2.2/24", "2001:db8:2::2/64"])?;
        addresses(&far, "gateway", ["203.0.113.254/24", "2001:db8:3::fe/64"])?;
        addresses(&gateway, "wan", ["203.0.113.1/24", "2001:db8:3::1/64"])?;
        addresses(&gateway, "lan", ["10.0.0.1/24", "fd00:1::1/64"])?;
        addresses(&office, "eth0", ["10.0.0.10/24", "fd00:1::10/64"])?;
        // On the loopback device, so that the office host never picks them by itself.
        addresses(&office, "lo", ["10.66.0.10/32", "fd00:66::10/128"])?;

        default_routes(&near, "192.0.2.2", "2001:db8:2::2")?;
        default_routes(&gateway, "203.0.113.254", "2001:db8:3::fe")?;
        default_routes(&office, "10.0.0.1", "fd00:1::1")?;
        // `far` knows both ends: what the gateway reaches through the office does not leak back into it.
        route(&far, "100.64.0.0/10", "192.0.2.1")?;
        route(&far, "2001:db8::/32", "2001:db8:2::1")?;
        route(&gateway, "10.66.0.0/24", "10.0.0.10")?;
        route(&gateway, "fd00:66::/64", "fd00:1::10")?;

        let mut laptops = Vec::new();
        for number in 0..layout.laptops {
            let laptop = Namespace::new(&format!("laptop{number}"))?;
            subscriber(&near, &laptop, number, layout.link_mtu)?;
            laptops.push(laptop);
        }
        let branch = if layout.branch {
            Some(branch(&near, layout.link_mtu)?)
        } else {
            None
        };
        // A snapshot taken earlier would count the kernel's own doings as somebody's.
        for host in laptops.iter().chain([&gateway]) {
            until(SETTLE, || {
                Ok(Snapshot::of(host)?.is_settled().then_some(()))
            })
            .with_context(|| format!("IPv6 of {} does not settle", host.name()))?;
        }
        Ok(Self {
            laptops,
            near,
            far,
            gateway,
            office,
            branch,
        })
    }

    /// The only laptop, or the first.
    pub fn laptop(&self) -> &Namespace {
        &self.laptops[0]
    }
}

/// The gateway's address on the internet.
pub const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// The gateway's IPv6 address on the internet.
pub const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1));
/// Where a relay in `far` listens.
pub const RELAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254)), 4433);
/// The office host.
pub const OFFICE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10));
/// The office host's IPv6 address.
pub const OFFICE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x10));
/// An address of the office host that the policy of the tests allows to nobody.
pub const PAYROLL_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 66, 0, 10));
/// Its IPv6 sibling.
pub const PAYROLL_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x66, 0, 0, 0, 0, 0, 0x10));
/// The branch's host.
pub const BRANCH_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 10));
/// The branch host's IPv6 address.
pub const BRANCH_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10));

fn branch(near: &Namespace, mtu: u32) -> Result<Branch> {
    let router = Namespace::new("branch")?;
    let host = Namespace::new("branch-host")?;
    router.forward()?;
    subscriber(near, &router, BRANCH_LINE, mtu)?;
    router.connect("lan", &host, "eth0", mtu)?;
    addresses(&router, "lan", ["10.20.0.1/24", "fd00:20::1/64"])?;
    addresses(&host, "eth0", ["10.20.0.10/24", "fd00:20::10/64"])?;
    default_routes(&host, "10.20.0.1", "fd00:20::1")?;
    Ok(Branch { router, host })
}

/// Gives `customer` a line to the internet with the addresses of its number.
fn subscriber(near: &Namespace, customer: &Namespace, number: u8, mtu: u32) -> Result<()> {
    let line = format!("line{number}");
    near.connect(&line, customer, "wan", mtu)?;
    let block = 0x100 + u16::from(number);
    addresses(
        near,
        &line,
        [
            &format!("100.64.{number}.1/24"),
            &format!("2001:db8:{block:x}::1/64"),
        ],
    )?;
    addresses(
        customer,
        "wan",
        [
            &format!("100.64.{number}.2/24"),
            &format!("2001:db8:{block:x}::2/64"),
        ],
    )?;
    default_routes(
        customer,
        &format!("100.64.{number}.1"),
        &format!("2001:db8:{block:x}::1"),
    )
}

fn addresses(namespace: &Namespace, interface: &str, both: [&str; 2]) -> Result<()> {
    for address in both {
        namespace.add_address(interface, address.parse()?)?;
    }
    Ok(())
}

fn default_routes(namespace: &Namespace, v4: &str, v6: &str) -> Result<()> {
    namespace.add_route(IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0)?, v4.parse()?)?;
    namespace.add_route(IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0)?, v6.parse()?)
}

fn route(namespace: &Namespace, to: &str, via: &str) -> Result<()> {
    namespace.add_route(to.parse()?, via.parse()?)
}

/// Far from the laptops' numbers, which count from zero.
const BRANCH_LINE: u8 = 200;

/// Carrier, link-local address and local routes take milliseconds on an idle machine.
const SETTLE: Duration = Duration::from_secs(10);
