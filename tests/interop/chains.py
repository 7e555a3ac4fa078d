"""Hostile chains: each has one thing wrong with it, between a leaf that is right and the authority that is trusted."""

import time

from aioquic.quic import connection
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.x509.oid import ExtendedKeyUsageOID

from cases import case
from credentials import DAY, Signer
from handshake import EXPIRED, UNKNOWN_CA, UNSUPPORTED, refused

# aioquic has room for the chains of honest people.
connection.CRYPTO_BUFFER_SIZE = 1 << 17

# RFC 8446 section 6: certificate_unknown, decrypt_error.
UNKNOWN, DECRYPT_ERROR = "0x12e", "0x133"


def shows(world, name="leaf", **options) -> str:
    return refused(world.peer(world.forge.client(name, unit="staff", **options)))


@case("served")
def a_chain_that_is_right(world):
    """What the others differ from by one thing."""
    between = world.forge.authority("Between", path_length=0, purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,))
    peer = world.peer(world.forge.client("leaf", unit="staff", under=between))
    peer.tunnel()
    peer.close()
    return "served"


@case(rf"closed {UNKNOWN} '.*100 certificates, and at most 7 .* after 0\.\d+ s")
def a_hundred_intermediates(world):
    """All of one name, each a possible issuer of each other: nobody tries. One of them is the right one."""
    key = ec.generate_private_key(ec.SECP256R1())
    same = [world.forge.authority("Same", own_key=key).certificate for _ in range(99)]
    begin = time.time()
    verdict = shows(world, under=Signer(same[0], key), shown=same)
    return f"{verdict} after {time.time() - begin:.2f} s"


@case(rf"closed {UNKNOWN} '.*bytes, and at most 51200 .*")
def a_huge_certificate(world):
    return shows(world, padding=55 * 1024)


@case(rf"closed {UNKNOWN} '.*bytes, and at most 51200 .*")
def a_huge_intermediate(world):
    return shows(world, under=world.forge.authority("Huge", padding=55 * 1024))


@case("closed 0xa '.*HandshakePayloadTooLarge.*")
def a_chain_beyond_tls(world):
    """More than a handshake message may have for anybody."""
    many = [world.forge.authority("Huge", padding=16 * 1024).certificate for _ in range(5)]
    return shows(world, shown=many)


@case(f"closed {EXPIRED}")
def an_expired_intermediate(world):
    return shows(world, under=world.forge.authority("Expired", begin=-3 * DAY, end=-DAY))


@case(f"closed {EXPIRED} '.*(not valid yet|not yet valid|not valid before)")
def an_intermediate_of_tomorrow(world):
    return shows(world, under=world.forge.authority("Early", begin=DAY, end=3 * DAY))


@case(f"closed {UNKNOWN} '.*EndEntityUsedAsCa.*")
def an_intermediate_that_is_no_authority(world):
    """Somebody with a certificate issues more of them."""
    return shows(world, under=world.forge.authority("Leaf", ca=False))


@case(f"closed {UNKNOWN} '.*keyUsage lacks keyCertSign.*")
def an_intermediate_for_lists_only(world):
    return shows(world, under=world.forge.authority("Lists", usages=("crl_sign",)))


@case(f"closed {UNKNOWN} '.*PathLenConstraintViolated.*")
def one_intermediate_too_many(world):
    """The first one allows none below it."""
    first = world.forge.authority("First", path_length=0)
    return shows(world, under=world.forge.authority("Second", under=first))


@case(f"closed {UNKNOWN} '.*NameConstraintViolation.*")
def a_host_outside_its_issuers_names(world):
    between = world.forge.authority("Branch", permitted=[x509.DNSName("branch.example.com")])
    return shows(world, under=between, emails=(), hosts=("vpn.example.com",))


@case(f"closed {UNKNOWN} '.*NameConstraintViolation.*")
def a_mailbox_under_an_issuer_with_constrained_mailboxes(world):
    """webpki does not compare mailboxes, so it has to refuse; that they fit does not help."""
    between = world.forge.authority("Mail", permitted=[x509.RFC822Name("example.com")])
    return shows(world, under=between)


@case(f"closed {UNSUPPORTED}")
def an_intermediate_for_gateways(world):
    return shows(world, under=world.forge.authority("Gateways", purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)))


@case(f"closed ({DECRYPT_ERROR}|{UNKNOWN_CA}|{UNKNOWN}|0x12a)")
def a_signature_of_an_unknown_kind(world):
    """Ed448, which webpki does not know."""
    return shows(world, under=world.forge.authority("Ed448", own_key=ed448.Ed448PrivateKey.generate()))


@case(f"closed ({DECRYPT_ERROR}|{UNKNOWN_CA}|{UNKNOWN}|0x12a)")
def an_intermediate_that_signed_itself_in(world):
    """It names the authority, and the signature is its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    return shows(world, under=world.forge.authority("False", own_key=key, key=key))
