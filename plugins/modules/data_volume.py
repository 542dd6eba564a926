#!/usr/bin/python
"""See that a block device can be mounted on a folder: with a file system, and nothing in the folder to be hidden."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: data_volume
short_description: See that a block device can be mounted on a folder
description:
  - Makes an ext4 file system on a blank device. A device that has anything on it is never written to; one with a file
    system is taken as it is, one with something else is refused.
  - An ext4 that is smaller than its device, which has grown, is grown too, mounted or not. A kernel that lets root not
    grow a mounted one (as in a container) has to have it unmounted for that, and the module says so.
  - Refuses a folder that has files beside those of the device, or that something else is mounted on.
  - Mounts nothing; that is a unit's work.
options:
  device:
    description: The block device, by a path that stays, as those in C(/dev/disk/by-id) do.
    type: path
    required: true
  folder:
    description: Where it is to be mounted.
    type: path
    required: true
author: openclaw-fleet
"""

RETURN = r"""
grown:
  description: Whether the file system was grown to the size of its device, or would be.
  returned: always
  type: bool
filesystem:
  description: Type of the file system that the device has, or would have.
  returned: always
  type: str
"""

FILE_SYSTEMS = ("ext4", "xfs")
# What a file system or a partition table leaves there is told by blkid; anything else is somebody's data.
BLANK_BYTES = 2**20


# ext4 has no use for less than a group of blocks at its end, which may be 128 MiB; a volume grows by whole GB.
UNUSED_BYTES = 2**28
# ext4 asks for it when it is to grow while it is mounted; see capabilities(7).
CAP_SYS_RESOURCE = 24


class VolumeError(Exception):
    """The device cannot be mounted on the folder; the message says why, and the remedy."""


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def _checked(*argv: str, good: int = 0) -> str:
    done = _run(*argv)
    if done.returncode not in (0, good):
        raise VolumeError(f"{argv[-1]}: {argv[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def check_folder(device: Path, folder: Path) -> None:
    """Refuse a folder whose files the device would hide.

    Raises:
        VolumeError: Says how to move them.
    """
    if os.path.ismount(folder):
        if folder.stat().st_dev != device.stat().st_rdev:
            raise VolumeError(f"{folder}: something other than {device} is mounted there; unmount it first.")
    elif folder.exists() and any(folder.iterdir()):
        raise VolumeError(
            f"{folder} has files, which {device} would hide. Stop what uses them, mount the device elsewhere, move the"
            f" files onto it with their owners ('cp -a {folder}/. …', then empty {folder}), and run again."
        )


def read(device: Path) -> str:
    """Return the type of the file system on a device, "" for a blank one.

    Raises:
        VolumeError: It is no block device, or has something else on it.
    """
    try:
        is_device = stat.S_ISBLK(device.stat().st_mode)
    except FileNotFoundError as error:
        raise VolumeError(f"{device}: there is no such device; is the volume attached to this server?") from error
    if not is_device:
        raise VolumeError(f"{device}: is no block device.")
    probe = _run("blkid", "--probe", "--output", "export", str(device))
    found = dict(line.split("=", 1) for line in probe.stdout.splitlines() if "=" in line)
    kind = found.get("TYPE", "")
    if kind in FILE_SYSTEMS and probe.returncode == 0:
        return kind
    if found or probe.returncode not in (0, 2) or not is_blank(device):
        what = kind or found.get("PTTYPE", "") or "unknown data"
        raise VolumeError(
            f"{device}: has {what} on it, and not {' or '.join(FILE_SYSTEMS)}. It stays as it is; name another device,"
            f" or, if nobody needs what is there, 'wipefs --all {device}' and overwrite its first MiB."
        )
    return ""


def is_blank(device: Path) -> bool:
    """Whether the beginning of a device has never been written to."""
    with device.open("rb") as stream:
        return not any(stream.read(BLANK_BYTES))


def can_grow(device: Path) -> bool:
    """Whether a device has room that its ext4 does not use.

    Raises:
        VolumeError: The file system cannot be read.
    """
    said = _checked("dumpe2fs", "-h", str(device))
    counts = dict(re.findall(r"^Block (count|size):\s+(\d+)$", said, re.MULTILINE))
    used = int(counts["count"]) * int(counts["size"])
    return int(_checked("blockdev", "--getsize64", str(device))) - used >= UNUSED_BYTES


def grow(device: Path, folder: Path) -> None:
    """Have an ext4 use all of its device.

    Raises:
        VolumeError: It could not.
    """
    if not os.path.ismount(folder):
        _checked("e2fsck", "-f", "-p", str(device), good=1)  # 1: it found something, and put it right
    _checked("resize2fs", str(device))


def check_growth(device: Path, folder: Path) -> None:
    """Refuse what the kernel would.

    Raises:
        VolumeError: Says to unmount it.
    """
    if os.path.ismount(folder) and not may_grow_mounted(Path("/proc/self/status").read_text()):
        raise VolumeError(
            f"{device}: is larger than its file system, and this host's kernel lets nobody grow it while it is mounted."
            f" Stop what uses {folder}, unmount it, and run again."
        )


def may_grow_mounted(status: str) -> bool:
    """Say whether a process may grow a mounted file system, from its /proc/PID/status."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return match is not None and bool(int(match[1], 16) >> CAP_SYS_RESOURCE & 1)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "device": {"type": "path", "required": True},
            "folder": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    device, folder = Path(module.params["device"]), Path(module.params["folder"])
    try:
        kind = read(device)
        check_folder(device, folder)
        grows = kind == "ext4" and can_grow(device)
        if grows:
            check_growth(device, folder)
        if not kind and not module.check_mode:
            # Without -F it looks again, and refuses a device with a file system by itself.
            _checked("mkfs.ext4", "-q", "-m", "0", str(device))
        if grows and not module.check_mode:
            grow(device, folder)
    except (OSError, VolumeError) as error:
        module.fail_json(msg=str(error))
    made = kind or FILE_SYSTEMS[0]
    diff: dict[str, Any] = {
        "before": f"{kind}{', smaller than its device' * grows}\n" if kind else "",
        "after": f"{made}\n",
    }
    module.exit_json(changed=grows or not kind, filesystem=made, grown=grows, diff=diff)


if __name__ == "__main__":
    main()
