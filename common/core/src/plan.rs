//! What a client changes on its host for an assignment: computed here, applied by the shell.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::range;
use crate::session::Assignment;

/// How the host shall look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPlan {
    /// Addresses of the TUN device, as host prefixes.
    pub addresses: Vec<IpNet>,
    /// What is routed into the tunnel.
    pub routes: Vec<IpNet>,
    /// With a full tunnel that carries no IPv4: IPv4 goes nowhere, rather than beside the tunnel.
    pub block_v4: bool,
    /// The same for IPv6.
    pub block_v6: bool,
}

/// What the profile wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// Everything through the tunnel.
    pub full_tunnel: bool,
}

/// Why no plan can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// More routes than a host should be burdened with.
    #[error("the gateway advertises more than {0} routes")]
    TooManyRoutes(usize),
}

impl NetworkPlan {
    /// The plan for what the gateway assigned.
    ///
    /// Without `full_tunnel`, default routes are left out: a split tunnel never takes the whole
    /// traffic of a host, whatever the gateway advertises.
    ///
    /// # Errors
    /// When the routes are too many.
    pub fn new(assignment: &Assignment, options: PlanOptions) -> Result<Self, PlanError> {
        let addresses: Vec<IpNet> = assignment
            .addresses
            .iter()
            .filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len())
            .copied()
            .collect();
        let has = |v4: bool| addresses.iter().any(|prefix| prefix.addr().is_ipv4() == v4);
        // Ranges for single protocols may overlap those for all.
        let mut routes: BTreeSet<IpNet> = BTreeSet::new();
        // What cannot be sent from an address of the family is not routed.
        for route in assignment
            .routes
            .iter()
            .filter(|route| has(route.start().is_ipv4()))
        {
            for prefix in range::to_prefixes(route) {
                routes.insert(prefix);
                if routes.len() > MAX_ROUTES {
                    return Err(PlanError::TooManyRoutes(MAX_ROUTES));
                }
            }
        }
        let covers = |v4: bool| {
            routes
                .iter()
                .any(|prefix| prefix.prefix_len() == 0 && prefix.addr().is_ipv4() == v4)
        };
        let (block_v4, block_v6) = if options.full_tunnel {
            (!covers(true), !covers(false))
        } else {
            (false, false)
        };
        // A site's own networks lie on this side, even where the policy lets the site reach them:
        // of equal prefixes the tunnel would win.
        let own = |route: &IpNet| {
            assignment
                .addresses
                .iter()
                .any(|prefix| prefix.contains(route))
        };
        routes.retain(|route| !own(route));
        if !options.full_tunnel {
            routes.retain(|prefix| prefix.prefix_len() > 0);
        }
        Ok(Self {
            addresses,
            routes: routes.into_iter().collect(),
            block_v4,
            block_v6,
        })
    }

    /// Local networks that the tunnel's routes cover or that lie around them: which of the two a
    /// packet takes is decided by the longer prefix, and people should know.
    #[must_use]
    pub fn collisions<'a>(&self, local: &'a [IpNet]) -> Vec<(IpNet, &'a IpNet)> {
        let mut found = Vec::new();
        for route in self.routes.iter().filter(|route| route.prefix_len() > 0) {
            for network in local {
                if route.contains(network) || network.contains(route) {
                    found.push((*route, network));
                }
            }
        }
        found
    }
}

/// A full routing table is no business of a laptop; a policy with this many prefixes is an error.
const MAX_ROUTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(addresses: &[&str], routes: &[&str]) -> Assignment {
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        Assignment {
            addresses: nets(addresses),
            routes: range::from_prefixes(&nets(routes)),
            ..Assignment::default()
        }
    }

    #[test]
    fn a_split_tunnel_leaves_default_routes_out() {
        let assignment = assignment(&["10.9.0.2/32"], &["0.0.0.0/0", "::/0"]);
        let plan = NetworkPlan::new(&assignment, PlanOptions::default()).unwrap();
        assert_eq!(plan.routes, []);
        assert!(!plan.block_v6);
    }

    #[test]
    fn a_full_tunnel_without_ipv6_blocks_ipv6() {
        let assignment = assignment(&["10.9.0.2/32"], &["0.0.0.0/0", "::/0"]);
        let plan = NetworkPlan::new(&assignment, PlanOptions { full_tunnel: true }).unwrap();
        assert_eq!(plan.routes, ["0.0.0.0/0".parse().unwrap()]);
        assert!(plan.block_v6 && !plan.block_v4);
    }

    #[test]
    fn a_sites_networks_are_not_addresses_of_its_router() {
        let assignment = assignment(&["10.9.0.2/32", "10.20.0.0/16"], &["10.0.0.0/16"]);
        let plan = NetworkPlan::new(&assignment, PlanOptions::default()).unwrap();
        assert_eq!(plan.addresses, ["10.9.0.2/32".parse().unwrap()]);
    }

    #[test]
    fn a_sites_networks_are_not_routed_away_from_it() {
        let assignment = assignment(
            &["10.9.0.2/32", "10.20.0.0/16"],
            &["10.20.0.0/16", "10.40.0.0/16"],
        );
        let plan = NetworkPlan::new(&assignment, PlanOptions::default()).unwrap();
        assert_eq!(plan.routes, ["10.40.0.0/16".parse().unwrap()]);
    }

    #[test]
    fn a_local_network_inside_a_route_is_a_collision() {
        let assignment = assignment(&["10.9.0.2/32"], &["192.168.0.0/16"]);
        let plan = NetworkPlan::new(&assignment, PlanOptions::default()).unwrap();
        let local = [
            "192.168.1.0/24".parse().unwrap(),
            "172.16.0.0/24".parse().unwrap(),
        ];
        assert_eq!(plan.collisions(&local).len(), 1);
    }
}
