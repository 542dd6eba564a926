#!/usr/bin/python
"""Disks of agents: a file system in a file, as large as the agent may fill, in one module run."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugins.module_utils.agents import AgentError, bytes_of, reporting, run
else:
    from ansible.module_utils.agents import AgentError, bytes_of, reporting, run

DOCUMENTATION = r"""
module: agent_volumes
short_description: Disks of agents, bounded by a file system in a file
description:
  - Gives each agent's workspace a file system of its own, in a sparse file that only root may open, mounted without
    device files and privileged programs before the agent's user manager starts. What was in the workspace is moved in.
  - A larger size takes effect at once, under running jobs. A kernel that lets root not grow a mounted file system (as
    in a container) grows it unmounted, and the agent and its jobs are stopped for that.
  - An agent whose disk is not mounted is stopped until it is.
  - A smaller size is refused, and one that what is to move in does not fit in. So are sizes that the host's disk cannot
    hold together with something left for itself, since an agent could then fill the host's disk within its own size.
  - A workspace is refused that is not a directory of the agent's own, as a link is, and one that has files beside those
    on its unmounted disk.
  - A run that was cut short, also in the middle of a growth or of a move, is finished by the next one.
options:
  volumes:
    description: The disks that must exist.
    type: list
    elements: dict
    required: true
    suboptions:
      agent:
        description: Name of the agent and of its user, who exists unless in check mode.
        type: str
        required: true
      size:
        description: Bytes, or with one of the suffixes K, M, G, T.
        type: str
        required: true
  absent:
    description: Agents whose disks are to be unmounted, and kept. Their processes are ended.
    type: list
    elements: str
    default: []
  remove:
    description: Whether the disks of absent agents are removed with what is on them.
    type: bool
    default: false
author: openclaw-fleet
"""

RETURN = r"""
actions:
  description: "What was (or in check mode would be) done, as C(agent: action)."
  returned: always
  type: list
"""

FILES = Path("/var/lib/openclaw/volumes")
UNITS = Path("/etc/systemd/system")
SMALLEST = 64 * 2**20
# What disks leave to the host for its logs and its upgrades.
RESERVE = 2 * 2**30
# ext4 has room for no more files than one for each of so many bytes; see mke2fs.conf.
BYTES_PER_FILE = 16384
# ext4 asks for it when it is to grow while it is mounted; see capabilities(7).
CAP_SYS_RESOURCE = 24
SUBOPTIONS: dict[str, Any] = {
    "agent": {"type": "str", "required": True},
    "size": {"type": "str", "required": True},
}


def size_of(declared: str) -> int:
    """Return the bytes of a disk, in whole MiB.

    Raises:
        AgentError: They are not declared as a size, or too few for a file system.
    """
    size = bytes_of(declared, field="limits.disk", whole=2**20)
    if size < SMALLEST:
        raise AgentError(f"limits.disk '{declared}' is too small; give at least {SMALLEST // 2**20}M.")
    return size


def mount_unit(agent: str, workspace: Path) -> str:
    """Return the text of the mount unit."""
    return f"""\
# Managed by Ansible: role runner
[Unit]
Description=Workspace of agent {agent}

[Mount]
What={FILES / agent}.ext4
Where={workspace}
Type=ext4
Options=loop,nosuid,nodev,noatime,discard,errors=remount-ro
"""


def manager_drop_in(workspace: Path) -> str:
    """Return what keeps an agent's user manager from starting without its disk."""
    return f"# Managed by Ansible: role runner\n[Unit]\nRequiresMountsFor={workspace}\n"


def mount_name(workspace: Path) -> str:
    """Return the name that systemd wants for a mount unit; see systemd.unit(5)."""
    escaped = "".join(
        "-" if letter == "/" else letter if re.match(r"[A-Za-z0-9:_.]", letter) else rf"\x{ord(letter):02x}"
        for letter in str(workspace).strip("/")
    )
    return f"{escaped}.mount"


