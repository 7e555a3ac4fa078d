"""Revocation lists that come into the gateway's directory: one that counts, and those that must not.

Whoever can write there could do worse. But lists are carried around: from a mirror, by a timer, by hand.
"""

import json
import pathlib
import time

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cases import case
from credentials import serial_of
from handshake import refused

# RFC 8446 section 6: certificate_revoked; adit_core::close: the same for a session.
REVOKED, SESSION_REVOKED = "0x12c", "0xad17000c"


class Lists:
    """The authority's list in the gateway's directory."""

    def __init__(self, world) -> None:
        self.world = world
        self.path = world.gateway_directory / "ca" / "crl.pem"
        self.audit = world.gateway_directory.parent / "state" / "audit.jsonl"
        self.seen = len(self.events())

    def number(self) -> int:
        found = x509.load_pem_x509_crl(self.path.read_bytes())
        return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    def put(self, pem: bytes) -> None:
        new = self.path.with_suffix(".new")
        new.write_bytes(pem)
        new.rename(self.path)

    def next(self, revoked=()) -> bytes:
        return self.world.forge.revocation_list(self.number() + 1, revoked)

    def events(self) -> list[dict]:
        return [json.loads(line) for line in pathlib.Path(self.audit).read_text().splitlines()]

    def told(self, limit=5.0) -> str:
        """What the gateway wrote down of the last change: the error, or how many are revoked now."""
        deadline = time.time() + limit
        while time.time() < deadline:
            new = [event for event in self.events()[self.seen:] if event["event"] == "reload"]
            if new:
                self.seen = len(self.events())
                return new[-1].get("error") or "taken"
            time.sleep(0.02)
        return "nothing was written down"


def works(peer, stream, world) -> str:
    answers = peer.ping(stream, world.office[0])
    return "the session goes on" if answers == 3 else f"{answers} of 3 pings; {peer.aborted(stream)}"


@case(rf"closed {SESSION_REVOKED} 'the certificate was revoked' after 0\.\d+ s; then closed {REVOKED}")
def revoked_in_the_middle_of_a_session(world):
    credentials, lists = world.mallory(), Lists(world)
    peer = world.peer(credentials)
    peer.tunnel()
    begin = time.time()
    lists.put(lists.next([serial_of(credentials)]))
    peer.pump(lambda: peer.closed is not None, limit=10.0)
    took = time.time() - begin
    if peer.closed is None:
        return "the session goes on"
    verdict = f"closed {peer.closed[0]:#x} {peer.closed[1]!r} after {took:.2f} s"
    return f"{verdict}; then {refused(world.peer(credentials))}"


@case(rf".*is older than list \d+, which has counted here.*; then closed {REVOKED}")
def a_list_replayed(world):
    """The list of before the revocation comes back: who was revoked stays so."""
    credentials, lists = world.mallory(), Lists(world)
    before = lists.path.read_bytes()
    revoking = lists.next([serial_of(credentials)])
    lists.put(revoking)
    assert lists.told() == "taken"
    lists.put(before)
    told = lists.told()
    verdict = refused(world.peer(credentials))
    lists.put(revoking)
    return f"{told}; then {verdict}"


@case(r".*signature of the revocation list is not of this authority.*; the session goes on")
def a_list_signed_by_another_key(world):
    """It names the authority, and revokes whoever is connected."""
    return survived(world, key=ec.generate_private_key(ec.SECP256R1()))


@case(r".*which is not this authority.*; the session goes on")
def a_list_of_another_authority(world):
    key = ec.generate_private_key(ec.SECP256R1())
    return survived(world, key=key, issuer=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Foreign")]))


@case(r".*signature of the revocation list is not of this authority.*; the session goes on")
def a_list_signed_by_the_online_intermediate_for_the_root(world):
    """The wrong authority of the same company: what issues online revokes nothing of the root's."""
    online = world.forge.signer(world.gateway_directory / "issuing", shown=True)
    return survived(world, key=online.key)


def survived(world, **options) -> str:
    credentials, lists = world.mallory(), Lists(world)
    good = lists.path.read_bytes()
    peer = world.peer(credentials)
    stream = peer.tunnel()
    number = lists.number() + 1
    lists.put(world.forge.revocation_list(number, [serial_of(credentials)], **options))
    told = lists.told()
    verdict = works(peer, stream, world)
    peer.close()
    lists.put(good)
    return f"{told}; {verdict}"
