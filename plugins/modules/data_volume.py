#!/usr/bin/python
"""See that a block device can be mounted on a folder: with a file system, and nothing in the folder to be hidden."""

from __future__ import annotations

import os
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
filesystem:
  description: Type of the file system that the device has, or would have.
  returned: always
  type: str
"""

FILE_SYSTEMS = ("ext4", "xfs")
# What a file system or a partition table leaves there is told by blkid; anything else is somebody's data.
BLANK_BYTES = 2**20


class VolumeError(Exception):
    """The device cannot be mounted on the folder; the message says why, and the remedy."""


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


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
        if not kind and not module.check_mode:
            # Without -F it looks again, and refuses a device with a file system by itself.
            made = _run("mkfs.ext4", "-q", "-m", "0", str(device))
            if made.returncode:
                raise VolumeError(f"{device}: mkfs.ext4 failed: {made.stderr.strip()}")
    except (OSError, VolumeError) as error:
        module.fail_json(msg=str(error))
    diff: dict[str, Any] = {"before": "" if not kind else f"{kind}\n", "after": f"{kind or FILE_SYSTEMS[0]}\n"}
    module.exit_json(changed=not kind, filesystem=kind or FILE_SYSTEMS[0], diff=diff)


if __name__ == "__main__":
    main()
