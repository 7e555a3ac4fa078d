//! What a tunnel changes on its host: addresses, routes, rules, forwarding, masquerading.
//!
//! [`Host::apply`] makes the host look like a [`Network`]; applied again with another one it changes only what
//! differs. Whatever would outlive the TUN device is written to a journal in the state directory *before* it is
//! made. [`Host::undo`] takes everything back; dropping a [`Host`] does the same; after a `kill -9` the next
//! [`Host::open`] of that interface does it from the journal. Undoing twice is harmless.
//!
//! # Client routing
//!
//! The tunnel's own packets carry a firewall mark and must never enter the tunnel; all others go by the longest
//! prefix, over the host's own routes and the tunnel's together, where a tie goes to the tunnel. Two policy
//! rules say so for each prefix length L that the tunnel announces, the longest first:
//!
//! ```text
//! lookup main suppress_prefixlength L      # the host's routes longer than L win
//! not fwmark MARK lookup TABLE+L           # then the tunnel's routes of length L
//! ```
//!
//! For L = 0 alone this is the full tunnel as wg-quick does it. No route of the host is changed, so none has to
//! be restored when the network changes or the program dies.

use std::io;
use std::path::PathBuf;

use adit_core::plan::NetworkPlan;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::files::FileError;
use crate::record::Damage;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod unsupported;

#[cfg(target_os = "linux")]
pub use linux::{Host, connected, has_ipv6, interface_index, largest_link_mtu, name, route_to};
#[cfg(not(target_os = "linux"))]
pub use unsupported::{
    Host, connected, has_ipv6, interface_index, largest_link_mtu, name, route_to,
};

/// How the host shall look for one tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// The MTU of the TUN device.
    pub mtu: u16,
    /// The addresses of the TUN device. A prefix shorter than the address brings its connected route.
    pub addresses: Vec<IpNet>,
    /// What is routed into the TUN device.
    pub routes: Vec<IpNet>,
    /// Which packets the routes are for.
    pub routing: Routing,
    /// Families without any way out while the tunnel is up, so that nothing leaks around it. Only with
    /// [`Routing::Unmarked`].
    pub unreachable: Vec<Family>,
    /// Whether the host forwards packets between its interfaces.
    pub forwarding: bool,
    /// Sources whose packets leave through other interfaces with the host's own address (IP masquerading).
    pub masquerade: Vec<IpNet>,
}

impl Network {
    /// What a client's plan asks for, whose own packets carry `mark`.
    pub fn for_client(plan: &NetworkPlan, mtu: u16, mark: u32) -> Self {
        let blocked = [(plan.block_v4, Family::V4), (plan.block_v6, Family::V6)];
        Self {
            mtu,
            addresses: plan.addresses.clone(),
            routes: plan.routes.clone(),
            routing: Routing::Unmarked { mark },
            unreachable: blocked
                .into_iter()
                .filter_map(|(blocked, family)| blocked.then_some(family))
                .collect(),
            forwarding: false,
            masquerade: Vec::new(),
        }
    }

    /// What this one and `other` have, for the time in which one gives way to the other. What there can be only
    /// one of is the other's.
    #[must_use]
    pub fn together_with(&self, other: &Self) -> Self {
        fn union<T: Clone + PartialEq>(first: &[T], second: &[T]) -> Vec<T> {
            let more = second.iter().filter(|item| !first.contains(item));
            first.iter().chain(more).cloned().collect()
        }
        Self {
            mtu: other.mtu,
            addresses: union(&self.addresses, &other.addresses),
            routes: union(&self.routes, &other.routes),
            routing: other.routing,
            unreachable: union(&self.unreachable, &other.unreachable),
            forwarding: self.forwarding || other.forwarding,
            masquerade: union(&self.masquerade, &other.masquerade),
        }
    }
}

/// Which packets the routes of a [`Network`] are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// All: the routes are in the main table. For a gateway, whose peers are outside of its networks.
    #[default]
    All,
    /// All but those with this firewall mark. For a client; see the [module](self).
    Unmarked {
        /// The mark of the tunnel's own packets.
        mark: u32,
    },
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of a prefix.
    pub fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

/// A network the host is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Its prefix.
    pub prefix: IpNet,
    /// The interface.
    pub interface: String,
}

/// Why the host could not be changed, or not be changed back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// The process lacks the right to change the network.
    #[error("no permission to {action}")]
    Permission {
        /// What was tried.
        action: String,
    },
    /// There is no such interface.
    #[error("there is no interface {name}")]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// Another interface has the name.
    #[error("there is an interface {name} already")]
    InterfaceTaken {
        /// The name.
        name: String,
    },
    /// The kernel renames no device that is up.
    #[error("this kernel cannot rename {from} to {to} while it is up")]
    NoLiveRename {
        /// Its name.
        from: String,
        /// The name it should have.
        to: String,
    },
    /// Another interface has the route.
    #[error("the route {prefix} exists already, through another interface")]
    RouteTaken {
        /// The route.
        prefix: IpNet,
    },
    /// The kernel refused a change.
    #[error("cannot {action}")]
    Refused {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A kernel setting could not be read or written.
    #[error("cannot set {name} = {value}")]
    Sysctl {
        /// The setting, as `sysctl` names it.
        name: String,
        /// The wanted value.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no `nft`.
    #[error("masquerading needs the program nft, which is not installed")]
    NoNft,
    /// `nft` refused.
    #[error("nft refused the table {table}: {message}")]
    Nft {
        /// The table.
        table: String,
        /// Its first line of complaint.
        message: String,
    },
    /// The journal could not be read or written. Nothing was changed.
    #[error("the journal of changes failed")]
    Journal {
        /// What failed.
        #[from]
        source: FileError,
    },
    /// Another program's journal is there.
    #[error("{} holds what another program has changed on this host", path.display())]
    JournalTaken {
        /// The file.
        path: PathBuf,
    },
    /// The journal of another run is not what anybody wrote.
    #[error("{} is damaged", path.display())]
    JournalDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        damage: Damage,
    },
    /// There is no code for this system.
    #[error("changing the network is not supported on this operating system")]
    Unsupported,
}

impl HostError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Permission { .. } => Some("run as root, or grant CAP_NET_ADMIN".into()),
            Self::NoInterface { .. } => Some("`ip link` lists the interfaces".into()),
            Self::InterfaceTaken { .. } => {
                Some("choose another name; `ip link` lists the interfaces".into())
            }
            Self::NoLiveRename { .. } => Some(
                "Linux can from 6.2 on; here, put the old name back, or restart the program".into(),
            ),
            Self::JournalTaken { path } => Some(format!(
                "choose another directory or interface, or stop that program; one that was killed cleans up at its next start, which removes {}",
                path.display()
            )),
            Self::RouteTaken { prefix } => Some(format!(
                "`ip route show {prefix}` shows it; remove it, or take {prefix} out of the policy"
            )),
            Self::Sysctl { name, value, .. } => Some(format!(
                "set it before the start: sysctl -w {name}={value}, in a container from outside of it"
            )),
            Self::NoNft => {
                Some("install the package nftables, or masquerade by other means and set masquerade = false".into())
            }
            Self::Nft { .. } => Some("the kernel needs nf_tables with NAT (modules nf_tables, nft_masq)".into()),
            Self::Journal { source } => source.hint(),
            Self::JournalDamaged { path, .. } => Some(format!(
                "look for leftovers with `ip rule` and `nft list tables`, then delete {}",
                path.display()
            )),
            Self::Refused { .. } => None,
            Self::Unsupported => Some("Adit runs on Linux".into()),
        }
    }
}
