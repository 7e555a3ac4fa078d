"""Hostile datagrams and IP packets on and beside a tunnel."""

import os

from cases import DATAGRAM_ERROR, case
from peer import BAD, Peer
from wire import Icmp, echo_request, varint


def tunnel(world) -> tuple[Peer, int]:
    peer = world.peer()
    return peer, peer.tunnel()


def carries_on(world, peer: Peer, stream: int) -> str:
    """Whether the tunnel still works in both families."""
    if peer.closed:
        return f"closed {peer.closed[0]:#x} {peer.closed[1]!r}"
    received = [peer.ping(stream, host) for host in world.office]
    verdict = "ignored" if all(count == 3 for count in received) else f"pings afterwards: {received}, {peer.aborted(stream)}"
    peer.close()
    return verdict


@case("ignored")
def datagrams_before_the_request(world):
    """They may arrive early on a real network too (RFC 9484 section 6); nothing is forwarded for them."""
    peer = world.peer()
    peer.settings()
    for number in range(20):
        peer.send(0, echo_request("10.99.0.77", world.office[0], BAD, number))
    peer.pump(limit=0.3)
    if peer.closed:
        return f"closed {peer.closed[0]:#x}"
    return carries_on(world, peer, peer.tunnel())


@case("ignored")
def datagrams_for_unknown_streams(world):
    peer, stream = tunnel(world)
    packet = b"\0" + echo_request(peer.own(4), world.office[0], BAD, 0)
    for unknown in (4, 400, 1 << 20):
        peer.http.send_datagram(unknown, packet)
    peer.pump(limit=0.3)
    return carries_on(world, peer, stream)


@case(f"closed {DATAGRAM_ERROR}")
def quarter_stream_id_too_large(world):
    """RFC 9297 section 2.1: above 2^60-1 is a connection error."""
    return raw(world, varint(1 << 60) + b"\0")


@case(f"closed {DATAGRAM_ERROR}")
def an_empty_datagram(world):
    """RFC 9297 section 2.1: too short for a quarter stream id is a connection error."""
    return raw(world, b"")


@case(f"closed {DATAGRAM_ERROR}")
def one_byte_of_a_longer_number(world):
    return raw(world, b"\x40")


