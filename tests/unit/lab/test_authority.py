"""The lab's authority: its certificate is verified, and a layer trusts it as Debian's own tools would have it."""

from __future__ import annotations

import shutil
import ssl
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from lab.authority import Authority

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "headscale.fleet.lab"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path / "authority")
    authority.ensure(_NAME)
    return authority


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    base, upper = tmp_path / "base", tmp_path / "upper"
    (base / "etc/ssl/certs").mkdir(parents=True)
    (base / "etc/ssl/certs/ca-certificates.crt").write_text("others\n")
    upper.mkdir()
    return base, upper


def _handshake(authority: Authority, client: ssl.SSLContext, name: str) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.certificate, authority.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue


def test_its_certificate_is_verified_for_the_one_name(authority: Authority) -> None:
    client = ssl.create_default_context(cafile=str(authority.ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.hostname_checks_common_name = False  # as Go's client does not
    _handshake(authority, client, _NAME)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(authority, client, "other.fleet.lab")


def test_a_layer_trusts_it_by_bundle_and_by_folder(authority: Authority, layers: tuple[Path, Path]) -> None:
    base, upper = layers
    authority.trust(base, upper)
    certs = upper / "etc/ssl/certs"
    ours = upper / "usr/local/share/ca-certificates/openclaw-lab.crt"
    assert (certs / "ca-certificates.crt").read_text() == "others\n" + authority.ca.read_text()
    assert ours.read_bytes() == authority.ca.read_bytes()
    assert {stat.S_IMODE(file.stat().st_mode) for file in (ours, certs / "ca-certificates.crt")} == {0o644}
    # As the host sees it: there, the link is absolute.
    (certs / "openclaw-lab.pem").unlink()
    shutil.copy(ours, certs / "openclaw-lab.pem")
    client = ssl.create_default_context(capath=str(certs))
    _handshake(authority, client, _NAME)


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl to compare with")
def test_its_link_is_named_as_openssl_names_it(authority: Authority, layers: tuple[Path, Path]) -> None:
    authority.trust(*layers)
    asked = subprocess.run(
        ["openssl", "x509", "-in", str(authority.ca), "-noout", "-subject_hash"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (layers[1] / f"etc/ssl/certs/{asked.stdout.strip()}.0").is_symlink()


def test_it_is_made_once_and_its_key_is_kept_nowhere(authority: Authority) -> None:
    before = authority.ca.read_bytes()
    authority.ensure(_NAME)
    assert authority.ca.read_bytes() == before
    keys = [file.name for file in authority.key.parent.iterdir() if b"PRIVATE KEY" in file.read_bytes()]
    assert keys == ["server.key"]
    assert stat.S_IMODE(authority.key.stat().st_mode) == 0o600
