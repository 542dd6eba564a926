#!/usr/bin/python
"""Linux users of agents: account, limits on the user's slice, lingering, in one module run."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from plugins.module_utils.agents import AgentError, bytes_of, reporting, run
else:
    from ansible.module_utils.agents import AgentError, bytes_of, reporting, run

DOCUMENTATION = r"""
module: agent_accounts
short_description: Linux users of agents with their limits and lingering
description:
  - Makes each agent's user, lays down its limits before lingering starts its user manager, and then reads the
    kernel's cgroup files. A limit that is not in force there is set at once, and if that does not help, it fails.
  - Accounts are members of the group openclaw-agents, which the role base keeps from logging in over SSH.
options:
  agents:
    description: The agents that must exist.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the agent and of its user.
        type: str
        required: true
      memory:
        description: Bytes, or with one of the suffixes K, M, G, T.
        type: str
        required: true
      cpu:
        description: Share of one CPU, such as V(150%).
        type: str
        required: true
      tasks:
        description: Number of processes and threads.
        type: int
        required: true
  absent:
    description: Agents that must be gone. Their processes are ended.
    type: list
    elements: str
    default: []
  remove_home:
    description: Whether a removed agent's account and home go too.
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

GROUP = "openclaw-agents"
UNITS = Path("/etc/systemd/system")
LINGER = Path("/var/lib/systemd/linger")
CGROUP = Path("/sys/fs/cgroup")
PAGE = os.sysconf("SC_PAGE_SIZE")
SUBOPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "memory": {"type": "str", "required": True},
    "cpu": {"type": "str", "required": True},
    "tasks": {"type": "int", "required": True},
}


def memory_of(agent: dict[str, Any]) -> int:
    """Return an agent's bytes of memory, down to whole pages as the kernel keeps them.

    Raises:
        AgentError: They are not declared as a size.
    """
    return bytes_of(agent["memory"], field="limits.memory", whole=PAGE)


def percent_of(cpu: str) -> int:
    """Return the number before the percent sign.

    Raises:
        AgentError: There is none.
    """
    match = re.fullmatch(r"([1-9]\d*)%", cpu)
    if not match:
        raise AgentError(f"limits.cpu '{cpu}' must be a percentage of one CPU, such as 150%.")
    return int(match[1])


def properties(agent: dict[str, Any]) -> list[str]:
    """Return the limits as systemd's properties; swap is off so that memory means memory."""
    memory_of(agent)
    percent_of(agent["cpu"])
    return [
        f"MemoryMax={agent['memory']}",
        "MemorySwapMax=0",
        f"CPUQuota={agent['cpu']}",
        f"TasksMax={agent['tasks']}",
    ]


def drop_in(agent: dict[str, Any]) -> str:
    """Return the text of the drop-in for the user's slice."""
    return "\n".join(["# Managed by Ansible: role runner", "[Slice]", *properties(agent), ""])


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _quota(folder: Path) -> int | None:
    """Return the CPU limit of a cgroup in percent of one CPU, version 2 first; None if there is none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return round(100 * int(quota) / int(period))
    except (FileNotFoundError, ValueError):
        return None


def in_force(slice_name: str, root: Path = CGROUP) -> dict[str, int | None] | None:
    """Read what the kernel enforces on a slice of users.

    Returns:
        memory in bytes, cpu in percent, tasks; None for one without a limit; None in all if the slice has no
        cgroup with these controllers, so that nothing can be said.
    """
    inside = Path("user.slice") / slice_name
    if (root / inside / "memory.max").exists():
        unified = root / inside
        return {
            "memory": _number(unified / "memory.max"),
            "cpu": _quota(unified),
            "tasks": _number(unified / "pids.max"),
        }
    if (root / "memory" / inside).exists():
        return {
            "memory": _number(root / "memory" / inside / "memory.limit_in_bytes"),
            "cpu": _quota(root / "cpu" / inside),
            "tasks": _number(root / "pids" / inside / "pids.max"),
        }
    return None


def expected(agent: dict[str, Any]) -> dict[str, int | None]:
    """Return the limits in the form of in_force."""
    return {
        "memory": memory_of(agent),
        "cpu": percent_of(agent["cpu"]),
        "tasks": agent["tasks"],
    }


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _outdated(uid: int) -> bool:
    """Whether systemd has yet to read a changed file of the user's slice or manager."""
    units = [f"user-{uid}.slice", f"user@{uid}.service"]
    show = ["systemctl", "show", "--property=NeedDaemonReload", *units]
    return "=yes" in subprocess.run(show, capture_output=True, text=True, check=False).stdout


def _members() -> list[str] | None:
    try:
        return grp.getgrnam(GROUP).gr_mem
    except KeyError:
        return None


