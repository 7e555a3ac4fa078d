//! Changing the host and changing it back.

use std::process::{Command, Stdio};

use adit_net::host::{self, Connected, Family, Host, HostError, Network, Routing};
use adit_net::tun::Tun;
use ipnet::IpNet;
use libtest_mimic::Trial;

use crate::namespace::{block_on, drop_capabilities, dump, run, set_sysctl, sysctl, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "applying_and_undoing_leaves_no_trace",
            applying_and_undoing_leaves_no_trace,
        ),
        trial(
            "dropping_the_host_undoes_it_also_within_a_runtime",
            dropping_the_host_undoes_it,
        ),
        trial(
            "another_plan_changes_only_what_differs",
            another_plan_changes_only_what_differs,
        ),
        trial(
            "ipv6_addresses_are_usable_at_once_and_the_only_ones",
            ipv6_addresses_are_usable_at_once,
        ),
        trial(
            "ipv6_comes_back_when_the_mtu_allows_it",
            ipv6_comes_back_when_the_mtu_allows_it,
        ),
        trial(
            "a_host_without_ipv6_gets_the_ipv4_half",
            a_host_without_ipv6_gets_the_ipv4_half,
        ),
        trial(
            "a_gateway_forwards_and_masquerades_until_undone",
            a_gateway_forwards_and_masquerades,
        ),
        trial(
            "a_gateway_goes_over_to_another_network_without_losing_what_stays",
            a_gateway_goes_over_to_another_network,
        ),
        trial(
            "a_setting_changed_by_others_is_left_alone",
            a_setting_changed_by_others_is_left_alone,
        ),
        trial(
            "a_strict_reverse_path_filter_is_loosened",
            a_strict_reverse_path_filter_is_loosened,
        ),
        trial(
            "a_route_of_another_interface_is_not_taken",
            a_route_of_another_interface_is_not_taken,
        ),
        trial(
            "without_nft_the_error_says_what_to_install",
            without_nft_the_error_says_what_to_install,
        ),
        trial(
            "without_the_capability_nothing_changes",
            without_the_capability_nothing_changes,
        ),
        trial(
            "the_host_tells_its_networks_and_its_largest_mtu",
            the_host_tells_its_networks,
        ),
    ]
}

pub(crate) fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts
        .iter()
        .map(|text| text.parse().expect("a prefix"))
        .collect()
}

/// A client with everything on.
pub(crate) fn full_tunnel() -> Network {
    Network {
        mtu: 1400,
        addresses: nets(&["10.99.0.5/32", "fd00:ad17::5/128"]),
        routes: nets(&["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "fd00::/8"]),
        routing: Routing::Unmarked { mark: MARK },
        unreachable: vec![Family::V6],
        ..Network::default()
    }
}

pub(crate) const MARK: u32 = 0xad17;

fn applying_and_undoing_leaves_no_trace() {
    let state = tempfile::tempdir().expect("a directory");
    let without = dump();
    let tun = Tun::open("adit0", 1400).expect("a device");
    let before = dump();
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        for _ in 0..2 {
            host.apply(&full_tunnel()).await.expect("applied");
            host.apply(&full_tunnel()).await.expect("applied again");
            assert_ne!(dump(), before);
            host.undo().await.expect("undone");
            assert_eq!(dump(), before);
            host.undo().await.expect("undone twice");
        }
    });
    drop(tun);
    assert_eq!(dump(), without);
    let left = std::fs::read_dir(state.path()).expect("readable").count();
    assert_eq!(left, 0, "the journal is gone");
}

fn dropping_the_host_undoes_it() {
    let state = tempfile::tempdir().expect("a directory");
    let before = dump();
    block_on(async {
        let tun = Tun::open("adit0", 1400).expect("a device");
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&full_tunnel()).await.expect("applied");
        drop(tun);
        drop(host);
    });
    assert_eq!(dump(), before);
}

fn another_plan_changes_only_what_differs() {
    let state = tempfile::tempdir().expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    let other = Network {
        addresses: nets(&["10.99.0.6/32", "fd00:ad17::5/128"]),
        routes: nets(&["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24"]),
        unreachable: Vec::new(),
        ..full_tunnel()
    };
    let fresh = block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&other).await.expect("applied");
        let fresh = dump();
        host.undo().await.expect("undone");
        fresh
    });
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&full_tunnel()).await.expect("applied");
        let mut monitor = Command::new("ip")
            .args(["-o", "monitor", "rule", "route", "address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs the program ip (iproute2)");
        // It has opened its socket when it reports a change of ours.
        let mut seen = std::io::BufReader::new(monitor.stdout.take().expect("piped"));
        let mut line = String::new();
        while line.is_empty() {
            run("ip route replace 198.51.100.0/24 dev lo");
            run("ip route del 198.51.100.0/24 dev lo");
            if readable(seen.get_ref()) {
                std::io::BufRead::read_line(&mut seen, &mut line).expect("readable");
            }
        }
        host.apply(&other).await.expect("applied");
        run("ip route add 203.0.113.0/24 dev lo");
        let mut changes = String::new();
        while !changes.contains("203.0.113.0") {
            std::io::BufRead::read_line(&mut seen, &mut changes).expect("readable");
        }
        run("ip route del 203.0.113.0/24 dev lo");
        monitor.kill().expect("ended");
        monitor.wait().expect("ended");
        for kept in ["10.0.0.0/8", "10.1.0.0/16", "fd00:ad17::5"] {
            assert!(!changes.contains(kept), "{kept} was touched:\n{changes}");
        }
        assert!(changes.contains("192.0.2.0/24"), "{changes}");
        assert_eq!(sorted(&dump()), sorted(&fresh));
    });
}

