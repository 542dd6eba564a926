"""Attempts of a broker that was taken over, each made inside a copy of the broker's own unit.

Without arguments, as root: prints {attempt: [outcome, outcome without the directives that stand against it]}.
With the name of an attempt, inside the copy: prints "trying", and then "done" or why it could not be done.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

UNIT = Path("/etc/systemd/system/openclaw-broker.service")
STATE = Path("/var/lib/openclaw-broker")
UNITS = Path("/run/systemd/system")
OUTPUT = Path("/run/broker-probe")
SETUID = Path("/usr/local/bin/broker-probe-id")
# Files that file permissions leave open, so that only the sandbox stands between them and the broker.
TEMPORARY = Path("/tmp")  # noqa: S108 -- it is the place that is tested
OPEN_FILES = [Path(folder, "broker-probe") for folder in ("/home/probe", "/run/user/probe", "/etc/openclaw", TEMPORARY)]
OPEN_FOLDER = Path("/var/lib/broker-probe")
# Everything but who the unit runs as, and where its state is.
ALL = ("(?!ExecStart|Type|User|Group|StateDirectory|StandardOutput)[A-Z][A-Za-z]*",)
AS_ROOT = ("User", "Group", "PrivateUsers")
libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def expect(condition: object, refusal: str) -> None:
    if not condition:
        raise OSError(refusal)


def run_what_it_wrote(folder: Path) -> None:
    program = Path(shutil.copy("/usr/bin/true", folder / f"probe-{os.getpid()}"))
    program.chmod(0o700)
    subprocess.run([program], check=True)


def become_root() -> None:
    shown = subprocess.run([SETUID, "-u"], capture_output=True, text=True, check=True).stdout
    expect(shown == "0\n", f"it is still {shown}")


def own_file() -> Path:
    file = STATE / f"probe-{os.getpid()}"
    file.touch()
    return file


def leave_open_file() -> None:
    expect(own_file().stat().st_mode & 0o077, "nobody else may read it")


def connect(family: int, address: str | tuple[str, int]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        client.connect(address)


def ask_netlink() -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()


def allocate() -> None:
    bytearray(b"x") * (400 << 20)


def fork() -> None:
    children: list[int] = []
    try:
        for _ in range(60):
            child = os.fork()
            if not child:
                time.sleep(60)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def throttled() -> int:
    """How often the kernel has taken the CPU away from the unit for its quota: time alone tells nothing under load."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    folder = next(name for _, controllers, name in lines if "cpu" in controllers.split(",") or not controllers)
    found = [Path(f"/sys/fs/cgroup/{tree}{folder}/cpu.stat") for tree in ("cpu", "cpu,cpuacct", "")]
    stat = next(path for path in found if path.exists()).read_text()
    return int((re.search(r"nr_throttled (\d+)", stat) or [0, 0])[1])


def spin() -> None:
    before, end = throttled(), time.monotonic() + 2
    while time.monotonic() < end:
        pass
    expect(throttled() == before, f"stopped {throttled() - before} times in 2 s")


