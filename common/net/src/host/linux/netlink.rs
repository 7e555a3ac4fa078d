//! Requests to the kernel's routing tables (rtnetlink), each one message and one answer.

use std::io;
use std::net::IpAddr;

use futures_util::StreamExt as _;
use ipnet::IpNet;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::change::{self, Rule};
use crate::host::Family;

/// A connection to the kernel, for the network namespace of the thread that made it.
#[derive(Clone, Debug)]
pub(super) struct Netlink {
    handle: Handle,
}

/// A network interface.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) up: bool,
    pub(super) loopback: bool,
}

impl Netlink {
    /// Must be called within a tokio runtime, which drives the connection as long as the value lives.
    pub(super) fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(super) async fn set_link_up(&self, index: u32, mtu: u16) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        // Without multicast no neighbour and group chatter goes into the tunnel.
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up | LinkFlags::Multicast;
        message.attributes = vec![LinkAttribute::Mtu(mtu.into())];
        self.ask(Message::SetLink(message), 0).await
    }

    pub(super) async fn set_link_down(&self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        self.ask(Message::SetLink(message), 0).await
    }

    pub(super) async fn rename(&self, index: u32, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::IfName(name.into())];
        self.ask(Message::SetLink(message), 0).await
    }

    /// Keeps the kernel from giving the device a link-local address, when it comes up.
    pub(super) async fn forbid_link_local(&self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let family = AfSpecUnspec::Inet6(vec![mode]);
        message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![family])];
        self.ask(Message::SetLink(message), 0).await
    }

    pub(super) async fn add_address(&self, index: u32, prefix: IpNet) -> io::Result<()> {
        let message = Message::NewAddress(address(index, prefix));
        self.ask(message, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    pub(super) async fn remove_address(&self, index: u32, prefix: IpNet) -> io::Result<()> {
        self.ask(Message::DelAddress(address(index, prefix)), 0)
            .await
    }

    pub(super) async fn add_route(&self, index: u32, table: u32, prefix: IpNet) -> io::Result<()> {
        let message = Message::NewRoute(route(Some(index), table, prefix));
        self.ask(message, NLM_F_CREATE | NLM_F_EXCL).await
    }

    pub(super) async fn remove_route(
        &self,
        index: u32,
        table: u32,
        prefix: IpNet,
    ) -> io::Result<()> {
        self.ask(Message::DelRoute(route(Some(index), table, prefix)), 0)
            .await
    }

    pub(super) async fn add_unreachable(&self, table: u32, family: Family) -> io::Result<()> {
        let message = Message::NewRoute(route(None, table, change::everything(family)));
        self.ask(message, NLM_F_CREATE | NLM_F_EXCL).await
    }

    pub(super) async fn remove_unreachable(&self, table: u32, family: Family) -> io::Result<()> {
        let message = Message::DelRoute(route(None, table, change::everything(family)));
        self.ask(message, 0).await
    }

    pub(super) async fn add_rule(&self, rule: &Rule) -> io::Result<()> {
        let message = Message::NewRule(rule_message(rule));
        self.ask(message, NLM_F_CREATE | NLM_F_EXCL).await
    }

    pub(super) async fn remove_rule(&self, rule: &Rule) -> io::Result<()> {
        self.ask(Message::DelRule(rule_message(rule)), 0).await
    }

    pub(super) async fn links(&self) -> io::Result<Vec<Link>> {
        let answers = self.dump(Message::GetLink(LinkMessage::default())).await?;
        let mut links = Vec::new();
        for answer in answers {
            let Message::NewLink(message) = answer else {
                continue;
            };
            let mut link = Link {
                index: message.header.index,
                name: String::new(),
                mtu: 0,
                up: message.header.flags.contains(LinkFlags::Up),
                loopback: message.header.flags.contains(LinkFlags::Loopback),
            };
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                    _ => {}
                }
            }
            links.push(link);
        }
        Ok(links)
    }

    /// All addresses, as (interface index, address with prefix length).
    pub(super) async fn addresses(&self) -> io::Result<Vec<(u32, IpNet)>> {
        let answers = self
            .dump(Message::GetAddress(AddressMessage::default()))
            .await?;
        let mut addresses = Vec::new();
        for answer in answers {
            let Message::NewAddress(message) = answer else {
                continue;
            };
            // On a point-to-point link `Address` is the peer, whose prefix is the connected one.
            let address = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                });
            if let Some(Ok(prefix)) =
                address.map(|address| IpNet::new(address, message.header.prefix_len))
            {
                addresses.push((message.header.index, prefix));
            }
        }
        Ok(addresses)
    }

    /// Interfaces with a route that a router announced (RFC 4861 §6.3.4).
    pub(super) async fn announced_routes(&self) -> io::Result<Vec<u32>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        let mut indices = Vec::new();
        for answer in self.dump(Message::GetRoute(message)).await? {
            let Message::NewRoute(route) = answer else {
                continue;
            };
            if route.header.protocol == RouteProtocol::Ra {
                indices.extend(
                    route
                        .attributes
                        .iter()
                        .filter_map(|attribute| match attribute {
                            RouteAttribute::Oif(index) => Some(*index),
                            _ => None,
                        }),
                );
            }
        }
        indices.sort_unstable();
        indices.dedup();
        Ok(indices)
    }

    /// The interface a packet to `destination` with `mark` leaves through.
    pub(super) async fn lookup(
        &self,
        destination: IpAddr,
        mark: Option<u32>,
    ) -> io::Result<Option<u32>> {
        let mut message = RouteMessage::default();
        let prefix = IpNet::from(destination);
        message.header.address_family = family(Family::of(&prefix));
        message.header.destination_prefix_length = prefix.max_prefix_len();
        message.attributes = vec![RouteAttribute::Destination(destination.into())];
        message.attributes.extend(mark.map(RouteAttribute::Mark));
        for answer in self
            .request(Message::GetRoute(message), NLM_F_REQUEST)
            .await?
        {
            if let Message::NewRoute(route) = answer {
                return Ok(route
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        RouteAttribute::Oif(index) => Some(*index),
                        _ => None,
                    }));
            }
        }
        Ok(None)
    }

    async fn ask(&self, message: Message, flags: u16) -> io::Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        self.request(message, flags).await.map(drop)
    }

    async fn dump(&self, message: Message) -> io::Result<Vec<Message>> {
        self.request(message, NLM_F_REQUEST | NLM_F_DUMP).await
    }

    async fn request(&self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut answers = self
            .handle
            .clone()
            .request(request)
            .map_err(|_| io::Error::other("the netlink connection is closed"))?;
        let mut messages = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => messages.push(message),
                _ => {}
            }
        }
        Ok(messages)
    }
}

