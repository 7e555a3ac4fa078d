//! Everything a VPN may change on a host, as text that two moments can be compared by.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::RouteAttribute;
use rtnetlink::{IpVersion, RouteMessageBuilder};

use super::Namespace;

/// The state of one namespace: links, addresses, routes of all tables, rules, sysctls, nftables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    lines: Vec<String>,
}

impl Snapshot {
    /// Takes it.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        let mut lines = namespace.netlink(async |handle| {
            let mut lines = Vec::new();
            let links: Vec<_> = handle.link().get().execute().try_collect().await?;
            for link in links {
                let mut line = format!("link {}", link.header.index);
                for attribute in link.attributes {
                    if let LinkAttribute::IfName(name) = attribute {
                        line.push_str(&format!(" {name}"));
                    } else if let LinkAttribute::Mtu(mtu) = attribute {
                        line.push_str(&format!(" mtu {mtu}"));
                    }
                }
                lines.push(line);
            }
            let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
            for address in addresses {
                for attribute in address.attributes {
                    if let AddressAttribute::Address(ip) = attribute {
                        let header = &address.header;
                        lines.push(format!(
                            "address {} {ip}/{}",
                            header.index, header.prefix_len
                        ));
                    }
                }
            }
            let (v4, v6) = (
                RouteMessageBuilder::<std::net::Ipv4Addr>::new(),
                RouteMessageBuilder::<std::net::Ipv6Addr>::new(),
            );
            for question in [v4.build(), v6.build()] {
                let routes: Vec<_> = handle.route().get(question).execute().try_collect().await?;
                for mut route in routes {
                    // Ages and use counts are not the configuration.
                    route
                        .attributes
                        .retain(|attribute| !matches!(attribute, RouteAttribute::CacheInfo(_)));
                    lines.push(format!("route {:?} {:?}", route.header, route.attributes));
                }
            }
            for version in [IpVersion::V4, IpVersion::V6] {
                let rules: Vec<_> = handle.rule().get(version).execute().try_collect().await?;
                lines.extend(
                    rules
                        .iter()
                        .map(|rule| format!("rule {:?} {:?}", rule.header, rule.attributes)),
                );
            }
            Ok(lines)
        })?;
        lines.sort();
        for key in SYSCTLS {
            let value = namespace
                .run(|| fs::read_to_string(format!("/proc/sys/{key}")))
                .unwrap_or_default();
            lines.push(format!("sysctl {key} = {}", value.trim()));
        }
        let mut nft = Command::new("nft");
        nft.args(["list", "ruleset"]);
        if let Ok(process) = namespace.spawn(nft) {
            let outcome = process.wait(Duration::from_secs(10))?;
            lines.extend(outcome.stdout.lines().map(|line| format!("nft {line}")));
        }
        Ok(Self { lines })
    }

    /// Whether the kernel has done what it does by itself after a cable is plugged in: every link has
    /// its link-local address, every IPv6 address its local route.
    pub(super) fn is_settled(&self) -> bool {
        let words = |line: &'_ String| -> Vec<String> {
            line.split_whitespace().map(str::to_owned).collect()
        };
        self.lines.iter().all(|line| match words(line).as_slice() {
            [link, index, name, ..] if link == "link" && name != "lo" => {
                let begin = format!("address {index} fe80:");
                self.lines.iter().any(|line| line.starts_with(&begin))
            }
            [address, _, ip] if address == "address" && ip.contains(':') => {
                let ip = ip.split('/').next().unwrap_or_default();
                let end = format!("Destination(Inet6({ip}))");
                self.lines
                    .iter()
                    .any(|line| line.contains("kind: Local") && line.contains(&end))
            }
            _ => true,
        })
    }

    /// What the other has more (`+`) and less (`-`), one per line; empty when nothing changed.
    pub fn difference(&self, later: &Self) -> String {
        let gone = self
            .lines
            .iter()
            .filter(|line| !later.lines.contains(line))
            .map(|line| format!("- {line}"));
        let new = later
            .lines
            .iter()
            .filter(|line| !self.lines.contains(line))
            .map(|line| format!("+ {line}"));
        gone.chain(new).collect::<Vec<_>>().join("\n")
    }
}

/// The settings a gateway or client could touch.
const SYSCTLS: [&str; 8] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/conf/all/src_valid_mark",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/forwarding",
    "net/ipv6/conf/all/accept_ra",
];