fn ipv6_addresses_are_usable_at_once() {
    let state = tempfile::tempdir().expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&full_tunnel()).await.expect("applied");
        std::net::UdpSocket::bind("[fd00:ad17::5]:0").expect("not tentative");
        let addresses = run("ip -6 -oneline address show dev adit0");
        assert_eq!(addresses.lines().count(), 1, "{addresses}");
        assert!(!addresses.contains("tentative"), "{addresses}");
    });
}

fn ipv6_comes_back_when_the_mtu_allows_it() {
    let state = tempfile::tempdir().expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    let small = Network {
        mtu: 1200,
        addresses: nets(&["10.99.0.5/32"]),
        routes: nets(&["10.0.0.0/8"]),
        unreachable: Vec::new(),
        ..full_tunnel()
    };
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        for network in [&full_tunnel(), &small, &full_tunnel()] {
            host.apply(network).await.expect("applied");
            let addresses = run("ip -6 -oneline address show dev adit0");
            let expected = usize::from(network.mtu >= 1280);
            assert_eq!(addresses.lines().count(), expected, "{addresses}");
            assert!(run("ip route show table all").contains("10.0.0.0/8 dev adit0"));
        }
        assert!(run("ip -6 route show table all").contains("fd00::/8 dev adit0"));
        host.undo().await.expect("undone");
    });
}

fn a_host_without_ipv6_gets_the_ipv4_half() {
    let state = tempfile::tempdir().expect("a directory");
    for scope in ["all", "default"] {
        set_sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
    let _tun = Tun::open("adit0", 1400).expect("a device");
    assert!(!host::has_ipv6());
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&full_tunnel()).await.expect("applied");
        assert!(run("ip -oneline address show dev adit0").contains("10.99.0.5/32"));
        host.undo().await.expect("undone");
    });
}

pub(crate) fn gateway() -> Network {
    Network {
        mtu: 1400,
        addresses: nets(&["10.99.0.1/24", "fd00:ad17::1/64"]),
        routes: nets(&[
            "10.99.0.0/24",
            "10.20.0.0/16",
            "fd00:ad17::/64",
            "fd00:20::/64",
        ]),
        forwarding: true,
        masquerade: nets(&[
            "10.99.0.0/24",
            "10.20.0.0/16",
            "10.20.1.0/24",
            "fd00:ad17::/64",
        ]),
        ..Network::default()
    }
}

fn a_gateway_forwards_and_masquerades() {
    let state = tempfile::tempdir().expect("a directory");
    let tun = Tun::open("adit0", 1400).expect("a device");
    set_sysctl("net/ipv4/ip_forward", "0");
    let before = dump();
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&gateway()).await.expect("applied");
        host.apply(&gateway()).await.expect("applied again");
        assert_eq!(sysctl("net/ipv4/ip_forward"), "1");
        assert_eq!(sysctl("net/ipv6/conf/all/forwarding"), "1");
        let table = run("nft list table inet adit_adit0");
        assert!(
            table.contains("10.20.0.0/16") && table.contains("masquerade"),
            "{table}"
        );
        assert!(run("ip route show").contains("10.20.0.0/16 dev adit0"));
        let quiet = Network {
            masquerade: Vec::new(),
            ..gateway()
        };
        host.apply(&quiet).await.expect("applied");
        assert_eq!(run("nft list tables"), "");
        host.apply(&gateway()).await.expect("applied");
        host.undo().await.expect("undone");
    });
    assert_eq!(sysctl("net/ipv4/ip_forward"), "0");
    assert_eq!(sysctl("net/ipv6/conf/all/forwarding"), "0");
    assert_eq!(dump(), before);
    drop(tun);
}

fn a_gateway_goes_over_to_another_network() {
    let state = tempfile::tempdir().expect("a directory");
    let tun = Tun::open("adit0", 1400).expect("a device");
    let before = dump();
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        let first = gateway();
        host.apply(&first).await.expect("applied");
        // A neighbour in the subnet of the first address, and one more masqueraded source.
        let mut second = first.clone();
        second.addresses = nets(&["10.99.0.2/24", "fd00:ad17::1/64"]);
        second.masquerade.extend(nets(&["10.30.0.0/16"]));
        let both = first.together_with(&second);
        host.apply(&both).await.expect("both applied");
        host.apply(&second).await.expect("the second applied");
        let addresses = run("ip -4 addr show dev adit0");
        assert!(
            addresses.contains("10.99.0.2/24") && !addresses.contains("10.99.0.1/24"),
            "{addresses}"
        );
        assert!(run("ip route show").contains("10.20.0.0/16 dev adit0"));
        let table = run("nft list table inet adit_adit0");
        assert!(
            table.contains("10.30.0.0/16") && table.contains("10.20.0.0/16"),
            "{table}"
        );
        host.undo().await.expect("undone");
    });
    assert_eq!(dump(), before);
    drop(tun);
}