class Host:
    """Carries out actions, or in check mode only notes them."""

    def __init__(self, *, check_mode: bool) -> None:
        self.check_mode = check_mode
        self.actions: list[str] = []
        self.diffs: list[dict[str, str]] = []

    def do(self, name: str, action: str, *commands: list[str]) -> None:
        """Note an action and run its commands."""
        self.actions.append(f"{name}: {action}")
        if self.check_mode:
            return
        for command in commands:
            run(*command)

    def account(self, name: str) -> None:
        """Make the group and the user.

        Raises:
            AgentError: The host has a user of that name who is somebody else.
        """
        members = _members()
        if members is None and f"{GROUP}: make group" not in self.actions:
            self.do(GROUP, "make group", ["groupadd", "--system", GROUP])
        if _user(name) is None:
            make = ["useradd", "--create-home", "--user-group", "--shell", "/bin/bash"]
            self.do(name, "make user", [*make, "--groups", GROUP, "--comment", "agent", name])
            if not self.check_mode:
                Path(pwd.getpwnam(name).pw_dir).chmod(0o700)
        elif name not in (members or []):
            raise AgentError(f"{name}: this user is not an agent's (not in {GROUP}); name the agent otherwise.")

    def limits(self, agent: dict[str, Any]) -> None:
        """Write the drop-in of the user's slice, and have systemd read what changed about the user's units."""
        name, user = agent["name"], _user(agent["name"])
        path = UNITS / f"user-{user.pw_uid if user else 'NEW'}.slice.d" / "50-openclaw.conf"
        text = drop_in(agent)
        before = path.read_text() if path.exists() else ""
        if before == text:
            if user and _outdated(user.pw_uid):
                self.do(name, "reload systemd", ["systemctl", "daemon-reload"])
            return
        self.diffs.append({"before_header": str(path), "after_header": str(path), "before": before, "after": text})
        if not self.check_mode:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            path.write_text(text)
            path.chmod(0o644)
        self.do(name, "set limits", ["systemctl", "daemon-reload"])

    def linger(self, name: str) -> None:
        """Have the user's manager run from boot on, and now."""
        if not (LINGER / name).exists():
            self.do(name, "linger", ["loginctl", "enable-linger", name])
        user = _user(name)
        if user is None:
            return
        unit = f"user@{user.pw_uid}.service"
        if subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode:
            self.do(name, "start user manager", ["systemctl", "reset-failed", unit], ["systemctl", "start", unit])

    def enforce(self, agent: dict[str, Any]) -> None:
        """Hold the kernel's limits to what is declared.

        Raises:
            AgentError: They differ even after they were set on the running slice.
        """
        name, user = agent["name"], _user(agent["name"])
        if user is None:
            return
        slice_name = f"user-{user.pw_uid}.slice"
        actual = in_force(slice_name)
        if actual is None or actual == expected(agent):
            return
        command = ["systemctl", "set-property", "--runtime", slice_name, *properties(agent)]
        self.do(name, "enforce limits", command)
        actual = in_force(slice_name)
        if not self.check_mode and actual != expected(agent):
            raise AgentError(f"{name}: limits are {actual} in {slice_name}'s cgroup, not {expected(agent)}.")

    def present(self, agents: list[dict[str, Any]]) -> None:
        """Bring all agents that must exist into the wanted state."""
        for agent in agents:
            self.account(agent["name"])
            self.limits(agent)
            self.linger(agent["name"])
            self.enforce(agent)

    def absent(self, name: str, *, remove_home: bool) -> None:
        """End an agent's processes and remove its limits, and with remove_home its account and home."""
        user = _user(name)
        if user is None or name not in (_members() or []):
            return
        if (LINGER / name).exists():
            self.do(name, "end lingering", ["loginctl", "disable-linger", name])
        unit = f"user-{user.pw_uid}.slice"
        if not subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode:
            self.do(name, "stop all processes", ["systemctl", "stop", unit])
        folder = UNITS / f"user-{user.pw_uid}.slice.d"
        if folder.exists():
            if not self.check_mode:
                shutil.rmtree(folder)
            self.do(name, "remove limits", ["systemctl", "revert", f"user-{user.pw_uid}.slice"])
        if remove_home:
            self.do(name, "remove user and home", ["userdel", "--remove", name])


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "agents": {"type": "list", "elements": "dict", "required": True, "options": SUBOPTIONS},
            "absent": {"type": "list", "elements": "str", "default": []},
            "remove_home": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    host = Host(check_mode=module.check_mode)
    with reporting(module, host.actions, host.diffs):
        host.present(module.params["agents"])
        for name in module.params["absent"]:
            host.absent(name, remove_home=module.params["remove_home"])


if __name__ == "__main__":
    main()
