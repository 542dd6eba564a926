"""The lab's own certificate authority, for the one name in the lab that answers over TLS."""

from __future__ import annotations

import datetime
import hashlib
from fcntl import LOCK_EX, flock
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab import files

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "openclaw lab"
_LIFETIME = datetime.timedelta(days=365)
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"


class Authority:
    """Certificates in a folder: `ca.crt`, and `server.crt` with `server.key` for one name; made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = folder / "ca.crt"
        self.certificate = folder / "server.crt"
        self.key = folder / "server.key"

    def ensure(self, name: str) -> None:
        """Make the authority and the certificate for a name, where they are not there yet."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "authority.lock").open("w") as lock:
            flock(lock, LOCK_EX)
            if not self.ca.exists():
                self._make(name)

    def _make(self, name: str) -> None:
        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        issuer = _subject(_NAME)
        ca = (
            _certificate(issuer, issuer, ca_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        server = (
            _certificate(_subject(name), issuer, key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        files.replace(self.key, _private(key), mode=0o600)
        files.replace(self.certificate, _pem(server), mode=0o600)
        # Last: with it there, all are. The authority's key is kept nowhere.
        files.replace(self.ca, _pem(ca), mode=0o600)

    def trust(self, base: Path, upper: Path) -> None:
        """Have a host's layer trust the authority, just as update-ca-certificates(8) would have it."""
        ours = upper / "usr/local/share/ca-certificates/openclaw-lab.crt"
        ours.parent.mkdir(parents=True, exist_ok=True)
        _publish(ours, self.ca.read_bytes())
        bundle = upper / _BUNDLE
        bundle.parent.mkdir(parents=True, exist_ok=True)
        _publish(bundle, (base / _BUNDLE).read_bytes() + self.ca.read_bytes())
        _link(bundle.with_name("openclaw-lab.pem"), "/usr/local/share/ca-certificates/openclaw-lab.crt")
        certificate = x509.load_pem_x509_certificate(self.ca.read_bytes())
        _link(bundle.with_name(f"{subject_hash(certificate.subject)}.0"), "openclaw-lab.pem")


def subject_hash(subject: x509.Name) -> str:
    """Return what OpenSSL finds a certificate by in a folder, as `openssl x509 -subject_hash` prints it.

    OpenSSL hashes the name in small letters with single spaces; this is right for a name that is so already.
    """
    content = b"".join(x509.Name([part]).public_bytes()[2:] for part in subject)
    return hashlib.sha1(content, usedforsecurity=False).digest()[3::-1].hex()


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _publish(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)


def _link(link: Path, target: str) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)
