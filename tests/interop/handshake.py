"""Hostile before the first request: certificates, ALPN, handshakes that never end."""

import os
import socket
import time

from cryptography.x509.oid import ExtendedKeyUsageOID

from cases import case
from peer import Credentials, Peer
from credentials import DAY

# RFC 9001 section 4.8: a TLS alert is the connection error 0x100 + alert (RFC 8446 section 6).
REQUIRED, UNKNOWN_CA, EXPIRED, UNSUPPORTED, NO_PROTOCOL = "0x174", "0x130", "0x12d", "0x12b", "0x178"


def refused(peer: Peer) -> str:
    """The close code and the reason the gateway gives."""
    peer.pump(lambda: peer.closed is not None, limit=10.0)
    if peer.closed is None:
        return "not refused; SETTINGS came" if peer.http.received_settings is not None else "silence"
    return f"closed {peer.closed[0]:#x} {peer.closed[1]!r}"


@case(f"closed {REQUIRED}")
def no_certificate(world):
    return refused(world.peer(world.forge.nobody()))


@case(f"closed {UNKNOWN_CA}")
def wrong_ca(world):
    return refused(world.peer(world.forge.client("impostor", impostor=True)))


@case(f"closed {EXPIRED}")
def expired(world):
    return refused(world.peer(world.forge.client("expired", begin=-3 * DAY, end=-DAY)))


@case(f"closed {EXPIRED} '.*(not valid yet|not yet valid|not valid before).*")
def not_yet_valid(world):
    return refused(world.peer(world.forge.client("early", begin=DAY, end=3 * DAY)))


@case(f"closed {UNSUPPORTED}")
def wrong_purpose(world):
    purpose = (ExtendedKeyUsageOID.EMAIL_PROTECTION,)
    return refused(world.peer(world.forge.client("purpose", purposes=purpose)))


@case(f"closed {UNSUPPORTED}")
def no_purpose(world):
    """Without extended key usage a certificate is for anything; we want clientAuth in writing."""
    return refused(world.peer(world.forge.client("anything", purposes=())))


@case(f"closed {UNSUPPORTED}")
def gateway_certificate_as_client(world):
    own = world.gateway_directory
    return refused(world.peer(Credentials(str(own / "gateway.pem"), str(own / "gateway.key"), str(own / "ca/ca.pem"))))


@case(f"closed {NO_PROTOCOL}")
def unknown_application_protocol(world):
    return refused(world.peer(alpn="hq-interop"))


@case("status 403; urn:adit:refusal:identity-ambiguous")
def two_names_in_one_certificate(world):
    """Two candidates for a principal are a refusal, not a choice."""
    names = ("mallory@example.com", "alice@example.com")
    return refused_or_answered(world, world.forge.client("two", emails=names))


@case("status 403; urn:adit:refusal:identity-missing")
def no_name_in_the_certificate(world):
    return refused_or_answered(world, world.forge.client("none", san=False))


@case("status 403; urn:adit:refusal:no-access")
def no_rule_for_this_name(world):
    return refused_or_answered(world, world.forge.client("stranger", emails=("stranger@example.com",)))


@case("served")
def a_stalled_handshake(world):
    """Two hundred clients say hello and nothing more; the next one is served as if they were not there."""
    stalled = []
    for _ in range(200):
        peer = world.peer(world.forge.nobody())
        peer.transmit()
        stalled.append(peer)
    begin = time.time()
    peer = world.peer()
    peer.tunnel()
    took = time.time() - begin
    peer.close()
    for peer in stalled:
        peer.socket.close()
    return f"served after {took:.2f} s" if took < 5 else f"late: {took:.2f} s"


@case("closed 0xc")
def a_handshake_that_never_ends(world):
    """Says hello again and again and never finishes; RFC 9000 section 10.2.3 has the code for it."""
    peer = world.peer()
    hello, begin = [], time.time()

    def only_hello():
        datagrams = [data for data, _ in peer.quic.datagrams_to_send(now=time.time())]
        # Certificate and Finished leave when the gateway's are there: they are swallowed.
        if datagrams and not peer.handshaken:
            hello[:] = datagrams
            for data in datagrams:
                peer.socket.sendto(data, peer.gateway)

    peer.transmit = only_hello
    while peer.closed is None and time.time() - begin < 20:
        peer.pump(lambda: peer.closed is not None, limit=1.0)
        # The copies let the gateway speak (RFC 9000 section 8.1).
        for data in hello:
            peer.socket.sendto(data, peer.gateway)
    if peer.closed is None:
        return "silence"
    return f"closed {peer.closed[0]:#x} {peer.closed[1]!r} after {time.time() - begin:.1f} s"


@case("served")
def noise_on_the_port(world):
    """Random bytes, empty datagrams and 65507-byte ones; the gateway lives and says nothing useful."""
    family = socket.AF_INET6 if ":" in world.gateway[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as noise:
        for size in (0, 1, 20, 1200, 1452, 9000, 65507):
            for first in (0x00, 0x40, 0x80, 0xC0, 0xFF):
                noise.sendto((bytes([first]) + os.urandom(size))[:size], world.gateway)
    peer = world.peer()
    peer.tunnel()
    peer.close()
    return "served"


def refused_or_answered(world, credentials) -> str:
    peer = world.peer(credentials)
    peer.pump(lambda: peer.closed is not None or peer.http.received_settings is not None)
    if peer.closed:
        return refused(peer)
    stream = peer.request()
    outcome = peer.outcome(stream)
    if outcome and outcome.startswith("closed"):
        return f"{outcome} {peer.closed[1]!r}"
    verdict = f"{outcome}; {peer.problem(stream)}"
    peer.close()
    return verdict
