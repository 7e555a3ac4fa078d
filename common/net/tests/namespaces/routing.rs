//! Which way packets go: the kernel is asked, with and without the mark.

use std::net::IpAddr;

use adit_net::host::{self, Host, Network};
use adit_net::tun::Tun;
use ipnet::{IpNet, Ipv4Net};
use libtest_mimic::Trial;

use crate::host::{MARK, full_tunnel, lan, nets};
use crate::namespace::{block_on, run, trial};
use crate::random::Random;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "the_longest_prefix_wins_and_ties_go_to_the_tunnel",
            the_longest_prefix_wins,
        ),
        trial(
            "marked_packets_never_enter_the_tunnel",
            marked_packets_never_enter_the_tunnel,
        ),
        trial(
            "an_unreachable_family_does_not_leak",
            an_unreachable_family_does_not_leak,
        ),
        trial(
            "random_routes_go_by_the_longest_prefix",
            random_routes_go_by_the_longest_prefix,
        ),
    ]
}

async fn way(to: &str, mark: Option<u32>) -> String {
    let to: IpAddr = to.parse().expect("an address");
    let way = host::route_to(to, mark).await.expect("asked");
    way.unwrap_or_else(|| "nowhere".into())
}

fn the_longest_prefix_wins() {
    let state = tempfile::tempdir().expect("a directory");
    let (_lan, _tun) = (lan(), Tun::open("adit0", 1400).expect("a device"));
    run("ip route add 10.1.0.0/16 dev lan0");
    run("ip route add 10.1.2.0/24 dev lan0");
    run("ip -6 route add fd01::/32 dev lan0");
    let network = Network {
        routes: nets(&[
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.2.0/24",
            "192.168.1.128/25",
            "fd00::/8",
            "fd01:0:1::/48",
        ]),
        unreachable: Vec::new(),
        ..full_tunnel()
    };
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&network).await.expect("applied");
        for (to, expected) in [
            ("8.8.8.8", "adit0"),
            ("10.5.5.5", "adit0"),
            ("10.1.9.9", "lan0"),
            ("10.1.2.9", "adit0"),
            ("192.168.1.5", "lan0"),
            ("192.168.1.200", "adit0"),
            ("192.168.1.2", "lo"),
            ("fd02::1", "adit0"),
            ("fd01::1", "lan0"),
            ("fd01:0:1::1", "adit0"),
            ("2001:db8:1::7", "lan0"),
            ("2001:db8:9::7", "lan0"),
        ] {
            assert_eq!(way(to, None).await, expected, "{to}");
        }
    });
}

fn marked_packets_never_enter_the_tunnel() {
    let state = tempfile::tempdir().expect("a directory");
    let (_lan, _tun) = (lan(), Tun::open("adit0", 1400).expect("a device"));
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&full_tunnel()).await.expect("applied");
        for to in [
            "8.8.8.8",
            "10.1.2.3",
            "192.168.1.5",
            "fd00::1",
            "2001:db8:9::1",
        ] {
            assert_eq!(way(to, Some(MARK)).await, "lan0", "{to}");
        }
    });
}

fn an_unreachable_family_does_not_leak() {
    let state = tempfile::tempdir().expect("a directory");
    let (_lan, _tun) = (lan(), Tun::open("adit0", 1400).expect("a device"));
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        assert_eq!(way("2001:db8:9::1", None).await, "lan0");
        host.apply(&full_tunnel()).await.expect("applied");
        assert_eq!(way("2001:db8:9::1", None).await, "nowhere");
        assert_eq!(
            way("2001:db8:1::9", None).await,
            "lan0",
            "the local network stays"
        );
        host.undo().await.expect("undone");
        assert_eq!(way("2001:db8:9::1", None).await, "lan0");
    });
}

fn random_routes_go_by_the_longest_prefix() {
    let state = tempfile::tempdir().expect("a directory");
    let (_lan, _tun) = (lan(), Tun::open("adit0", 1400).expect("a device"));
    let mut random = Random(0x5eed_0000_ad17_0001);
    let mut prefixes = |count: usize| -> Vec<IpNet> {
        let mut list: Vec<IpNet> = Vec::new();
        while list.len() < count {
            // Few bits that differ, so that prefixes nest and tie.
            let address = 0x1400_0000 | (random.below(16) << 20) | (random.below(16) << 12);
            let prefix = Ipv4Net::new_assert(address.into(), 6 + random.below(15) as u8);
            let prefix = IpNet::from(prefix.trunc());
            if !list.contains(&prefix) {
                list.push(prefix);
            }
        }
        list
    };
    let (local, tunnel) = (prefixes(24), prefixes(24));
    for prefix in &local {
        run(&format!("ip route add {prefix} dev lan0"));
    }
    let network = Network {
        routes: tunnel.clone(),
        unreachable: Vec::new(),
        ..full_tunnel()
    };
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&network).await.expect("applied");
        for _ in 0..500 {
            let to = std::net::Ipv4Addr::from(0x1400_0000 | random.below(1 << 24));
            let longest = |routes: &[IpNet]| {
                let matching = routes
                    .iter()
                    .filter(|route| route.contains(&IpAddr::from(to)));
                matching.map(IpNet::prefix_len).max()
            };
            let expected = match (longest(&local), longest(&tunnel)) {
                (local, Some(tunnel)) if Some(tunnel) >= local => "adit0",
                // The default route, if nothing longer.
                _ => "lan0",
            };
            let to = to.to_string();
            assert_eq!(way(&to, None).await, expected, "{to}: {local:?} {tunnel:?}");
            assert_eq!(way(&to, Some(MARK)).await, "lan0", "{to}");
        }
    });
}