fn a_setting_changed_by_others_is_left_alone() {
    let state = tempfile::tempdir().expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    set_sysctl("net/ipv4/ip_forward", "1");
    set_sysctl("net/ipv6/conf/all/forwarding", "0");
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        host.apply(&gateway()).await.expect("applied");
        host.undo().await.expect("undone");
    });
    assert_eq!(
        sysctl("net/ipv4/ip_forward"),
        "1",
        "the administrator had set it"
    );
    assert_eq!(sysctl("net/ipv6/conf/all/forwarding"), "0", "we had set it");
}

fn a_strict_reverse_path_filter_is_loosened() {
    let state = tempfile::tempdir().expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        for _ in 0..2 {
            host.apply(&full_tunnel()).await.expect("applied");
            assert_eq!(sysctl("net/ipv4/conf/all/rp_filter"), "2");
        }
        host.undo().await.expect("undone");
    });
    assert_eq!(sysctl("net/ipv4/conf/all/rp_filter"), "1");
}

fn a_route_of_another_interface_is_not_taken() {
    let state = tempfile::tempdir().expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    run("ip route add 10.20.0.0/16 dev lo");
    let before = dump();
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        let error = host.apply(&gateway()).await.expect_err("taken");
        assert!(matches!(error, HostError::RouteTaken { .. }), "{error}");
        assert!(error.hint().expect("a hint").contains("10.20.0.0/16"));
        host.undo().await.expect("undone");
    });
    assert_eq!(dump(), before, "the other route is still there");
}

fn without_nft_the_error_says_what_to_install() {
    let state = tempfile::tempdir().expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    for directory in ["/usr/sbin", "/usr/local/sbin"] {
        if std::path::Path::new(directory).join("nft").exists() {
            run(&format!("mount -t tmpfs none {directory}"));
        }
    }
    block_on(async {
        let mut host = Host::open(state.path(), "adit0").await.expect("a host");
        let error = host.apply(&gateway()).await.expect_err("no nft");
        assert!(matches!(error, HostError::NoNft), "{error}");
        assert!(error.hint().expect("a hint").contains("nftables"));
        host.undo().await.expect("undone");
        assert_eq!(sysctl("net/ipv6/conf/all/forwarding"), "0");
    });
}

fn without_the_capability_nothing_changes() {
    let state = tempfile::tempdir().expect("a directory");
    let _tun = Tun::open("adit0", 1400).expect("a device");
    let before = dump();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop_capabilities();
            block_on(async {
                let mut host = Host::open(state.path(), "adit0").await.expect("a host");
                let error = host.apply(&full_tunnel()).await.expect_err("no right");
                assert!(matches!(error, HostError::Permission { .. }), "{error}");
                assert!(error.hint().expect("a hint").contains("CAP_NET_ADMIN"));
            });
        });
    });
    assert_eq!(dump(), before);
}

fn the_host_tells_its_networks() {
    let _lan = lan();
    block_on(async {
        let connected = host::connected().await.expect("listed");
        let lan = |prefix: &str| Connected {
            prefix: prefix.parse().expect("a prefix"),
            interface: "lan0".into(),
        };
        assert_eq!(connected, [lan("192.168.1.0/24"), lan("2001:db8:1::/64")]);
        assert_eq!(host::largest_link_mtu().await.expect("known"), 1500);
        assert!(host::interface_index("lan0").await.expect("there") > 0);
        let error = host::interface_index("eth7").await.expect_err("not there");
        assert_eq!(error.to_string(), "there is no interface eth7");
    });
}

/// Another interface, as the host's way to the world.
pub(crate) fn lan() -> Tun {
    let lan = Tun::open("lan0", 1500).expect("a device");
    run("ip link set lan0 up");
    run("ip address add 192.168.1.2/24 dev lan0");
    run("ip address add 2001:db8:1::2/64 dev lan0 nodad");
    run("ip route add default via 192.168.1.1 dev lan0");
    run("ip -6 route add default via 2001:db8:1::1 dev lan0");
    lan
}

/// Two dumps with the same lines in another order are the same: tables list in order of insertion.
fn sorted(dump: &str) -> Vec<&str> {
    let mut lines: Vec<_> = dump.lines().collect();
    lines.sort_unstable();
    lines
}

fn readable(pipe: &impl std::os::fd::AsFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(
        pipe,
        rustix::event::PollFlags::IN,
    )];
    let timeout = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    rustix::event::poll(&mut poll, Some(&timeout)).expect("polled") > 0
}
