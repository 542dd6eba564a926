"""The first content of a host's own layer: its name and host key, and either what a cloud tells it or our way in."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from lab.process import run

if TYPE_CHECKING:
    from pathlib import Path

HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
# recipe/prepare put it there.
_PLAIN = "usr/local/lib/lab/plain"


@dataclass(frozen=True)
class Seed:
    """What a cloud tells a server at its first boot: its number, user data, and public keys for root."""

    server: int
    user_data: str
    ssh_keys: tuple[str, ...] = ()


def lay(upper: Path, *, name: str, address: str, proxy: str) -> None:
    """Give a host its name, its key, and the way to packages."""
    etc = upper / "etc"
    (etc / "ssh").mkdir(parents=True)
    (etc / "apt/apt.conf.d").mkdir(parents=True)
    (etc / "hostname").write_text(f"{name}\n")
    (etc / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
    (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
    (etc / "apt/apt.conf.d/00lab-proxy").write_text(f'Acquire::http::Proxy "{proxy}";\n')
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(upper / HOST_KEY)])


def authorize(upper: Path, *, base: Path, public_key: Path) -> None:
    """Give a host without a cloud the account `deploy`, open to a key, and no cloud-init."""
    run(["cp", "-a", f"{base / _PLAIN}/.", str(upper)])
    home = (upper / "home/deploy").stat()
    keys = upper / "home/deploy/.ssh/authorized_keys"
    shutil.copyfile(public_key, keys)
    keys.chmod(0o600)
    os.chown(keys, home.st_uid, home.st_gid)


def sow(upper: Path, seed: Seed, *, name: str) -> None:
    """Leave what the cloud tells a server where cloud-init finds it (its data source NoCloud)."""
    folder = upper / "var/lib/cloud/seed/nocloud"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    meta = {"instance-id": str(seed.server), "local-hostname": name, "public-keys": list(seed.ssh_keys)}
    for file, content in (("meta-data", yaml.safe_dump(meta)), ("user-data", seed.user_data)):
        (folder / file).write_text(content)
        (folder / file).chmod(0o600)