def too_much(sizes: dict[Path, int], free: int) -> str | None:
    """Say why disks do not fit, if one is to be made or to grow and they do not.

    Args:
        sizes: The size that each file is to have.
        free: What the host's file system has left.
    """
    if all(file.exists() and file.stat().st_size >= size for file, size in sizes.items()):
        return None
    taken = sum(file.stat().st_blocks * 512 for file in sizes if file.exists())
    wanted, room = sum(sizes.values()), free + taken - RESERVE
    if wanted <= room:
        return None
    return (
        f"the agents' disks need {wanted // 2**20} MiB together and the host has {max(room, 0) // 2**20} MiB for"
        f" them beside the {RESERVE // 2**20} MiB that it keeps; lower limits.disk of this host's agents."
    )


def may_grow_mounted(status: str) -> bool:
    """Say whether a process may grow a mounted file system, from its /proc/PID/status."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return match is not None and bool(int(match[1], 16) >> CAP_SYS_RESOURCE & 1)


def _stopped(unit: str) -> bool:
    done = subprocess.run(["systemctl", "is-active", unit], capture_output=True, text=True, check=False)
    return done.stdout.strip() in ("inactive", "failed")


def _detach(inside: Path) -> None:
    """Unmount what a run that was killed left; a bind mount is not seen by os.path.ismount."""
    if subprocess.run(["mountpoint", "--quiet", inside], check=False).returncode == 0:
        run("umount", str(inside))


@contextmanager
def _mounted(*what: str) -> Iterator[Path]:
    """Mount something where only root sees it."""
    inside = FILES / "moving"
    _detach(inside)
    inside.mkdir(mode=0o700, exist_ok=True)
    run("mount", *what, str(inside))
    try:
        yield inside
    finally:
        run("umount", str(inside))
        inside.rmdir()


def _free(folder: Path) -> int:
    """Return the bytes that are free where a folder is or will be."""
    while not folder.exists():
        folder = folder.parent
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


class Volume:
    """The disk of one agent.

    A disk is filled before anything can mount it, and a file `.moving` beside it says that the workspace on the host's
    own disk has the same still. Which of both holds is told by the mount unit, the last file to be written: before it
    is there an agent can change the workspace only, from then on the disk only.
    """

    def __init__(self, agent: str, actions: list[str], *, check_mode: bool) -> None:
        self.agent = agent
        self.file = FILES / f"{agent}.ext4"
        self._draft = FILES / f"{agent}.partial"
        self._moving = FILES / f"{agent}.moving"
        # The file system's own size does not tell: it may leave out a last part that is too small for its tables.
        self._growing = FILES / f"{agent}.growing"
        self._actions = actions
        self._check_mode = check_mode
        try:
            self._user: pwd.struct_passwd | None = pwd.getpwnam(agent)
        except KeyError:
            self._user = None
        self._workspace = Path(self._user.pw_dir if self._user else f"/home/{agent}", "workspace")
        self._unit = mount_name(self._workspace)

    def refuse(self, size: int) -> None:
        """Hold a disk to be no smaller than it is, and to have room for what is to move in.

        Raises:
            AgentError: It is larger already, or the workspace cannot move in.
        """
        if not self._unmade() and (now := self.file.stat().st_size) > size:
            raise AgentError(
                f"{self.agent}: limits.disk is {size // 2**20}M, and its disk has {now // 2**20}M already. A disk is"
                f" not made smaller; give at least {now // 2**20}M, or remove the agent with runner_remove_home."
            )
        if self._is_mounted() or not os.path.lexists(self._workspace):
            return
        with self._opened(self._workspace) as folder:
            if not any(folder.iterdir()):
                return
            if self._unmade() and (needed := self._needed(folder)) > size:
                raise AgentError(
                    f"{self.agent}: limits.disk is {size // 2**20}M, and what {self._workspace} has needs"
                    f" {needed // 2**20 + 1}M."
                )
            if not self._unmade() and not self._moving.exists():
                raise AgentError(
                    f"{self.agent}: its disk is not mounted, and {self._workspace} has files that are not on it; move"
                    " them elsewhere."
                )

    def present(self, size: int) -> None:
        """Make, grow and mount the disk."""
        with nullcontext() if self._check_mode or self._is_mounted() else self._at_rest():
            if self._unmade():
                self._do("make disk", lambda: self._make(size))
            elif self.file.stat().st_size < size or self._growing.exists():
                self._do("grow disk", lambda: self._grow(size))
            if not self._is_mounted():
                self._do("mount disk", self._mount)
                return
        if self._write_units() or self._outdated():
            self._do("reload systemd", lambda: run("systemctl", "daemon-reload"))
        if self._moving.exists():
            self._do("remove old copy", self._sweep)

    def absent(self, *, remove: bool) -> None:
        """Unmount the disk, and forget how to mount it."""
        if self._is_mounted():
            self._do("unmount disk", lambda: run("systemctl", "stop", self._unit))
        if self._moving.exists() and not self._unmade():
            self._do("remove old copy", self._sweep)
        files = [file for file in self._units() if file.exists()]
        if files:
            self._do("remove units", lambda: self._forget(files))
        if remove and any(file.exists() for file in self._files()):
            self._do("remove disk", self._remove)

    def _is_mounted(self) -> bool:
        return os.path.ismount(self._workspace)  # and no link to another file system, as is_mount would have it

    def _unmade(self) -> bool:
        """Say whether there is no disk, or only a copy of a workspace that the agent may have changed since."""
        if self._is_mounted():
            return False
        return not self.file.exists() or (self._moving.exists() and not (UNITS / self._unit).exists())

    @contextmanager
    def _opened(self, workspace: Path) -> Iterator[Path]:
        """Give a path to the agent's directory that stays with it, whatever the agent puts in its place.

        Raises:
            AgentError: It is not a directory, or not the agent's: root would copy and empty what a link leads to.
        """
        own = f"{self.agent}: {self._workspace} must be a directory of the agent's own, and no link."
        try:
            number = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except NotADirectoryError:
            raise AgentError(own) from None
        try:
            if self._user is None or os.fstat(number).st_uid != self._user.pw_uid:
                raise AgentError(own)
            yield Path(f"/proc/self/fd/{number}")
        finally:
            os.close(number)

    @staticmethod
    def _needed(folder: Path) -> int:
        """Return the bytes that a disk must have for a directory's content, with ext4's own tables."""
        # 1: a file went away meanwhile
        used, names = (int(run("du", "-s", what, ".", cwd=folder, good=1).split()[0]) for what in ("-B1", "--inodes"))
        return max(used * 8 // 7, names * BYTES_PER_FILE)

    def _do(self, action: str, step: Any) -> None:
        self._actions.append(f"{self.agent}: {action}")
        if not self._check_mode:
            step()

    def _make(self, size: int) -> None:
        """Make the file, its file system and its content under another name first."""
        user = pwd.getpwnam(self.agent)
        FILES.mkdir(mode=0o700, parents=True, exist_ok=True)
        _detach(FILES / "moving")
        self.file.unlink(missing_ok=True)
        with self._draft.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size)
        extended = f"root_owner={user.pw_uid}:{user.pw_gid},assume_storage_prezeroed=1"
        run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", extended, str(self._draft))
        with _mounted("-o", "loop,nosuid,nodev", str(self._draft)) as inside:
            (inside / "lost+found").rmdir()
            if os.path.lexists(self._workspace):
                with self._opened(self._workspace) as folder:
                    run("cp", "-a", ".", str(inside), cwd=folder)
            inside.chmod(0o700)
        self._moving.touch(mode=0o600)
        self._draft.rename(self.file)

    def _grow(self, size: int) -> None:
        self._growing.touch(mode=0o600)
        os.truncate(self.file, size)
        if not self._is_mounted():
            self._grow_unmounted()
        elif may_grow_mounted(Path("/proc/self/status").read_text()):
            device = run("findmnt", "--noheadings", "--output=SOURCE", "--mountpoint", str(self._workspace)).strip()
            run("losetup", "--set-capacity", device)
            run("resize2fs", device)
        else:
            with self._at_rest():
                run("systemctl", "stop", self._unit)
                self._grow_unmounted()
                self._start()
        self._growing.unlink()

    def _grow_unmounted(self) -> None:
        run("e2fsck", "-f", "-p", str(self.file), good=1)  # 1: it found something, and put it right
        run("resize2fs", str(self.file))

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Stop all that the agent runs, and start it again, also where the work between failed."""
        manager = f"user@{pwd.getpwnam(self.agent).pw_uid}.service"
        resume = not _stopped(manager)
        if resume:
            run("systemctl", "stop", manager)
        try:
            yield
        finally:
            if resume:
                run("systemctl", "start", manager)

    def _units(self) -> dict[Path, str]:
        """Return the files of systemd by their paths; the order matters where a run is cut short."""
        uid = self._user.pw_uid if self._user else "NEW"
        return {
            UNITS / f"user@{uid}.service.d" / "50-openclaw-disk.conf": manager_drop_in(self._workspace),
            UNITS / self._unit: mount_unit(self.agent, self._workspace),
        }

    def _write_units(self) -> bool:
        """Write what differs, and say whether anything did."""
        changed = {file: text for file, text in self._units().items() if not file.exists() or file.read_text() != text}
        for file, text in changed.items() if not self._check_mode else ():
            file.parent.mkdir(mode=0o755, exist_ok=True)
            draft = file.with_suffix(".partial")
            draft.write_text(text)
            draft.rename(file)
        return bool(changed)

    def _outdated(self) -> bool:
        return "=yes" in run("systemctl", "show", "--property=NeedDaemonReload", self._unit)

    def _mount(self) -> None:
        """Mount the disk, now and before each start of the agent, and remove what has moved in."""
        user = pwd.getpwnam(self.agent)
        if not self._workspace.exists():  # by the agent itself, whose home it is
            make = ["mkdir", "-m", "700", str(self._workspace)]
            run(*make, user=user.pw_uid, group=user.pw_gid, extra_groups=[])
        self._write_units()
        run("systemctl", "daemon-reload")
        self._start()
        if self._moving.exists():
            self._sweep()

    def _start(self) -> None:
        run("systemctl", "start", self._unit)
        with suppress(OSError):  # it has what e2fsck saved
            (self._workspace / "lost+found").rmdir()

    def _sweep(self) -> None:
        """Empty the workspace on the host's own disk, also under the mounted one."""
        with _mounted("--bind", "--make-private", str(self._workspace.parent)) as home:
            old = home / self._workspace.name
            if os.path.ismount(old):
                raise AgentError(f"{self._workspace} is mounted twice; unmount one.")
            with self._opened(old) as folder:
                if any(folder.iterdir()):
                    os.sync()  # what says that the disk holds, before the originals go
                    run("find", ".", "-mindepth", "1", "-delete", cwd=folder)
        self._moving.unlink()

    def _files(self) -> list[Path]:
        return [self.file, self._draft, self._growing, self._moving]

    def _remove(self) -> None:
        _detach(FILES / "moving")
        for file in self._files():
            file.unlink(missing_ok=True)

    def _forget(self, files: list[Path]) -> None:
        for file in files:
            file.unlink()
            if file.parent != UNITS and not any(file.parent.iterdir()):
                file.parent.rmdir()
        run("systemctl", "daemon-reload")


def main() -> None:
    """Run as an Ansible module: every refusal comes before the first change."""
    module = AnsibleModule(
        argument_spec={
            "volumes": {"type": "list", "elements": "dict", "required": True, "options": SUBOPTIONS},
            "absent": {"type": "list", "elements": "str", "default": []},
            "remove": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    actions: list[str] = []
    check_mode = module.check_mode
    with reporting(module, actions, []):
        sizes = {
            Volume(entry["agent"], actions, check_mode=check_mode): size_of(entry["size"])
            for entry in module.params["volumes"]
        }
        for volume, size in sizes.items():
            volume.refuse(size)
        if why := too_much({volume.file: size for volume, size in sizes.items()}, _free(FILES)):
            raise AgentError(why)
        for volume, size in sizes.items():
            volume.present(size)
        for agent in module.params["absent"]:
            Volume(agent, actions, check_mode=check_mode).absent(remove=module.params["remove"])


if __name__ == "__main__":
    main()
