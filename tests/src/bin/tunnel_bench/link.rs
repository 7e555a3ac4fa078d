//! Two namespaces and the one cable between them.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use adit_tests::lab::offload::{RECEIVE, SEGMENTATION};
use adit_tests::lab::{Namespace, internet, until};
use anyhow::{Context, Result};

/// How much of a NIC the cable pretends to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    /// As veth is made: super-packets cross whole.
    Gso,
    /// Packets are cut before they leave and arrive one by one.
    Wire,
    /// They are cut, and the receiver joins them again (GRO), as with a good NIC.
    Nic,
}

/// A client's and a gateway's namespace, joined by one veth pair.
#[derive(Debug)]
pub(crate) struct Link {
    /// Where the load starts.
    pub(crate) client: Namespace,
    /// Where it ends.
    pub(crate) gateway: Namespace,
}

impl Scenario {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Gso, Self::Wire, Self::Nic];
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gso => "gso",
            Self::Wire => "wire",
            Self::Nic => "nic",
        })
    }
}

impl Link {
    /// Lays the cable.
    pub(crate) fn new(scenario: Scenario) -> Result<Self> {
        let client = Namespace::new("client")?;
        let gateway = Namespace::new("gateway")?;
        client.connect(CABLE, &gateway, CABLE, 1500)?;
        client.add_address(CABLE, format!("{CLIENT}/24").parse()?)?;
        gateway.add_address(CABLE, format!("{}/24", internet::GATEWAY_V4).parse()?)?;
        for end in [&client, &gateway] {
            match scenario {
                Scenario::Gso => {}
                Scenario::Wire => {
                    end.set_features(CABLE, SEGMENTATION, false)?;
                    end.set_features(CABLE, RECEIVE, false)?;
                }
                Scenario::Nic => {
                    end.set_features(CABLE, SEGMENTATION, false)?;
                    end.set_features(CABLE, RECEIVE, true)?;
                }
            }
        }
        Ok(Self { client, gateway })
    }

    /// Another client's link to the same gateway, by a cable of its own; that client dials [`NEIGHBOURS_GATEWAY`].
    pub(crate) fn neighbour(&self) -> Result<Self> {
        let client = Namespace::new("neighbour")?;
        client.connect(CABLE, &self.gateway, NEIGHBOURS_CABLE, 1500)?;
        client.add_address(CABLE, "198.51.100.2/24".parse()?)?;
        let gateway = self.gateway.clone();
        gateway.add_address(
            NEIGHBOURS_CABLE,
            format!("{NEIGHBOURS_GATEWAY}/24").parse()?,
        )?;
        Ok(Self { client, gateway })
    }

    /// Waits until a program in the gateway's namespace has bound the UDP port.
    pub(crate) fn gateway_listens(&self, port: u16) -> Result<()> {
        // proc_pid_net(5): the local address of a line ends in the port, in hexadecimal.
        let word = format!(":{port:04X} ");
        until(START, || {
            let text = self.gateway.run(|| {
                let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
                Ok::<_, std::io::Error>(read("udp")? + &read("udp6").unwrap_or_default())
            })?;
            Ok(text.contains(&word).then_some(()))
        })
        .with_context(|| format!("nobody listens on UDP port {port}"))
    }
}

/// The client's end of the cable; the gateway's is [`internet::GATEWAY_V4`].
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));

/// The gateway's end of a neighbour's cable.
pub(crate) const NEIGHBOURS_GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// The gateway has two cables then.
const NEIGHBOURS_CABLE: &str = "link2";

/// The same name at both ends.
const CABLE: &str = "link";

/// No program needs this long to open a socket.
const START: Duration = Duration::from_secs(10);
