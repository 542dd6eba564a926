#!/usr/bin/python
"""Enable, start, restart and stop units of the system and of users in one module run."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: units
short_description: Enable, start, restart and stop units of the system and of users
description:
  - Handles units in the order of the list, with a daemon-reload of their manager when systemd asks for one.
  - Whether a unit must be restarted follows from the host alone, which knows when the unit started and when the
    files changed that it reads at its start. So an interrupted run is made good by the next one.
options:
  units:
    description: The units, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Full name of the unit.
        type: str
        required: true
      user:
        description: Whose user manager has the unit. Without it, the system's.
        type: str
      state:
        description: What the unit must be doing now.
        type: str
        choices: [started, stopped]
        default: started
      enabled:
        description: Whether the unit starts with its manager. Without it, left alone.
        type: bool
      respect_mask:
        description: Whether a masked unit is an administrator's decision, to be left as it is.
        type: bool
        default: false
      check:
        description: Command that must succeed before a running unit is restarted.
        type: str
      probe:
        description: Command that succeeds while what the unit sets up is in force; if it fails, the unit is restarted.
        type: str
      newer_than:
        description: Files read at the start; a running unit that started before one of them changed is restarted.
        type: list
        elements: path
        default: []
author: openclaw-fleet
"""

RETURN = r"""
actions:
  description: "What was (or in check mode would be) done, as C(unit: verb) or C(user/unit: verb)."
  returned: always
  type: list
"""

SUBOPTIONS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "user": {"type": "str"},
    "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
    "enabled": {"type": "bool"},
    "respect_mask": {"type": "bool", "default": False},
    "check": {"type": "str"},
    "probe": {"type": "str"},
    "newer_than": {"type": "list", "elements": "path", "default": []},
}
PROPERTIES = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,InactiveExitTimestampMonotonic"


class UnitError(Exception):
    """A unit cannot be brought into the wanted state; the message has systemd's words and the journal's tail."""


@dataclass(frozen=True)
class Unit:
    """What systemd says about a unit.

    Attributes:
        started: Seconds since the epoch at which it last left the inactive state, 0 if it never did.
    """

    load: str
    active: str
    file: str
    reload: bool
    started: float