fn address(index: u32, prefix: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(Family::of(&prefix));
    message.header.index = index;
    message.header.prefix_len = prefix.prefix_len();
    message.attributes = vec![
        AddressAttribute::Local(prefix.addr()),
        AddressAttribute::Address(prefix.addr()),
    ];
    if Family::of(&prefix) == Family::V6 {
        // Nobody else on a tunnel can have the address; detecting duplicates only delays its use by a second.
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// A route into the device `index`, or to nowhere without one.
fn route(index: Option<u32>, table: u32, prefix: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(Family::of(&prefix));
    header.destination_prefix_length = prefix.prefix_len();
    header.protocol = RouteProtocol::Static;
    (header.kind, header.scope) = match index {
        Some(_) if Family::of(&prefix) == Family::V4 => (RouteType::Unicast, RouteScope::Link),
        Some(_) => (RouteType::Unicast, RouteScope::Universe),
        None => (RouteType::Unreachable, RouteScope::Universe),
    };
    let attributes = &mut message.attributes;
    // The header's field is one byte; the attribute counts.
    attributes.push(RouteAttribute::Table(table));
    if prefix.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(RouteAddress::from(
            prefix.network(),
        )));
    }
    match index {
        Some(index) => attributes.push(RouteAttribute::Oif(index)),
        // Beside it there is room for a route through the device, which wins: when a family comes
        // to be carried, or ceases to be, there is no moment with neither.
        None => attributes.push(RouteAttribute::Priority(LAST_METRIC)),
    }
    message
}

/// The metric that loses against every other.
const LAST_METRIC: u32 = u32::MAX;

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.family);
    message.header.action = RuleAction::ToTable;
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Table(rule.table));
    if let Some(mark) = rule.not_mark {
        message.header.flags = RuleFlags::Invert;
        attributes.push(RuleAttribute::FwMark(mark));
    }
    if let Some(length) = rule.suppress {
        attributes.push(RuleAttribute::SuppressPrefixLen(length.into()));
    }
    attributes.push(RuleAttribute::Protocol(RouteProtocol::Static));
    message
}

fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