@case("ignored")
def one_byte_without_a_context(world):
    """A whole quarter stream id and nothing after it: an empty HTTP datagram, which HTTP/3 allows."""
    peer, stream = tunnel(world)
    for known in (stream, 4, 8):
        peer.quic.send_datagram_frame(varint(known // 4))
    peer.quic.send_datagram_frame(varint(stream // 4) + b"\x80\0")
    peer.pump(limit=0.3)
    return carries_on(world, peer, stream)


@case("ignored")
def a_65_kilobyte_datagram(world):
    """In one QUIC packet, far above the gateway's max_udp_payload_size (RFC 9000 section 18.2)."""
    peer, stream = tunnel(world)
    peer.quic._max_datagram_size = 65_500
    peer.quic._loss._cc.congestion_window = 1 << 20
    peer.send(stream, echo_request(peer.own(4), world.office[0], BAD, 0, payload=65_000))
    sizes = peer.transmit()
    assert max(sizes) > 65_000, f"it was not sent: {sizes}"
    peer.pump(limit=0.3)
    peer.quic._max_datagram_size = 1400
    return carries_on(world, peer, stream)


@case("ignored")
def unknown_contexts(world):
    peer, stream = tunnel(world)
    packet = echo_request(peer.own(4), world.office[0], BAD, 0)
    for context in (1, 2, 3, 63, 64, 1 << 40):
        peer.send(stream, packet, varint(context))
    peer.pump(limit=0.3)
    return carries_on(world, peer, stream)


@case("ignored")
def packets_that_are_not_ip(world):
    peer, stream = tunnel(world)
    whole = echo_request(peer.own(4), world.office[0], BAD, 0)
    six = echo_request(peer.own(6), world.office[1], BAD, 0)
    broken = [
        b"", b"\x45", b"\x60" * 39, b"\x75" + whole[1:], b"\x44" + whole[1:], b"\x4f" + whole[1:],
        whole[:-1], whole + b"\0", six[:-1], six + b"\0", b"\0" * 1200, b"\xff" * 1200,
    ]
    for packet in broken + [os.urandom(size) for size in (1, 20, 40, 100, 1000)]:
        peer.send(stream, packet)
    peer.pump(limit=0.3)
    return carries_on(world, peer, stream)


@case("icmp 3/13")
def foreign_source_ipv4(world):
    """RFC 9484 section 7: the packet is dropped; an ICMP error should say why."""
    peer, stream = tunnel(world)
    return spoofed(world, peer, stream, "10.0.0.99", world.office[0])


@case("icmp 1/5")
def foreign_source_ipv6(world):
    peer, stream = tunnel(world)
    return spoofed(world, peer, stream, "fd00:1::99", world.office[1])


@case("icmp 3/13")
def the_neighbours_source_ipv4(world):
    """The neighbour's address lies inside the prefix that is this session's own: nested prefixes."""
    peer = world.peer(site(world))
    stream = peer.tunnel()
    assert peer.ping(stream, world.office[0], source="10.40.9.9") == 3, "the site's own addresses do not work"
    return spoofed(world, peer, stream, world.neighbour[0], world.office[0], own="10.40.9.9")


@case("icmp 1/5")
def the_neighbours_source_ipv6(world):
    peer = world.peer(site(world))
    stream = peer.tunnel()
    assert peer.ping(stream, world.office[1], source="fd00:40::99") == 3, "the site's own addresses do not work"
    return spoofed(world, peer, stream, world.neighbour[1], world.office[1], own="fd00:40::99")


@case("icmp 3/13")
def a_denied_destination_ipv4(world):
    peer, stream = tunnel(world)
    return denied(world, peer, stream, peer.own(4), world.denied[0])


@case("icmp 1/1")
def a_denied_destination_ipv6(world):
    peer, stream = tunnel(world)
    return denied(world, peer, stream, peer.own(6), world.denied[1])


@case("icmp 3/13")
def another_client_without_a_rule(world):
    """Client to client only where the policy says so."""
    peer, stream = tunnel(world)
    return denied(world, peer, stream, peer.own(4), world.neighbour[0])


@case("icmp 11/0")
def a_hop_limit_that_ends_here_ipv4(world):
    peer, stream = tunnel(world)
    return denied(world, peer, stream, peer.own(4), world.office[0], hops=1)


@case("icmp 3/0")
def a_hop_limit_that_ends_here_ipv6(world):
    peer, stream = tunnel(world)
    return denied(world, peer, stream, peer.own(6), world.office[1], hops=1)


@case("silence")
def multicast_gets_no_answer(world):
    """RFC 1122 section 3.2.2, RFC 4443 section 2.4: no ICMP error about these."""
    peer, stream = tunnel(world)
    answers = [
        peer.answer_to(stream, echo_request(peer.own(4), "224.0.0.1", BAD, 0), limit=0.5),
        peer.answer_to(stream, echo_request(peer.own(4), "255.255.255.255", BAD, 0), limit=0.5),
        peer.answer_to(stream, echo_request(peer.own(6), "ff02::1", BAD, 0), limit=0.5),
    ]
    peer.close()
    return "silence" if not any(answers) else ", ".join(str(answer) for answer in answers)


@case("limited")
def a_thousand_denied_packets(world):
    """Answers are rate-limited; the session goes on."""
    peer, stream = tunnel(world)
    peer.packets.clear()
    for number in range(1000):
        peer.send(stream, echo_request(peer.own(4), world.denied[0], BAD, number))
        if number % 50 == 49:
            peer.pump(limit=0.01)
    peer.pump(limit=1.0)
    answers = sum(icmp.is_error() for icmp in map(Icmp, peer.packets))
    after = carries_on(world, peer, stream)
    return f"limited to {answers}" if 0 < answers < 900 and after == "ignored" else f"{answers} answers, {after}"


def site(world):
    return world.forge.client("site", emails=("site@example.com",), unit="staff")


def raw(world, datagram: bytes) -> str:
    peer, _ = tunnel(world)
    peer.quic.send_datagram_frame(datagram)
    peer.pump(lambda: peer.closed is not None, limit=3.0)
    return f"closed {peer.closed[0]:#x} {peer.closed[1]!r}" if peer.closed else "not closed"


def denied(world, peer, stream, source, destination, hops=64) -> str:
    answer = peer.answer_to(stream, echo_request(source, destination, BAD, 0, hops=hops))
    after = carries_on(world, peer, stream)
    if after != "ignored":
        return after
    return f"icmp {answer.kind}/{answer.code} from {answer.source}" if answer else "silence"


def spoofed(world, peer, stream, source, destination, own=None) -> str:
    """Nothing with this source may come out; the office is watched for it by the test."""
    answer = peer.answer_to(stream, echo_request(source, destination, BAD, 0), limit=1.0)
    received = peer.ping(stream, destination, source=own)
    peer.close()
    if received != 3:
        return f"{received} of 3 own pings afterwards"
    return f"icmp {answer.kind}/{answer.code} from {answer.source}" if answer else "dropped"
