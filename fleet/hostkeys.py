"""Host keys as ssh_config(5) has them: HostKeyAlias and StrictHostKeyChecking=accept-new, which paramiko does not know.

Both ssh(1) and this read and write the same file: what one of them has learnt, the other checks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko

if TYPE_CHECKING:
    import fabric

    Settings = dict[str, list[str]]


def check(connection: fabric.Connection, settings: Settings) -> None:
    """Have a connection accept the keys that are known for its host, and others only as far as the settings say.

    Args:
        connection: Not open yet.
        settings: As `ssh -G` prints them: lists of values by keywords in small letters.
    """
    standard = connection.port == paramiko.config.SSH_PORT
    asked = connection.host if standard else f"[{connection.host}]:{connection.port}"
    name = settings.get("hostkeyalias", [asked])[0]
    keys = connection.client.get_host_keys()
    for file in known_hosts(settings):
        for kind, key in (paramiko.HostKeys(file).lookup(name) or {}).items():
            keys.add(asked, kind, key)
    connection.client.set_missing_host_key_policy(_policy(settings, name))


def known_hosts(settings: Settings) -> list[str]:
    """Return the files of known host keys that exist."""
    listed = [file for keyword in ("userknownhostsfile", "globalknownhostsfile") for file in _files(settings, keyword)]
    return [str(file) for file in listed if file.is_file()]


def _policy(settings: Settings, name: str) -> paramiko.MissingHostKeyPolicy:
    files = _files(settings, "userknownhostsfile")
    if settings.get("stricthostkeychecking") == ["accept-new"] and files:
        return _AcceptNew(name, files[0])
    return paramiko.RejectPolicy()


def _files(settings: Settings, keyword: str) -> list[Path]:
    found: list[Path] = []
    for value in settings.get(keyword, []):
        # `ssh -G` parts several files by spaces, and does not quote a space in the name of one.
        names = [value] if Path(value).expanduser().parent.is_dir() else value.split()
        found += [Path(name).expanduser() for name in names]
    return found


class _AcceptNew(paramiko.MissingHostKeyPolicy):
    """Learns the key of a host of which none is known; it is asked for no other."""

    def __init__(self, name: str, file: Path) -> None:
        self._name = name
        self._file = file

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Write the key down where ssh(1) would."""
        line = f"{self._name} {key.get_name()} {key.get_base64()}\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(line)