# What is tried, and the directives without which it can be done. The last one is tried alone.
ATTEMPTS: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "write outside of its state": ((OPEN_FOLDER / "written").touch, ("ProtectSystem",)),
    "read a home": (OPEN_FILES[0].read_bytes, ("ProtectHome",)),
    "read a session's folder": (OPEN_FILES[1].read_bytes, ("ProtectHome",)),
    "read root's home": (Path("/root/.bashrc").read_bytes, ("ProtectHome", *AS_ROOT)),
    "read other programs' settings": (OPEN_FILES[2].read_bytes, ("InaccessiblePaths",)),
    "read the operator's token": (
        Path("/etc/openclaw/operator-token").read_bytes,
        ("InaccessiblePaths", *AS_ROOT),
    ),
    "read others' temporary files": (OPEN_FILES[3].read_bytes, ("PrivateTmp",)),
    "connect to a host": (
        lambda: connect(socket.AF_INET, ("127.0.0.1", 22)),
        ("PrivateNetwork", "RestrictAddressFamilies"),
    ),
    "use a network of its own": (lambda: socket.socket(socket.AF_INET6).close(), ("RestrictAddressFamilies",)),
    "ask the kernel by netlink": (ask_netlink, ("RestrictAddressFamilies",)),
    "talk to the system's bus": (
        lambda: connect(socket.AF_UNIX, "/run/dbus/system_bus_socket"),
        ("InaccessiblePaths",),
    ),
    "see other processes": (lambda: expect(Path("/proc/1").exists(), "not there"), ("ProtectProc",)),
    "see the kernel's settings": (Path("/proc/sys/kernel/ostype").read_bytes, ("ProcSubset",)),
    "open a device": (
        lambda: os.close(os.open("/dev/net/tun", os.O_RDWR)),
        ("PrivateDevices", "DevicePolicy", *AS_ROOT),
    ),
    "become root": (become_root, ALL),
    "make a setuid program": (lambda: own_file().chmod(0o4755), ("RestrictSUIDSGID",)),
    "make a namespace": (lambda: checked(libc.unshare(0x10000000)), ("RestrictNamespaces",)),
    "run memory that it wrote": (
        lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close(),
        ("MemoryDenyWriteExecute",),
    ),
    "run a file of its state": (lambda: run_what_it_wrote(STATE), ("NoExecPaths", "ExecPaths")),
    "run a temporary file": (lambda: run_what_it_wrote(TEMPORARY), ("NoExecPaths", "ExecPaths")),
    "trace a process": (lambda: checked(libc.ptrace(0, 0, 0, 0)), ("SystemCallFilter",)),
    "switch off address randomisation": (lambda: checked(libc.personality(0x0040000)), ("LockPersonality",)),
    "leave a file that others may read": (leave_open_file, ("UMask",)),
    "take more memory than it has": (allocate, ("MemoryMax",)),
    "take more processes than it has": (fork, ("TasksMax",)),
    "write to its state": (own_file, ()),
    "take more CPU time than it has": (spin, ("CPUQuota",)),
}


def plant() -> None:
    OUTPUT.mkdir(exist_ok=True)
    OPEN_FOLDER.mkdir(exist_ok=True)
    OPEN_FOLDER.chmod(0o777)
    for file in OPEN_FILES:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("open to all\n")
        file.chmod(0o644)
    shutil.copy("/usr/bin/id", SETUID)
    SETUID.chmod(0o4755)


def write_unit(name: str, attempt: str, without: tuple[str, ...]) -> None:
    """Copy the broker's unit without some of its directives, for one attempt."""
    command = f'ExecStart=/usr/bin/python3 {Path(__file__)} "{attempt}"\nType=oneshot\n'
    text = re.sub(r"(?m)^(Requires|After|Restart|RestartSec|ExecStart|Type)=.*\n", "", UNIT.read_text())
    text = text.replace("[Service]\n", f"[Service]\n{command}StandardOutput=truncate:{OUTPUT}/{name}\n")
    for directive in without:
        text = re.sub(rf"(?m)^{directive}=.*\n", "", text)
    (UNITS / name).write_text(text)


def outcome(name: str) -> str:
    output = OUTPUT / name
    started, _, said = output.read_text().strip().partition("\n") if output.exists() else ("no output", "", "")
    return (said or "killed") if started == "trying" else f"not tried: {started}"


def main() -> None:
    plant()
    units: dict[str, list[str]] = {}
    try:
        for number, (attempt, (_, without)) in enumerate(ATTEMPTS.items()):
            units[attempt] = [f"broker-probe-{number}-{kind}.service" for kind in ("as-it-is", "without")]
            write_unit(units[attempt][0], attempt, ())
            write_unit(units[attempt][1], attempt, without)
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        *together, as_it_is, without_limit = [name for pair in units.values() for name in pair]
        # The limits of CPU time would disturb each other, and be disturbed.
        for names in (together, [as_it_is], [without_limit]):
            subprocess.run(["systemctl", "start", *names], stderr=subprocess.DEVNULL, check=False)
        print(json.dumps({attempt: [outcome(name) for name in names] for attempt, names in units.items()}))
    finally:
        places = [*UNITS.glob("broker-probe-*"), *STATE.glob("probe-*"), *TEMPORARY.glob("probe-*")]
        for path in (*places, SETUID, *OPEN_FILES):
            path.unlink(missing_ok=True)
        for folder in (OUTPUT, OPEN_FOLDER):
            shutil.rmtree(folder)
        subprocess.run(["systemctl", "reset-failed", "broker-probe-*"], check=True)
        subprocess.run(["systemctl", "daemon-reload"], check=True)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print("trying", flush=True)
        try:
            ATTEMPTS[sys.argv[1]][0]()
        except (OSError, subprocess.SubprocessError) as error:
            print(f"refused: {error}", flush=True)
        else:
            print("done", flush=True)
