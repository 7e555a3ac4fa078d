"""Certificates and lists that must be refused, made with the real authority's key or with a false one."""

import dataclasses
import datetime
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from peer import Credentials

DAY = datetime.timedelta(days=1)
# Of the arc for examples: nobody gives it a meaning.
PADDING = x509.ObjectIdentifier("2.999.1")


@dataclasses.dataclass
class Signer:
    """Who signs, with what a client shows of it: its own certificate and those above, without the root."""

    certificate: x509.Certificate
    key: object
    chain: tuple = ()


class Forge:
    """Writes certificates into `directory`, signed by the authority in `authority` unless said otherwise."""

    def __init__(self, authority: pathlib.Path, directory: pathlib.Path) -> None:
        self.authority_file = authority / "ca.pem"
        self.root = self.signer(authority)
        self.issuer = self.root.certificate
        self.directory = directory

    @staticmethod
    def signer(folder: pathlib.Path, *, shown=False) -> Signer:
        """The authority whose folder this is; `shown` unless it is a root."""
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        return Signer(certificate, key, (certificate,) if shown else ())

    def authority(self, name, *, under=None, begin=-DAY, end=DAY, ca=True, path_length=None, usages=("key_cert_sign",),
                  purposes=(), permitted=(), padding=0, key=None, own_key=None) -> Signer:
        """An intermediate; `own_key` takes one instead of making it, `key` signs instead of the issuer's."""
        under = under or self.root
        own_key = own_key or ec.generate_private_key(ec.SECP256R1())
        builder = self.builder([x509.NameAttribute(NameOID.COMMON_NAME, name)], own_key, under.certificate.subject, begin, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        if usages:
            builder = builder.add_extension(key_usage(usages), critical=True)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        if permitted:
            builder = builder.add_extension(x509.NameConstraints(list(permitted), None), critical=True)
        if padding:
            builder = builder.add_extension(x509.UnrecognizedExtension(PADDING, bytes(padding)), critical=False)
        certificate = sign(builder, key or under.key)
        return Signer(certificate, own_key, (certificate, *under.chain))

    def client(self, name, *, emails=("mallory@example.com",), hosts=(), purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,),
               begin=-DAY, end=DAY, impostor=False, unit=None, san=True, under=None, shown=None, padding=0) -> Credentials:
        """A leaf with its chain; `shown` is what stands behind it instead of its issuers."""
        under = under or self.root
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if unit:
            subject.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
        issuer_key = ec.generate_private_key(ec.SECP256R1()) if impostor else under.key
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Impostor")]) if impostor else under.certificate.subject
        builder = self.builder(subject, key, issuer, begin, end)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        if san and (emails or hosts):
            names = [x509.RFC822Name(email) for email in emails] + [x509.DNSName(host) for host in hosts]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        if padding:
            builder = builder.add_extension(x509.UnrecognizedExtension(PADDING, bytes(padding)), critical=False)
        certificate = sign(builder, issuer_key)
        chain = (certificate, *(under.chain if shown is None else shown))
        pem, private = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        pem.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
        private.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        private.chmod(0o600)
        return Credentials(str(pem), str(private), str(self.authority_file))

    def nobody(self) -> Credentials:
        return Credentials(None, None, str(self.authority_file))

    @staticmethod
    def builder(subject, key, issuer, begin, end) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
        )

    def revocation_list(self, number: int, revoked=(), *, issuer=None, key=None) -> bytes:
        """A list in PEM of the authority, or in the name of another or with another key."""
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer or self.issuer.subject)
            .last_update(now)
            .next_update(now + 7 * DAY)
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return sign(builder, key or self.root.key).public_bytes(serialization.Encoding.PEM)


def sign(builder, key):
    # Keys of Edwards curves have their digest in themselves.
    whole = isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
    return builder.sign(key, None if whole else hashes.SHA256())


def serial_of(credentials: Credentials) -> int:
    return x509.load_pem_x509_certificate(pathlib.Path(credentials.certificate).read_bytes()).serial_number


def key_usage(usages) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: name in usages for name in names})
