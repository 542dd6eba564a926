#!/usr/bin/python
"""Install tailscale from the archive of its programs and unit, in one module run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: tailscale_archive
short_description: Install tailscale from the archive of its programs and unit
description:
  - The archive is of the layout that Tailscale publishes as static binaries. It is looked at and copied only for a
    host that does not have the version.
  - The daemon's settings in C(/etc/default/tailscaled) are placed where there are none, and never changed.
options:
  archive:
    description: The archive on the controller.
    type: path
    required: true
  sha256:
    description: Its checksum.
    type: str
    required: true
  version:
    description: The version that it holds.
    type: str
    required: true
  src:
    description: The archive on the host; set by the action when it was copied.
    type: path
author: openclaw-fleet
"""

RETURN = r"""
missing:
  description: Whether the host does not have the version and no archive was given.
  returned: always
  type: bool
"""

# The daemon stands last: its version says whether all is in place.
FILES = {
    "systemd/tailscaled.defaults": ("etc/default/tailscaled", 0o644),
    "systemd/tailscaled.service": ("etc/systemd/system/tailscaled.service", 0o644),
    "tailscale": ("usr/bin/tailscale", 0o755),
    "tailscaled": ("usr/sbin/tailscaled", 0o755),
}
SETTINGS = "systemd/tailscaled.defaults"
DAEMON = "tailscaled"
PACKAGE_LIST = "var/lib/dpkg/info/tailscale.list"


class ArchiveError(Exception):
    """The archive cannot be installed; the message says why, and the remedy."""


def version_of(program: Path) -> str:
    """Return the version of a daemon's program, without what a build adds to it; "" if it says none."""
    try:
        run = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.partition("\n")[0].partition("-")[0]


def is_installed(version: str, root: Path = Path("/")) -> bool:
    """Whether all files are there, and the daemon's program is of the version."""
    paths = [root / place for place, _ in FILES.values()]
    return all(path.exists() for path in paths) and version_of(paths[-1]) == version


def contents(archive: Path, sha256: str) -> dict[str, bytes]:
    """Return the files of an archive, by their names below its one folder.

    Raises:
        ArchiveError: It has another checksum, or one of the files is not in it.
    """
    if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
        raise ArchiveError(f"{archive}: has not the checksum {sha256}; it was damaged on the way, run again.")
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as opened:
        for member in opened:
            name = str(PurePosixPath(*PurePosixPath(member.name).parts[1:]))
            stream = opened.extractfile(member) if name in FILES and member.isreg() else None
            if stream is not None:
                found[name] = stream.read()
    if lacking := sorted(set(FILES) - set(found)):
        raise ArchiveError(f"{archive}: has no {', '.join(lacking)}; it is no archive of Tailscale's static binaries.")
    return found


def _stage(target: Path, content: bytes, mode: int) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())
    return Path(name)


def install(archive: Path, sha256: str, version: str, root: Path = Path("/")) -> None:
    """Put the archive's files in place, each whole or not at all, and none before the new daemon said its version.

    Raises:
        ArchiveError: The archive is not what was asked for.
    """
    staged: dict[Path, Path] = {}
    try:
        for name, content in contents(archive, sha256).items():
            target = root / FILES[name][0]
            if name != SETTINGS or not target.exists():
                staged[target] = _stage(target, content, FILES[name][1])
        daemon = root / FILES[DAEMON][0]
        if (found := version_of(staged[daemon])) != version:
            raise ArchiveError(
                f"{archive}: its {DAEMON} says '{found}' for its version, and {version} is wanted; is it the archive of"
                " this version, and for this machine's processor?"
            )
        for place, _ in FILES.values():
            if temporary := staged.pop(root / place, None):
                temporary.replace(root / place)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def run(params: dict[str, Any], *, check_mode: bool, root: Path = Path("/")) -> dict[str, Any]:
    """Install where the version is missing, and return the module's result.

    Raises:
        ArchiveError: The archive is not what was asked for, or the programs are a package's.
    """
    if (root / PACKAGE_LIST).exists():
        raise ArchiveError(
            "tailscale is installed as a package; set tailscale_install to package, or remove it ('apt-get purge"
            " tailscale')."
        )
    wanted: str = params["version"]
    if is_installed(wanted, root):
        return {"changed": False, "missing": False}
    before = version_of(root / FILES[DAEMON][0])
    diff = {"before": f"tailscale {before}\n" if before else "", "after": f"tailscale {wanted}\n"}
    if params["src"] and not check_mode:
        install(Path(params["src"]), params["sha256"], wanted, root)
    return {"changed": True, "missing": not params["src"], "diff": diff}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True, "no_log": False},
            "version": {"type": "str", "required": True},
            "src": {"type": "path"},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    try:
        module.exit_json(**run(module.params, check_mode=module.check_mode))
    except (OSError, tarfile.TarError, ArchiveError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
