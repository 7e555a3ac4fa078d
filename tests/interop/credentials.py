"""Certificates that must be refused, made with the real authority's key or with a false one."""

import datetime
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from peer import Credentials

DAY = datetime.timedelta(days=1)


class Forge:
    """Writes certificates into `directory`, signed by the authority in `authority` unless said otherwise."""

    def __init__(self, authority: pathlib.Path, directory: pathlib.Path) -> None:
        self.authority_file = authority / "ca.pem"
        self.issuer = x509.load_pem_x509_certificate(self.authority_file.read_bytes())
        self.issuer_key = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
        self.directory = directory

    def client(self, name, *, emails=("mallory@example.com",), purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,),
               begin=-DAY, end=DAY, impostor=False, unit=None, san=True) -> Credentials:
        now = datetime.datetime.now(datetime.timezone.utc)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if unit:
            subject.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
        issuer_key = ec.generate_private_key(ec.SECP256R1()) if impostor else self.issuer_key
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Impostor")]) if impostor else self.issuer.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        if san and emails:
            names = x509.SubjectAlternativeName([x509.RFC822Name(email) for email in emails])
            builder = builder.add_extension(names, critical=False)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        certificate = builder.sign(issuer_key, hashes.SHA256())
        pem, private = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        private.chmod(0o600)
        return Credentials(str(pem), str(private), str(self.authority_file))

    def nobody(self) -> Credentials:
        return Credentials(None, None, str(self.authority_file))
