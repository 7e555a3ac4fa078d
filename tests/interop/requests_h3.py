"""Hostile HTTP/3: requests, control streams, settings, too many streams."""

from aioquic.h3.connection import encode_frame

from cases import (CLOSED_CRITICAL, EXCESSIVE_LOAD, FRAME_ERROR, FRAME_UNEXPECTED, MALFORMED, MESSAGE,
                   MISSING_SETTINGS, QPACK, REJECTED, SETTINGS_ERROR, STREAM_CREATION, case)
from wire import varint

HEADERS, DATA, SETTINGS, GOAWAY = 1, 0, 4, 7


def asked(world, changes) -> str:
    """What a changed request gets."""
    peer = world.peer()
    peer.settings()
    stream = peer.request(changes)
    verdict = peer.outcome(stream) or "silence"
    if verdict.startswith("status"):
        verdict += f"; {peer.problem(stream)}"
    peer.close()
    return verdict


def closed(peer) -> str:
    peer.pump(lambda: peer.closed is not None)
    return f"closed {peer.closed[0]:#x} {peer.closed[1]!r}" if peer.closed else "not closed"


@case(MALFORMED)
def missing_protocol(world):
    """Plain CONNECT must not have :scheme and :path (RFC 9114 section 4.4)."""
    return asked(world, {":protocol": None})


@case("status 501")
def wrong_protocol(world):
    """RFC 9220 section 3: a :protocol the server does not know is 501."""
    return asked(world, {":protocol": "connect-udp"})


@case(MALFORMED)
def missing_path(world):
    return asked(world, {":path": None})


@case(MALFORMED)
def empty_path(world):
    return asked(world, {":path": ""})


@case("status 404")
def wrong_path(world):
    return asked(world, {":path": "/index.html"})


@case("status 400|status 404")
def malformed_target(world):
    """The target must be a prefix, a name or `*` (RFC 9484 section 3)."""
    return asked(world, {":path": "/.well-known/masque/ip/10.0.0.0%2F99/*/"})


@case(MALFORMED)
def missing_authority(world):
    return asked(world, {":authority": None})


@case(MALFORMED)
def missing_scheme(world):
    return asked(world, {":scheme": None})


@case("status 400")
def missing_capsule_protocol(world):
    return asked(world, {"capsule-protocol": None})


@case("status 400")
def false_capsule_protocol(world):
    return asked(world, {"capsule-protocol": "?0"})


@case("status (404|405|501)")
def an_ordinary_get(world):
    return asked(world, {":method": "GET", ":protocol": None, "capsule-protocol": None})


@case(MALFORMED)
def upper_case_field(world):
    return asked(world, {"X-Shout": "1"})


@case(MALFORMED)
def connection_field(world):
    """Connection-specific fields are malformed in HTTP/3 (RFC 9114 section 4.2)."""
    return asked(world, {"connection": "upgrade"})


@case(f"(reset|stopped) {REJECTED}|status 4..")
def second_tunnel_on_one_connection(world):
    peer = world.peer()
    first = peer.tunnel()
    second = peer.request()
    verdict = peer.outcome(second) or "silence"
    assert peer.aborted(first) is None, f"the first tunnel ended: {peer.aborted(first)}"
    assert peer.ping(first, world.office[0]) == 3, "the first tunnel does not carry packets"
    peer.close()
    return verdict


@case(f"closed {FRAME_UNEXPECTED}")
def data_before_headers(world):
    peer = world.peer()
    peer.settings()
    stream = peer.quic.get_next_available_stream_id()
    peer.quic.send_stream_data(stream, encode_frame(DATA, b"early"))
    return closed(peer)


@case(f"closed {FRAME_UNEXPECTED}")
def settings_on_a_request_stream(world):
    peer = world.peer()
    peer.settings()
    peer.quic.send_stream_data(peer.quic.get_next_available_stream_id(), encode_frame(SETTINGS, b""))
    return closed(peer)


@case(f"closed {FRAME_UNEXPECTED}")
def settings_twice(world):
    peer = world.peer()
    peer.settings()
    peer.quic.send_stream_data(peer.http._local_control_stream_id, encode_frame(SETTINGS, b""))
    return closed(peer)


@case(f"closed ({SETTINGS_ERROR}|{FRAME_UNEXPECTED})")
def forbidden_setting(world):
    """A setting of HTTP/2 (RFC 9114 section 7.2.4.1), in the only SETTINGS frame this peer sends."""
    peer = world.peer()
    replace_settings(peer, varint(0x02) + varint(1))
    return closed(peer)


