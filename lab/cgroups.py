"""Control groups: what holds every process of a host, so that killing it leaves none.

A group is a path such as `openclaw-lab/demo/agents-1`, made in each hierarchy that is mounted: the one of cgroup v2, or
the many of cgroup v1 and the hybrid set-up (cgroups(7)).
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from lab.errors import LabError

# These need values of their own before a process may enter, and nothing here is limited by them.
_UNUSED_CONTROLLERS = {"cpuset", "blkio", "net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc"}
_KILL_SECONDS = 15.0


def hierarchies() -> list[Path]:
    """Return the mount points of the cgroup hierarchies that a host is put into."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        unused = _UNUSED_CONTROLLERS & set(options.split(" ")[-1].split(","))
        if kind in {"cgroup", "cgroup2"} and not unused:
            found.append(Path(left.split(" ")[4]))
    return found


def join(group: str) -> None:
    """Put this process, and so all it starts, into the group; make the group where it is missing."""
    for hierarchy in hierarchies():
        (hierarchy / group).mkdir(parents=True, exist_ok=True)
        (hierarchy / group / "cgroup.procs").write_text("0")


def processes(group: str) -> set[int]:
    """Return the ids of all processes in the group and below it, save those of which no thread lives any more."""
    pids: set[int] = set()
    for procs in _files(group, "cgroup.procs"):
        try:
            pids.update(int(line) for line in procs.read_text().split())
        except OSError:  # the group went away, or is one of threads
            continue
    return pids - {0}


def kill(group: str) -> None:
    """Kill every process in the group and below it, save the caller, and return when none is left.

    Raises:
        LabError: some were still there after 15 s.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while left := processes(group) - {os.getpid()}:
        if time.monotonic() > deadline:
            raise LabError(f"processes {sorted(left)} in {group} did not die")
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        thaw(group)  # what is frozen dies when it goes on
        time.sleep(0.01)


def freeze(group: str) -> None:
    """Stop every process in the group and below it, and return when all have stopped.

    Raises:
        LabError: some were still going after 15 s.
    """
    folder, file, frozen, _ = _freezer(group)
    (folder / file).write_text(frozen)
    deadline = time.monotonic() + _KILL_SECONDS
    while not _is_frozen(folder):
        if time.monotonic() > deadline:
            raise LabError(f"processes in {group} did not stop")
        time.sleep(0.01)


def thaw(group: str) -> None:
    """Let every process in the group and below it go on."""
    top, file, _, thawed = _freezer(group)
    for folder, _, _ in os.walk(top):
        with suppress(FileNotFoundError):
            (Path(folder) / file).write_text(thawed)


def alone(group: str, pid: int) -> str:
    """Return a group for freezing that has one process of the group only.

    With cgroup v2 that is the process's own group, which its service manager made. In the freezer of cgroup v1, which
    no service manager uses, a group is made for it.
    """
    single = f"{group}/process-{pid}"
    folder, file, _, _ = _freezer(single)
    if file == "cgroup.freeze":
        return Path(f"/proc/{pid}/cgroup").read_text().partition("0::/")[2].strip()
    folder.mkdir(exist_ok=True)
    (folder / "cgroup.procs").write_text(str(pid))
    return single


def _freezer(group: str) -> tuple[Path, str, str, str]:
    """Return where a group is frozen: its folder, the file, and what to write into it to freeze and to thaw."""
    for root in hierarchies():
        if root.name == "freezer":
            return root / group, "freezer.state", "FROZEN", "THAWED"
    root = next(root for root in hierarchies() if (root / "cgroup.subtree_control").exists())
    return root / group, "cgroup.freeze", "1", "0"


def _is_frozen(folder: Path) -> bool:
    state = folder / "freezer.state"
    if state.exists():
        return state.read_text().strip() == "FROZEN"
    return "frozen 1" in (folder / "cgroup.events").read_text()


def remove(group: str) -> None:
    """Remove the group and all below it from every hierarchy; its processes must be gone."""
    for hierarchy in hierarchies():
        tree = hierarchy / group
        for folder, _, _ in os.walk(tree, topdown=False):
            _remove_folder(Path(folder))


def remove_if_empty(group: str) -> None:
    """Remove the group where nothing is below it."""
    for hierarchy in hierarchies():
        tree = hierarchy / group
        with suppress(OSError):  # something is below it, or it is gone
            tree.rmdir()


def _remove_folder(folder: Path) -> None:
    deadline = time.monotonic() + _KILL_SECONDS
    while folder.exists():
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # the kernel is still letting go of its last process
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _files(group: str, name: str) -> list[Path]:
    return [Path(folder) / name for root in hierarchies() for folder, _, _ in os.walk(root / group)]
