"""A certificate for the coordinator, for houses that have no certificate authority of their own at hand."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from medtrust.errors import ConfigError
from medtrust.flower.serving import Tls
from medtrust.writing import write_atomically

__all__ = ["make_certificate"]


def make_certificate(names: list[str], folder: Path, days: int = 365) -> Tls:
    """Make an authority that signs this one certificate and is then forgotten, and the certificate.

    Args:
        names: Host names or addresses by which the sites reach the coordinator.
        folder: Receives `ca.pem` (for the sites), `server.pem` and `server.key` (stay here).
        days: How long they are valid.

    Raises:
        ConfigError: The folder holds such files already.
    """
    made = Tls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    for path in (made.ca, made.certificate, made.key):
        if path.exists():
            raise ConfigError(f"{path} exists; a certificate that was given out is kept: choose another folder")
    authority, server = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    issuer = _name(f"medtrust federated, for {names[0]}")
    ca = (
        _builder(issuer, issuer, authority, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, SHA256())
    )
    # Flower's own processes reach the SuperLink by this machine's own address
    places = [_place(name) for name in dict.fromkeys([*names, "localhost", "127.0.0.1", "::1"])]
    certificate = (
        _builder(_name(names[0]), issuer, server, days)
        .add_extension(x509.SubjectAlternativeName(places), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, SHA256())
    )
    secret = server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(made.key, secret, mode=0o600)
    write_atomically(made.certificate, certificate.public_bytes(Encoding.PEM))
    write_atomically(made.ca, ca.public_bytes(Encoding.PEM))
    return made


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _place(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