@case(f"closed {MISSING_SETTINGS}")
def control_stream_without_settings(world):
    peer = world.peer()
    replace_frame(peer, encode_frame(GOAWAY, varint(0)))
    return closed(peer)


@case("status 4..|(reset|stopped|closed) 0x")
def no_datagram_setting(world):
    """A peer that cannot take datagrams cannot have a tunnel."""
    peer = world.peer(datagrams=False)
    peer.settings()
    stream = peer.request()
    verdict = peer.outcome(stream) or "silence"
    peer.close()
    return verdict


@case(f"closed {CLOSED_CRITICAL}")
def control_stream_closed(world):
    peer = world.peer()
    peer.settings()
    peer.quic.send_stream_data(peer.http._local_control_stream_id, b"", end_stream=True)
    return closed(peer)


@case(f"closed {STREAM_CREATION}")
def second_control_stream(world):
    peer = world.peer()
    peer.settings()
    stream = peer.quic.get_next_available_stream_id(is_unidirectional=True)
    peer.quic.send_stream_data(stream, b"\0" + encode_frame(SETTINGS, b""))
    return closed(peer)


@case(f"closed {QPACK}")
def undecodable_field_section(world):
    peer = world.peer()
    peer.settings()
    stream = peer.quic.get_next_available_stream_id()
    # Required insert count 5 with an empty dynamic table (RFC 9204 section 4.5.1).
    peer.quic.send_stream_data(stream, encode_frame(HEADERS, b"\x06\x00\x80"))
    return closed(peer)


@case(f"(closed|reset|stopped) ({EXCESSIVE_LOAD}|{MESSAGE}|{FRAME_ERROR})|status 431")
def endless_field_section(world):
    """Sixteen megabytes of headers are announced; the gateway does not wait for them."""
    peer = world.peer()
    peer.settings()
    stream = peer.quic.get_next_available_stream_id()
    peer.quic.send_stream_data(stream, varint(HEADERS) + varint(1 << 24) + b"\0" * 100_000)
    peer.pump(lambda: peer.outcome(stream) is not None)
    return peer.outcome(stream) or "silence"


@case("carries on|closed 0x107")
def ten_thousand_streams(world):
    """Opens what it may and asks on each; the tunnel it had before must live, or the whole connection end."""
    peer = world.peer()
    tunnel = peer.tunnel()
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/")]
    for number in range(10_000):
        peer.http.send_headers(peer.quic.get_next_available_stream_id(), fields, end_stream=True)
        if number % 100 == 99:
            peer.pump(limit=0.01)
        if peer.closed:
            return f"closed {peer.closed[0]:#x} {peer.closed[1]!r}"
    peer.pump(limit=2.0)
    answered = len(peer.headers) + len(peer.resets) - 1
    if peer.closed:
        return f"closed {peer.closed[0]:#x} {peer.closed[1]!r}"
    received = peer.ping(tunnel, world.office[0])
    peer.close()
    return f"carries on, {answered} answered" if received == 3 else f"{received} of 3 pings, {answered} answered"


@case("carries on|closed 0x(107|103)")
def a_thousand_unknown_unidirectional_streams(world):
    """Unknown stream types are read and forgotten (RFC 9114 section 6.2.3)."""
    peer = world.peer()
    tunnel = peer.tunnel()
    for number in range(1000):
        stream = peer.quic.get_next_available_stream_id(is_unidirectional=True)
        peer.quic.send_stream_data(stream, varint(0x21 + 31 * number) + b"grease", end_stream=True)
    peer.pump(limit=1.0)
    if peer.closed:
        return f"closed {peer.closed[0]:#x} {peer.closed[1]!r}"
    received = peer.ping(tunnel, world.office[0])
    peer.close()
    return "carries on" if received == 3 else f"{received} of 3 pings"


def replace_settings(peer, payload: bytes) -> None:
    replace_frame(peer, encode_frame(SETTINGS, payload))


def replace_frame(peer, frame: bytes) -> None:
    """Makes `frame` the first on the control stream: aioquic has written its own SETTINGS already, unsent."""
    sender = peer.quic._get_or_create_stream_for_send(peer.http._local_control_stream_id).sender
    type_byte = bytes(sender._buffer[:1])
    assert type_byte == b"\0" and not peer.handshaken
    sender._buffer[:] = type_byte + frame + encode_frame(0x21, b"\0" * (len(sender._buffer) - 1 - len(frame) - 2))