def parse(text: str, epoch_of_boot: float) -> Unit:
    """Read the output of `systemctl show`, whose time is in µs on the monotonic clock."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    exited = int(values.get("InactiveExitTimestampMonotonic") or 0)
    return Unit(
        load=values.get("LoadState", "not-found"),
        active=values.get("ActiveState", "inactive"),
        file=values.get("UnitFileState", ""),
        reload=values.get("NeedDaemonReload") == "yes",
        started=epoch_of_boot + exited / 1e6 if exited else 0.0,
    )


def plan(entry: dict[str, Any], unit: Unit, *, stale: bool) -> list[str]:
    """Return the verbs that bring a unit into the wanted state, in order.

    Args:
        entry: One of the task's units.
        unit: What systemd says about it.
        stale: Whether the unit, if it runs, does not run as its files say.

    Raises:
        UnitError: The unit is masked or has no file, and must run.
    """
    missing = unit.load == "not-found"
    if missing and entry["state"] == "stopped":
        return []
    if unit.load == "masked" and entry["state"] == "started":
        if entry["respect_mask"]:
            return []
        raise UnitError("is masked; unmask it with 'systemctl unmask'.")
    verbs = ["daemon-reload"] if unit.reload else []
    enabled = unit.file in ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated")
    if entry["enabled"] is not None and entry["enabled"] != enabled:
        verbs.append("enable" if entry["enabled"] else "disable")
    running = unit.active in ("active", "activating", "reloading")
    if entry["state"] == "stopped":
        return [*verbs, "stop"] if running else verbs
    if not running:
        return [*verbs, "start"]
    return [*verbs, "restart"] if stale else verbs


def newest_change(paths: list[str]) -> float:
    """Return the newest modification time of the paths, links themselves included; 0 if there are none."""
    return max((Path(path).lstat().st_mtime for path in paths if os.path.lexists(path)), default=0.0)


def _systemctl(user: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    manager = ["--user", f"--machine={user}@"] if user else []
    return subprocess.run(["systemctl", *manager, *words], capture_output=True, text=True, check=False)


def _refused(command: str) -> str:
    run = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    return (run.stderr or run.stdout).strip() or "failed" if run.returncode else ""


def _journal(entry: dict[str, Any]) -> str:
    if entry["user"]:
        who = [f"_UID={pwd.getpwnam(entry['user']).pw_uid}", f"_SYSTEMD_USER_UNIT={entry['name']}"]
    else:
        who = [f"--unit={entry['name']}"]
    command = ["journalctl", "--no-pager", "--lines=10", "--output=cat", *who]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def show(entry: dict[str, Any]) -> Unit:
    """Ask systemd about a unit.

    Raises:
        UnitError: The manager does not answer.
    """
    run = _systemctl(entry["user"], "show", f"--property={PROPERTIES}", entry["name"])
    if run.returncode:
        raise UnitError(f"systemd does not answer: {run.stderr.strip()}")
    return parse(run.stdout, time.time() - time.clock_gettime(time.CLOCK_MONOTONIC))


def apply(entry: dict[str, Any], verb: str) -> None:
    """Carry out one verb.

    Raises:
        UnitError: systemd refused it, or the unit did not come up.
    """
    if verb == "daemon-reload":
        run = _systemctl(entry["user"], verb)
    elif verb == "restart" and entry["check"] and (refusal := _refused(entry["check"])):
        raise UnitError(f"left running, since '{entry['check']}' says: {refusal}")
    else:
        if verb == "restart" and entry["name"].endswith(".socket"):
            # systemd refuses to restart a socket while its service holds it.
            _systemctl(entry["user"], "stop", entry["name"].removesuffix(".socket") + ".service")
        run = _systemctl(entry["user"], verb, entry["name"])
    if run.returncode:
        raise UnitError(f"{verb}: {run.stderr.strip()}\n{_journal(entry)}".strip())


def label(entry: dict[str, Any]) -> str:
    """Return how messages call the unit."""
    return f"{entry['user']}/{entry['name']}" if entry["user"] else str(entry["name"])


def verbs_for(entry: dict[str, Any], *, check_mode: bool) -> list[str]:
    """Return what one unit needs; in check mode also on a host that has neither the unit nor the user yet.

    Raises:
        UnitError: The unit must run and cannot.
    """
    fresh = ["enable", "start"] if entry["state"] == "started" else []
    try:
        unit = show(entry)
    except UnitError:
        if check_mode:
            return fresh
        raise
    if unit.load == "not-found" and entry["state"] == "started":
        if check_mode:
            return fresh
        # The manager may not have looked since the file was placed.
        apply(entry, "daemon-reload")
        unit = show(entry)
        if unit.load == "not-found":
            raise UnitError("there is no such unit on the host.")
    stale = newest_change(entry["newer_than"]) > unit.started
    broken = entry["probe"] is not None and _refused(entry["probe"]) != ""
    return plan(entry, unit, stale=stale or broken)


def main() -> None:
    """Run as an Ansible module: every unit gets its turn, and the failures are told together."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True, "options": SUBOPTIONS},
        },
        supports_check_mode=True,
    )
    actions: list[str] = []
    failures: list[str] = []
    for entry in module.params["units"]:
        try:
            for verb in verbs_for(entry, check_mode=module.check_mode):
                if not module.check_mode:
                    apply(entry, verb)
                actions.append(f"{label(entry)}: {verb}")
        except UnitError as error:
            failures.append(f"{label(entry)}: {error}")
    diff = {"before": "", "after": "".join(f"{action}\n" for action in actions)}
    result = {"changed": bool(actions), "actions": actions, "diff": diff}
    if failures:
        module.fail_json(msg="\n".join(failures), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
