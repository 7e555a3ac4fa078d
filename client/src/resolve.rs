//! From the gateways of a profile to addresses to dial.

use std::net::SocketAddr;

use tracing::warn;

/// Every address of every gateway, in the order of the profile and of the resolver (RFC 6724).
///
/// A name that does not resolve is skipped: another gateway may be there.
pub async fn resolve(gateways: &[(String, u16)]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for (host, port) in gateways {
        match tokio::net::lookup_host((host.as_str(), *port)).await {
            Ok(found) => {
                for address in found {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            Err(error) => warn!(host, %error, "the gateway's name does not resolve"),
        }
    }
    addresses
}
