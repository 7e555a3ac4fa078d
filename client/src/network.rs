//! The host follows what the gateway assigned: addresses, routes, rules; all undone at the end.

use std::path::Path;

use adit_core::plan::{NetworkPlan, PlanOptions};
use adit_core::session::Assignment;
use adit_net::host::{self, Host, HostError, Network};
use ipnet::IpNet;
use tracing::{info, warn};

/// The client's part of the host.
pub struct ClientNetwork {
    host: Host,
    mtu: u16,
    options: PlanOptions,
    applied: NetworkPlan,
}

impl ClientNetwork {
    /// Undoes what an earlier run of this interface left behind, and changes nothing else yet.
    ///
    /// # Errors
    /// When the host cannot be read or cleaned up.
    pub async fn open(
        state: &Path,
        interface: &str,
        mtu: u16,
        options: PlanOptions,
    ) -> Result<Self, HostError> {
        Ok(Self {
            host: Host::open(state, interface).await?,
            mtu,
            options,
            applied: NetworkPlan::default(),
        })
    }

    /// Makes the host look as the assignment says; only differences are touched.
    ///
    /// # Errors
    /// When the kernel refuses; [`Self::undo`] leads out.
    pub async fn follow(&mut self, assignment: &Assignment) -> Result<(), HostError> {
        let plan = match NetworkPlan::new(assignment, self.options) {
            Ok(plan) => plan,
            Err(error) => {
                warn!(%error, "the assignment is ignored");
                return Ok(());
            }
        };
        if plan == self.applied {
            return Ok(());
        }
        self.warn_of_collisions(&plan).await;
        if self.options.full_tunnel && plan.block_v4 && !plan.addresses.is_empty() {
            warn!("the gateway advertises no default route; with full_tunnel IPv4 is blocked");
        }
        let network = Network::for_client(&plan, self.mtu, MARK);
        self.host.apply(&network).await?;
        info!(addresses = ?plan.addresses, routes = ?plan.routes, "the host follows the tunnel");
        self.applied = plan;
        Ok(())
    }

    /// What is routed into the tunnel.
    #[must_use]
    pub fn plan(&self) -> &NetworkPlan {
        &self.applied
    }

    /// Puts the host back as it was.
    ///
    /// # Errors
    /// When the kernel refuses; the next start tries again.
    pub async fn undo(&mut self) -> Result<(), HostError> {
        self.host.undo().await
    }

    async fn warn_of_collisions(&self, plan: &NetworkPlan) {
        let Ok(connected) = host::connected().await else {
            return;
        };
        let local: Vec<IpNet> = connected.iter().map(|network| network.prefix).collect();
        for (route, network) in plan.collisions(&local) {
            warn!(
                %route,
                local = %network,
                "a local network and a route of the tunnel overlap; the longer prefix wins"
            );
        }
    }
}

/// The firewall mark of the tunnel's own packets: "ADIT" shortened, unlikely to be anybody else's.
pub const MARK: u32 = 0xad17;
