"""Tailscale's programs as the archive that Tailscale publishes, for hosts that have no package source for them."""

from __future__ import annotations

import gzip
import hashlib
import io
import platform
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FILES = {
    "tailscale": ("tailscale", 0o755),
    "tailscaled": ("tailscaled", 0o755),
    "systemd/tailscaled.service": ("tailscaled.service", 0o644),
    "systemd/tailscaled.defaults": ("tailscaled.defaults", 0o644),
}


def file(built: Path, *, version: str) -> Path:
    """Return the archive of a folder that `pack` was called for."""
    return built / f"{_name(version)}.tgz"


def pack(programs: Path, *, version: str) -> None:
    """Write the archive beside the programs and their units, and its SHA-256; the same files give the same bytes."""
    target = file(programs, version=version)
    content = _pack(programs, _name(version))
    target.write_bytes(content)
    target.with_name(f"{target.name}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {target.name}\n")


def _name(version: str) -> str:
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    return f"tailscale_{version.removeprefix('v')}_{architecture}"


def _pack(built: Path, name: str) -> bytes:
    packed = io.BytesIO()
    # No time of day in it: neither gzip's nor the files'.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=6) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for folder in (name, f"{name}/systemd"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, (file, mode) in _FILES.items():
            content = (built / file).read_bytes()
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
