"""Everything on a host that outlives a reboot, and what it runs, as sorted lines; read from the host itself.

Fed to the host's own Python (3.11 and later) on standard input, so it imports nothing of ours.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

# Not looked at, and why; neither are their backups, which end in a dash.
VOLATILE = {
    "proc": "the kernel's",
    "sys": "the kernel's",
    "dev": "the kernel's",
    "run": "made anew at every boot",
    "tmp": "made anew at every boot",
    "var/tmp": "folders of running units, named at random",
    "var/log": "what happened, not what is there",
    "var/cache": "made anew from what is listed: apt's archives, ldconfig, debconf",
    "var/lib/apt": "package lists, and notes of when they were fetched",
    "var/lib/systemd/timers": "when timers ran",
    "var/lib/dpkg": "dpkg's notes of packages, which are listed by themselves",
    "etc/.pwd.lock": "an empty file that the first change of an account leaves",
    "etc/passwd": "accounts are listed by themselves",
    "etc/group": "accounts are listed by themselves",
    "etc/shadow": "accounts are listed by themselves",
    "etc/gshadow": "accounts are listed by themselves",
    "etc/subuid": "accounts are listed by themselves",
    "etc/subgid": "accounts are listed by themselves",
}
_LARGEST = 64 * 2**20  # of a file whose content is read: an agent's disk is larger
_SKIPPED = {Path("/", name) for path in VOLATILE for name in (path, f"{path}-")}
# Sessions and mounts come and go; a service, socket or timer is somebody's decision.
_UNITS = ("--type=service,socket,timer,path,slice", "--state=running,listening,waiting,enabled,enabled-runtime,masked")


def _files() -> list[str]:
    found: list[str] = []
    for folder, names, files in os.walk("/"):
        paths = [Path(folder, name) for name in (*names, *files)]
        names[:] = [path.name for path in paths if path.name in names and path not in _SKIPPED]
        found.extend(f"file {path} {_describe(path)}" for path in paths if path not in _SKIPPED)
    return found


def _describe(path: Path) -> str:
    status = path.lstat()
    owner = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"{owner} -> {path.readlink()}"
    if status.st_size > _LARGEST:
        return f"{owner} of {status.st_size} bytes"
    if stat.S_ISREG(status.st_mode):
        return f"{owner} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return owner


def _lines(kind: str, *argv: str) -> list[str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [f"{kind} {' '.join(line.split())}" for line in done.stdout.splitlines() if line.strip()]


def _accounts() -> list[str]:
    """Accounts with their groups and the state of their password; the date of its last change is left out."""
    shadow = [line.split(":") for line in Path("/etc/shadow").read_text().splitlines()]
    passwords = [f"password {name} {'set' if secret.strip('!*') else secret}" for name, secret, *_ in shadow]
    return [*_lines("user", "getent", "passwd"), *_lines("group", "getent", "group"), *passwords]


def _units() -> list[str]:
    files = _lines("unit-file", "systemctl", "list-unit-files", "--no-legend", *_UNITS)
    loaded = _lines("unit", "systemctl", "list-units", "--no-legend", "--plain", *_UNITS)
    return [*files, *(" ".join(line.split()[:2]) for line in loaded)]


def _listening() -> list[str]:
    columns = [line.split() for line in _lines("listening", "ss", "-Hltun")]
    return sorted({f"{kind} {protocol} {address}" for kind, protocol, _, _, _, address, *_ in columns})


def main() -> None:
    packages = _lines("package", "dpkg-query", "--show", "--showformat", "${Package} ${Version} ${db:Status-Status}\n")
    ruleset = _lines("nft", "nft", "--stateless", "list", "ruleset")
    print("\n".join([*sorted(_files()), *_accounts(), *_units(), *_listening(), *packages, *ruleset]))


if __name__ == "__main__":
    main()
