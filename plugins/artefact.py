"""Build an app's artefact for one target: the app and its locked dependencies, ready to unpack on a host.

Equal inputs give an equal archive, byte for byte. The inputs are the app's files, its lock, the target and this
file's FORMAT; their digest names the artefact and the release, so a changed app is a new release.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = "1"
# Debian 12's glibc; wheels for an older one run as well.
GLIBC_MINOR = 36
MACHINES = ("x86_64", "aarch64")
# How many archives of an app stay in the cache for each target.
KEEP = 5
# pip writes these with paths or choices of the building machine in them.
UNSTABLE = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
WRAPPER = """#!/bin/sh
# Runs the {app} of this release, whatever directory, links and Python settings it is called with.
set -eu
release=$(dirname "$(dirname "$(readlink -f "$0")")")
unset PYTHONHOME PYTHONSTARTUP
export PYTHONPATH="$release/lib"
exec /usr/bin/python3 -sP -m {app}_app "$@"
"""


class ArtefactError(Exception):
    """An artefact cannot be built; the message says why and what to do."""


@dataclass(frozen=True)
class Target:
    """What an artefact runs on: a Python such as 3.11, and a machine such as x86_64."""

    python: str
    machine: str

    def platforms(self) -> list[str]:
        """Return the platform tags whose wheels run there, newest first."""
        numbered = [f"manylinux_2_{minor}_{self.machine}" for minor in range(GLIBC_MINOR, 16, -1)]
        return [*numbered, f"manylinux2014_{self.machine}"]

    def markers(self) -> dict[str, str]:
        """Return the environment for a requirement's marker; it is the target's, not this machine's."""
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


@dataclass(frozen=True)
class Artefact:
    """A built archive. `release` is the name of the directory it becomes on a host."""

    release: str
    path: Path
    sha256: str


def version_of(project: Path, app: str) -> str:
    """Return the app's version.

    Raises:
        ArtefactError: Its package does not state one.
    """
    package = project / f"{app}_app" / "__init__.py"
    match = re.search(r'^__version__ = "([0-9A-Za-z.+-]+)"$', package.read_text(), re.MULTILINE)
    if not match:
        raise ArtefactError(f'{package}: has no line __version__ = "…".')
    return match[1]


def locked(lock: str, target: Target) -> str:
    """Return the lock's requirements that apply to the target, without their markers."""
    kept = []
    for block in re.findall(r"^[A-Za-z0-9].*(?:\n[ \t]+.*)*", lock, re.MULTILINE):
        lines = [line.strip().removesuffix("\\").strip() for line in block.splitlines()]
        requirement = Requirement(lines[0])
        if requirement.marker and not requirement.marker.evaluate(target.markers()):
            continue
        hashes = [line for line in lines[1:] if line.startswith("--hash=")]
        kept.append(" ".join([f"{requirement.name}{requirement.specifier}", *hashes]))
    return "\n".join([*kept, ""])


def sources(project: Path, app: str) -> dict[str, bytes]:
    """Return the files of the app by their path in the release, compiled ones left out."""
    found = sorted(path for path in (project / f"{app}_app").rglob("*") if path.is_file())
    return {f"lib/{path.relative_to(project)}": path.read_bytes() for path in found if "__pycache__" not in path.parts}


def digest(files: dict[str, bytes], requirements: str, target: Target) -> str:
    """Return the 12 digits that name the content."""
    total = hashlib.sha256(f"{FORMAT}\n{target}\n{WRAPPER}\n{requirements}".encode())
    for name, content in sorted(files.items()):
        total.update(f"\n{name} {hashlib.sha256(content).hexdigest()}".encode())
    return total.hexdigest()[:12]


def _dependencies(requirements: str, target: Target) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        lock, lib = Path(folder, "requirements.txt"), Path(folder, "lib")
        lock.write_text(requirements)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:", "--requirement", str(lock)]
        command += ["--target", str(lib), "--implementation", "cp", "--python-version", target.python]
        command += [f"--platform={platform}" for platform in target.platforms()]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise ArtefactError(f"pip could not fetch the locked packages for {target}: {run.stderr.strip()}")
        found = [path for path in lib.rglob("*") if path.is_file() and path.name not in UNSTABLE]
        named = {f"lib/{path.relative_to(lib)}": path.read_bytes() for path in found}
    return {name: content for name, content in named.items() if not name.startswith("lib/bin/")}


def pack(files: dict[str, bytes]) -> bytes:
    """Return a compressed archive of the files, the same for the same files. What is in bin/ is executable."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o555 if name.startswith("bin/") else 0o444
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def manifest(files: dict[str, bytes]) -> bytes:
    """Return the checksums of the files in the form that `sha256sum --check` reads."""
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items())]
    return "".join(lines).encode()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _publish(path: Path, content: bytes) -> str:
    checksum = hashlib.sha256(content).hexdigest()
    for target, data in ((path, content), (path.with_suffix(".sha256"), f"{checksum}  {path.name}\n".encode())):
        temporary = target.with_name(f".{target.name}")
        temporary.write_bytes(data)
        temporary.replace(target)
    return checksum


def _found(path: Path) -> str | None:
    """Return the checksum of a cached archive, or None if there is none that is whole."""
    try:
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        return checksum if path.with_suffix(".sha256").read_text().split()[:1] == [checksum] else None
    except FileNotFoundError:
        return None


def _forget_old(cache: Path, app: str, target: Target) -> None:
    found = cache.glob(f"{app}-*-{target.python}-{target.machine}.tgz")
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[KEEP:]:
        for part in (path, path.with_suffix(".sha256"), _lock_of(path)):
            part.unlink(missing_ok=True)


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def provide(project: Path, app: str, target: Target, cache: Path) -> Artefact:
    """Return the artefact of an app for a target, from the cache or built. Safe to call from many processes.

    Args:
        project: The root of the repository.
        app: broker or runner.
        target: What it shall run on.
        cache: Directory of built artefacts; made if missing.

    Raises:
        ArtefactError: The target is not supported, or a dependency has no wheel for it.
    """
    if target.machine not in MACHINES:
        raise ArtefactError(f"machine {target.machine} is not supported; supported are {', '.join(MACHINES)}.")
    requirements = locked((project / "requirements" / f"{app}.txt").read_text(), target)
    files = sources(project, app)
    release = f"{version_of(project, app)}-{digest(files, requirements, target)}"
    path = cache / f"{app}-{release}-{target.python}-{target.machine}.tgz"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(_lock_of(path)):
        checksum = _found(path)
        if checksum is None:
            files |= _dependencies(requirements, target)
            files[f"bin/openclaw-{app}"] = WRAPPER.format(app=app).encode()
            checksum = _publish(path, pack({**files, "MANIFEST": manifest(files)}))
            _forget_old(cache, app, target)
    return Artefact(release, path, checksum)
