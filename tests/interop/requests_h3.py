"""Hostile HTTP/3: requests, control streams, settings, too many streams."""

from aioquic.h3.connection import encode_frame

from cases import (CLOSED_CRITICAL, EXCESSIVE_LOAD, FRAME_UNEXPECTED, MALFORMED, MISSING_SETTINGS, QPACK,
                   SETTINGS_ERROR, STREAM_CREATION, case)
from wire import varint

HEADERS, DATA, SETTINGS, GOAWAY = 1, 0, 4, 7


def asked(world, changes, **options) -> str:
    """What a changed request gets."""
    peer = world.peer(**options)
    peer.settings()
    stream = peer.request(changes)
    verdict = peer.outcome(stream) or "silence"
    if verdict.startswith("status"):
        verdict += f"; {peer.problem(stream)}"
    peer.close()
    return verdict


def served(world, changes) -> str:
    """Whether a changed request gets a tunnel that works."""
    peer = world.peer()
    stream = peer.tunnel(changes)
    received = [peer.ping(stream, host) for host in world.office]
    peer.close()
    return "served" if received == [3, 3] else f"pings: {received}"


def closed(peer) -> str:
    peer.pump(lambda: peer.closed is not None)
    return f"closed {peer.closed[0]:#x} {peer.closed[1]!r}" if peer.closed else "not closed"


@case(MALFORMED)
def missing_protocol(world):
    """Plain CONNECT must not have :scheme and :path (RFC 9114 section 4.4)."""
    return asked(world, {":protocol": None})


@case("status 501; urn:adit:refusal:not-connect-ip")
def wrong_protocol(world):
    """RFC 9220 section 3: a :protocol the server does not know is 501."""
    return asked(world, {":protocol": "connect-udp"})


@case(MALFORMED)
def missing_path(world):
    return asked(world, {":path": None})


@case(MALFORMED)
def empty_path(world):
    return asked(world, {":path": ""})


@case("status 404; urn:adit:refusal:not-found")
def wrong_path(world):
    return asked(world, {":path": "/index.html"})


@case("status 400; urn:adit:refusal:bad-request")
def malformed_target(world):
    """The target must be a prefix, a name or `*` (RFC 9484 section 3)."""
    return asked(world, {":path": "/.well-known/masque/ip/10.0.0.0%2F99/*/"})


@case(MALFORMED)
def missing_authority(world):
    return asked(world, {":authority": None})


@case(MALFORMED)
def missing_scheme(world):
    return asked(world, {":scheme": None})


@case("served")
def missing_capsule_protocol(world):
    """The upgrade token alone puts capsules in use (RFC 9484 section 4.2); the field is a hint for others."""
    return served(world, {"capsule-protocol": None})


@case("served")
def false_capsule_protocol(world):
    return served(world, {"capsule-protocol": "?0"})


@case("served")
def unreadable_capsule_protocol(world):
    """A value that is no boolean is as if the field were not there (RFC 9297 section 3.4)."""
    return served(world, {"capsule-protocol": "yes, please"})


@case("status 405")
def an_ordinary_get(world):
    """The path exists, the method does not fit it (RFC 9110 section 15.5.6)."""
    return asked(world, {":method": "GET", ":protocol": None, "capsule-protocol": None})


CERTIFICATE = {":method": "POST", ":protocol": None, "capsule-protocol": None, ":path": "/.well-known/adit/enroll",
               "content-type": "application/pkcs10", "authorization": "Bearer 00"}


@case("status 413")
def certificate_request_of_megabytes(world):
    return asked(world, CERTIFICATE | {"content-length": "20000000"})


@case("status 401")
def certificate_without_a_code(world):
    return asked(world, CERTIFICATE | {"authorization": None})


@case("status 403")
def renewal_without_a_session(world):
    return asked(world, CERTIFICATE | {":path": "/.well-known/adit/renew"})


@case("status 415")
def certificate_request_of_another_type(world):
    return asked(world, CERTIFICATE | {"content-type": "text/html"})


@case(MALFORMED)
def upper_case_field(world):
    return asked(world, {"X-Shout": "1"})


@case(MALFORMED)
def connection_field(world):
    """Connection-specific fields are malformed in HTTP/3 (RFC 9114 section 4.2)."""
    return asked(world, {"connection": "upgrade"})


@case("status 409; urn:adit:refusal:second-request")
def second_tunnel_on_one_connection(world):
    peer = world.peer()
    first = peer.tunnel()
    second = peer.request()
    verdict = f"{peer.outcome(second) or 'silence'}; {peer.problem(second)}"
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


@case(f"closed {SETTINGS_ERROR}")
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


@case("status 400; urn:adit:refusal:bad-request")
def no_datagram_setting(world):
    """Our packets travel in QUIC datagrams only, and RFC 9297 section 2.1.1 forbids those to this peer."""
    return asked(world, {}, datagrams=False)


@case("status 400; urn:adit:refusal:bad-request")
def no_datagram_transport_parameter(world):
    """The setting says yes, QUIC says no (RFC 9221 section 3)."""
    return asked(world, {}, frame_size=None)


@case("status 400; urn:adit:refusal:bad-request")
def datagrams_of_a_hundred_bytes(world):
    return asked(world, {}, frame_size=100)


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


@case(f"closed {EXCESSIVE_LOAD}")
def endless_field_section(world):
    """Sixteen megabytes of headers are announced; the gateway does not wait for them."""
    peer = world.peer()
    peer.settings()
    stream = peer.quic.get_next_available_stream_id()
    peer.quic.send_stream_data(stream, varint(HEADERS) + varint(1 << 24) + b"\0" * 100_000)
    peer.pump(lambda: peer.outcome(stream) is not None)
    return peer.outcome(stream) or "silence"


@case("carries on, 10000 answered")
def ten_thousand_streams(world):
    """Asks on each as soon as it may open it; each is answered, and the tunnel it had before lives."""
    peer = world.peer()
    tunnel = peer.tunnel()
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/")]
    for number in range(10_000):
        peer.http.send_headers(peer.quic.get_next_available_stream_id(), fields, end_stream=True)
        if number % 100 == 99:
            peer.pump(limit=0.01)
        if peer.closed:
            return f"closed {peer.closed[0]:#x} {peer.closed[1]!r}"
    # All but the tunnel's own stream; a busy machine needs a while for a handful per round trip.
    answered = lambda: len(peer.headers.keys() | peer.resets.keys()) - 1
    peer.pump(lambda: answered() == 10_000, limit=60.0)
    if peer.closed:
        return f"closed {peer.closed[0]:#x} {peer.closed[1]!r}"
    received = peer.ping(tunnel, world.office[0])
    peer.close()
    verdict = "carries on" if received == 3 else f"{received} of 3 pings"
    return f"{verdict}, {answered()} answered"


@case("carries on")
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
