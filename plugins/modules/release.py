#!/usr/bin/python
"""Unpack an app's artefact into an immutable release, and point links to it, in one module run."""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from py_compile import PycInvalidationMode
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: release
short_description: Install a release of an app and point links to it
description:
  - Finds or builds the app's artefact for the host's Python and machine on the controller, and copies it only to
    a host that does not have the release, or whose release is damaged.
  - Old releases are removed, but none that a link points to or that the unit of a job names.
options:
  app:
    description: Which app.
    type: str
    choices: [broker, runner]
    required: true
  root:
    description: Directory of the app's releases.
    type: path
    required: true
  links:
    description: Directories in which C(current) shall point to the release, and C(previous) to the one before.
    type: list
    elements: path
    default: []
  protect:
    description: Patterns of further links, whose releases are kept as well.
    type: list
    elements: str
    default: []
  keep:
    description: How many releases stay on the host.
    type: int
    default: 3
  cache:
    description: The controller's directory of built artefacts.
    type: str
    default: ~/.cache/openclaw-fleet/artefacts
  name:
    description: Name of the release; set by the action.
    type: str
  sha256:
    description: Checksum of the artefact; set by the action.
    type: str
  src:
    description: The artefact on the host; set by the action when it was copied.
    type: path
author: openclaw-fleet
"""

RETURN = r"""
path:
  description: Directory of the release.
  returned: always
  type: str
missing:
  description: Whether the host has no intact release and no artefact was given.
  returned: always
  type: bool
"""

IN_USE = "run/user/*/systemd/user/*.service"


class ReleaseError(Exception):
    """A release cannot be installed."""


MANIFESTS = ("MANIFEST", "COMPILED")


def intact(release: Path) -> bool:
    """Whether the release is there, nobody may write to it, and its files are those of its manifests, unchanged."""
    statuses = [path.lstat() for path in (release, *release.rglob("*")) if path.exists()]
    if any(status.st_mode & 0o222 or status.st_uid != os.geteuid() for status in statuses):
        return False
    try:
        listed = checksums("".join((release / manifest).read_text() for manifest in MANIFESTS))
        found = {str(path.relative_to(release)) for path in release.rglob("*") if not path.is_dir()}
        if found != {*listed, *MANIFESTS}:
            return False
        return all(checksum(release / name) == wanted for name, wanted in listed.items())
    except (FileNotFoundError, ValueError):
        return False


def checksum(path: Path) -> str:
    """Return the file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checksums(manifest: str) -> dict[str, str]:
    """Return the checksums of a manifest by the file's name.

    Raises:
        ValueError: A line is none of a manifest's.
    """
    lines = [line.split("  ", 1) for line in manifest.splitlines()]
    return {name: wanted for wanted, name in lines}


def unpack(archive: Path, sha256: str, folder: Path) -> None:
    """Unpack an archive of plain files.

    Raises:
        ReleaseError: Its checksum is another, or a member is not a plain file below the folder.
    """
    if checksum(archive) != sha256:
        raise ReleaseError(f"{archive}: has not the checksum {sha256}; it was damaged on the way, run again.")
    with tarfile.open(archive) as opened:
        for member in opened:
            name = PurePosixPath(member.name)
            stream = opened.extractfile(member) if member.isreg() else None
            if stream is None or name.is_absolute() or ".." in name.parts:
                raise ReleaseError(f"{archive}: member {member.name} is not a plain file of the release.")
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stream.read())
            path.chmod(member.mode)


def _delete(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def install(root: Path, name: str, archive: Path, sha256: str) -> None:
    """Make the release appear whole or not at all.

    Raises:
        ReleaseError: The archive is not what was asked for, or the disk does not give back what was written to it.
    """
    release, partial, damaged = root / name, root / f"{name}.partial", root / f"{name}.damaged"
    for leftover in (partial, damaged):
        if leftover.exists():
            _delete(leftover)
    partial.mkdir()
    unpack(archive, sha256, partial)
    compileall.compile_dir(
        partial / "lib",
        quiet=2,
        stripdir=str(partial),
        prependdir=str(release),
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    compiled = sorted(partial.rglob("*.pyc"))
    lines = [f"{checksum(path)}  {path.relative_to(partial)}\n" for path in compiled]
    (partial / "COMPILED").write_text("".join(lines))
    for path in (*compiled, partial / "COMPILED"):
        path.chmod(0o444)
    for path in (*partial.rglob("*"), partial):
        if path.is_dir():
            path.chmod(0o555)
    os.sync()
    if not intact(partial):
        raise ReleaseError(f"{partial}: what is on the disk is not what was unpacked; look at the disk, and run again.")
    if release.exists():
        release.rename(damaged)
    partial.rename(release)
    os.sync()
    if damaged.exists():
        _delete(damaged)


def switches(release: Path, folders: list[Path]) -> dict[Path, str | None]:
    """Return the folders whose current link is not the release's, with what it points to now."""
    before: dict[Path, str | None] = {}
    for folder in folders:
        link = folder / "current"
        before[folder] = str(link.readlink()) if link.is_symlink() else None
    return {folder: target for folder, target in before.items() if target != str(release)}


def _point(link: Path, target: str) -> None:
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def switch(release: Path, folder: Path, before: str | None) -> None:
    """Point a folder's current to the release, and its previous to the one before."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if before:
        _point(folder / "previous", before)
    _point(folder / "current", str(release))


def superfluous(root: Path, keep: int, links: list[Path], system: Path = Path("/")) -> list[Path]:
    """Return the releases that may go: not the newest, not pointed to, not named by the unit of a job."""
    releases = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime)
    used = {link.resolve() for link in links if link.is_symlink()}
    units = "".join(unit.read_text(errors="replace") for unit in system.glob(IN_USE) if unit.is_file())
    return [path for path in releases[keep:] if path.resolve() not in used and str(path) not in units]


def run(params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Install, switch and clean up; return the module's result.

    Raises:
        ReleaseError: The artefact is not what was asked for.
    """
    root, folders = Path(params["root"]), [Path(folder) for folder in params["links"]]
    release = root / params["name"]
    before = switches(release, folders)
    missing = not intact(release)
    result = {
        "path": str(release),
        "missing": missing and not params["src"],
        "changed": missing or bool(before),
        "diff": {
            "before": "".join(f"{folder}/current -> {target}\n" for folder, target in before.items() if target),
            "after": "".join(f"{folder}/current -> {release}\n" for folder in before),
        },
    }
    if check_mode or result["missing"]:
        return result
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if missing:
            install(root, params["name"], Path(params["src"]), params["sha256"])
        for folder, target in before.items():
            switch(release, folder, target)
        links = [folder / name for folder in folders for name in ("current", "previous")]
        links += [path for pattern in params["protect"] for path in Path("/").glob(pattern.lstrip("/"))]
        for old in superfluous(root, params["keep"], links):
            _delete(old)
    return result


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "choices": ["broker", "runner"], "required": True},
            "root": {"type": "path", "required": True},
            "links": {"type": "list", "elements": "path", "default": []},
            "protect": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "int", "default": 3},
            "cache": {"type": "str", "default": "~/.cache/openclaw-fleet/artefacts"},
            "name": {"type": "str"},
            "sha256": {"type": "str", "no_log": False},
            "src": {"type": "path"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        module.exit_json(**run(module.params, check_mode=module.check_mode))
    except (OSError, ReleaseError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
