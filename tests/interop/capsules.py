"""Hostile capsules on an accepted request (RFC 9297 section 3, RFC 9484 section 4.7)."""

from cases import EXCESSIVE_LOAD, FRAME_UNEXPECTED, MALFORMED, case
from peer import BAD, Peer
from wire import (ADDRESS_ASSIGN, ADDRESS_REQUEST, DATAGRAM, ROUTE_ADVERTISEMENT, Icmp, address, capsule,
                  echo_request, route, varint)

def sent(world, data: bytes, end=False) -> str:
    peer = world.peer()
    stream = peer.tunnel()
    peer.http.send_data(stream, data, end)
    verdict = fate(peer, stream)
    peer.close()
    return verdict


def fate(peer: Peer, stream: int, limit=3.0) -> str:
    peer.pump(lambda: peer.aborted(stream) not in (None, "ended"), limit)
    return peer.aborted(stream) or "not aborted"


@case(MALFORMED)
def truncated_capsule(world):
    """The stream ends inside a capsule."""
    return sent(world, capsule(ADDRESS_REQUEST, address(1, "0.0.0.0/32"))[:-2], end=True)


@case(MALFORMED)
def trailing_bytes_in_a_capsule(world):
    return sent(world, capsule(ADDRESS_REQUEST, address(1, "0.0.0.0/32") + b"\4"))


@case(rf"(reset|stopped) {EXCESSIVE_LOAD}")
def oversized_capsule(world):
    """Says that a gigabyte of addresses follows."""
    return sent(world, varint(ADDRESS_ASSIGN) + varint(1 << 30) + address(0, "10.1.0.0/32") * 5000)


@case(MALFORMED)
def unordered_routes(world):
    return sent(world, capsule(ROUTE_ADVERTISEMENT, route("10.2.0.0", "10.2.0.255") + route("10.1.0.0", "10.1.0.255")))


@case(MALFORMED)
def ipv6_routes_before_ipv4(world):
    return sent(world, capsule(ROUTE_ADVERTISEMENT, route("fd00::", "fd00::ff") + route("10.1.0.0", "10.1.0.255")))


@case(MALFORMED)
def overlapping_routes(world):
    return sent(world, capsule(ROUTE_ADVERTISEMENT, route("10.1.0.0", "10.1.0.255") + route("10.1.0.255", "10.1.1.0")))


@case(MALFORMED)
def backward_route(world):
    return sent(world, capsule(ROUTE_ADVERTISEMENT, route("10.1.0.9", "10.1.0.1")))


@case(MALFORMED)
def host_bits_set(world):
    return sent(world, capsule(ADDRESS_ASSIGN, address(0, "10.1.2.3/16")))


@case(MALFORMED)
def prefix_too_long(world):
    return sent(world, capsule(ADDRESS_REQUEST, varint(1) + bytes([4, 0, 0, 0, 0, 33])))


@case(MALFORMED)
def unknown_ip_version(world):
    return sent(world, capsule(ADDRESS_REQUEST, varint(1) + bytes([5, 0, 0, 0, 0, 32])))


@case(MALFORMED)
def empty_address_request(world):
    return sent(world, capsule(ADDRESS_REQUEST, b""))


@case(MALFORMED)
def address_request_number_zero(world):
    return sent(world, capsule(ADDRESS_REQUEST, address(0, "0.0.0.0/32")))


@case("ignored")
def unknown_capsules(world):
    """Types nobody knows, one of them a hundred kilobytes long in small pieces, are skipped."""
    peer = world.peer()
    stream = peer.tunnel()
    long = capsule(0x29 * 11 + 0x17, b"\xff" * 100_000)
    peer.http.send_data(stream, capsule(0x17, b"") + capsule((1 << 62) - 1, b"x"), False)
    for at in range(0, len(long), 1000):
        peer.http.send_data(stream, long[at : at + 1000], False)
    peer.http.send_data(stream, capsule(ADDRESS_REQUEST, address(99, "0.0.0.0/32")), False)
    answered = peer.pump(lambda: any(number == 99 for assign in peer.assigns for number, _ in assign))
    received = peer.ping(stream, world.office[0])
    verdict = "ignored" if answered and received == 3 else f"{fate(peer, stream)}, answered: {answered}, {received} of 3"
    peer.close()
    return verdict


@case("kept inside")
def an_address_that_is_not_for_asking(world):
    """Asks for a neighbour's address; may be refused or given another one, never that one."""
    peer = world.peer()
    stream = peer.tunnel()
    wanted = world.neighbour[0]
    peer.http.send_data(stream, capsule(ADDRESS_REQUEST, address(5, f"{wanted}/32")), False)
    peer.pump(lambda: len(peer.assigns) > 1, limit=2.0)
    got = [prefix for assign in peer.assigns for _, prefix in assign]
    peer.close()
    return f"kept inside, {got}" if not any(prefix.startswith(f"{wanted}/") for prefix in got) else f"given {got}"


@case("icmp 3/4")
def a_65_kilobyte_packet_in_a_capsule(world):
    """Allowed on the stream (RFC 9297 section 3.5), and too big for the office: answered as such, not fragmented."""
    peer = world.peer()
    stream = peer.tunnel()
    packet = echo_request(peer.own(4), world.office[0], BAD, 0, payload=65_000)
    errors = lambda: [icmp for icmp in map(Icmp, peer.packets) if icmp.is_error()]
    peer.http.send_data(stream, capsule(DATAGRAM, b"\0" + packet), False)
    peer.pump(lambda: peer.aborted(stream) or errors(), limit=3.0)
    answers, ended = errors(), peer.aborted(stream)
    received = peer.ping(stream, world.office[0])
    peer.close()
    if ended or received != 3:
        return f"{ended or 'not aborted'}, {received} of 3 pings afterwards"
    return f"icmp {answers[0].kind}/{answers[0].code} from {answers[0].source}" if answers else "silence"


@case("ignored")
def a_datagram_capsule_larger_than_any_packet(world):
    """Datagrams may be dropped at will (RFC 9297 section 2): it is skipped as an unknown capsule would be."""
    peer = world.peer()
    stream = peer.tunnel()
    whole = capsule(DATAGRAM, b"\0" * 200_000)
    for at in range(0, len(whole), 10_000):
        peer.http.send_data(stream, whole[at : at + 10_000], False)
        peer.pump(limit=0.01)
    peer.http.send_data(stream, capsule(ADDRESS_REQUEST, address(99, "0.0.0.0/32")), False)
    answered = peer.pump(lambda: any(number == 99 for assign in peer.assigns for number, _ in assign))
    received = peer.ping(stream, world.office[0])
    verdict = "ignored" if answered and received == 3 else f"{fate(peer, stream)}, answered: {answered}, {received} of 3"
    peer.close()
    return verdict


@case(f"closed {FRAME_UNEXPECTED}")
def broken_frame_on_the_request_stream(world):
    """A reserved HTTP/2 frame type (RFC 9114 section 7.2.8)."""
    peer = world.peer()
    stream = peer.tunnel()
    peer.quic.send_stream_data(stream, varint(0x06) + varint(4) + b"ping")
    verdict = fate(peer, stream)
    peer.close()
    return verdict
