"""Hostile with a code: who was invited for one thing and wants another, who comes twice, who guesses.

The gateway of these cases issues over the wire (RFC 5967 requests, see docs/enrolment.md), so nobody needs a certificate to
ask for one.
"""

import json
import os
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cases import case
from credentials import key_usage
from peer import NAME

REFUSED, UNKNOWN_CODE, GUESSING = (
    f"urn:adit:refusal:{kind}" for kind in ("certificate-refused", "invitation-refused", "too-many-guesses"))
# Crockford's.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def secret_of(code: str) -> str:
    """The bearer token of a code: its first 128 bits."""
    number = 0
    digits = code.replace("-", "")
    for digit in digits:
        number = number << 5 | ALPHABET.index(digit)
    return f"{number >> (len(digits) * 5 - 128):032x}"


def request(key=None, *, names=(), subject=(), extensions=()) -> bytes:
    """A certificate request in DER."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(list(subject)))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def enroll(world, secret: str, body: bytes) -> tuple[str, bytes]:
    """What the gateway answers: status with problem type, and the body."""
    peer = world.peer(world.forge.nobody())
    peer.settings()
    stream = peer.quic.get_next_available_stream_id()
    fields = {
        ":method": "POST", ":scheme": "https", ":authority": NAME, ":path": "/.well-known/adit/enroll",
        "content-type": "application/pkcs10", "authorization": f"Bearer {secret}", "user-agent": "hostile/1.0 (snake)",
    }
    peer.http.send_headers(stream, [(name.encode(), value.encode()) for name, value in fields.items()])
    peer.http.send_data(stream, body, end_stream=True)
    peer.pump(lambda: peer.outcome(stream) is not None and stream in peer.ended, limit=10.0)
    problem = peer.problem(stream)
    verdict = f"{peer.outcome(stream)}{f' {problem}' if problem else ''}"
    answer = peer.bodies.get(stream, b"")
    peer.close()
    return verdict, answer


class Audit:
    """What the gateway writes down from now on."""

    def __init__(self, world) -> None:
        self.path = world.gateway_directory.parent / "state" / "audit.jsonl"
        self.seen = len(self.lines())

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def kinds(self, least: int, limit=5.0) -> list[str]:
        """The kinds of its refusals, as soon as there are so many."""
        deadline = time.time() + limit
        while True:
            new = self.lines()[self.seen:]
            kinds = [line["kind"] for line in new if line["event"] == "enrol-refused"]
            if len(kinds) >= least or time.time() > deadline:
                return kinds
            time.sleep(0.02)


GREEDY = {
    "another principal": dict(names=[x509.RFC822Name("alice@example.com")]),
    "a second principal": dict(names=[x509.RFC822Name("guest@example.com"), x509.RFC822Name("alice@example.com")]),
    "a gateway's name": dict(names=[x509.DNSName("vpn.example.com")]),
    "a group": dict(subject=[x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "admins")]),
    "to be an authority": dict(extensions=[x509.BasicConstraints(ca=True, path_length=None)]),
    "to issue": dict(extensions=[key_usage(["key_cert_sign"])]),
    "to be a gateway": dict(extensions=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])]),
}


@case(rf"{len(GREEDY)} refused with status 403 {REFUSED}, written down as bad-request; then status 200 for guest@example.com, staff, client", invited=True)
def a_request_for_more_than_the_invitation(world):
    """Each is refused whole, costs nothing, and says so in the audit log; the honest request is served by the same code."""
    audit, secret = Audit(world), secret_of(world.code)
    answers = {}
    for wish, options in GREEDY.items():
        answers[wish], _ = enroll(world, secret, request(**options))
    if set(answers.values()) != {f"status 403 {REFUSED}"}:
        return f"{answers}"
    kinds = audit.kinds(len(GREEDY))
    if kinds != ["bad-request"] * len(GREEDY):
        return f"written down: {kinds}"
    status, body = enroll(world, secret, request())
    verdict = f"{len(GREEDY)} refused with status 403 {REFUSED}, written down as bad-request; then {status}"
    if status != "status 200":
        return verdict
    leaf = x509.load_pem_x509_certificate(json.loads(body)["certificate"].encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    units = [unit.value for unit in leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    is_client = list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    said = names.get_values_for_type(x509.RFC822Name) + units + (["client"] if is_client else [])
    return f"{verdict} for {', '.join(said)}"


@case(f"status 200, then status 403 {UNKNOWN_CODE}, written down as used", invited=True)
def a_code_used_twice(world):
    """By somebody else's key, which is what an eavesdropper would have."""
    audit, secret = Audit(world), secret_of(world.code)
    first, _ = enroll(world, secret, request())
    second, _ = enroll(world, secret, request())
    return f"{first}, then {second}, written down as {', '.join(audit.kinds(1))}"


@case(f"status 403 urn:adit:refusal:certificate-required", invited=True)
def a_tunnel_without_a_certificate(world):
    """Who may ask for a certificate may ask for nothing else."""
    peer = world.peer(world.forge.nobody())
    peer.settings()
    stream = peer.request()
    verdict = f"{peer.outcome(stream)} {peer.problem(stream)}"
    peer.close()
    return verdict


@case(rf"[45] of 8 guesses are looked at, then status 429 {GUESSING}, the right code too; written down as too-many-guesses, unknown", invited=True)
def guesses(world):
    """Five a minute from one network, wrong codes of other cases among them; the last one would have been right."""
    audit = Audit(world)
    tries = [enroll(world, os.urandom(16).hex(), request())[0] for _ in range(8)]
    right, _ = enroll(world, secret_of(world.code), request())
    looked_at = tries.count(f"status 403 {UNKNOWN_CODE}")
    rest = set(tries[looked_at:])
    if len(rest) != 1 or right not in rest:
        return f"{tries}, the right one: {right}"
    kinds = sorted(set(audit.kinds(looked_at + 1)))
    return f"{looked_at} of {len(tries)} guesses are looked at, then {right}, the right code too; written down as {', '.join(kinds)}"
