#!/usr/bin/python
"""Install Debian packages that are missing, in one module run."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: packages
short_description: Install Debian packages that are missing
description:
  - Asks dpkg first, which needs no package lists; so a host that has all of them costs next to nothing.
  - Lists are refreshed only for an installation, and only when they are a day old or do not have a package, as those
    of a fresh image. A check refreshes none, and announces what it cannot look up.
  - Recommended packages are not installed, and configuration files that an administrator changed are kept.
options:
  names:
    description:
      - Names as C(apt-get install) takes them, or choices such as C(a | b), met by either. Where neither is there, the
        first is installed.
    type: list
    elements: str
    required: true
author: openclaw-fleet
"""

RETURN = r"""
installed:
  description: Packages that were (or in check mode would be) installed.
  returned: always
  type: list
removed:
  description: Packages that had (or in check mode would have) to go for them.
  returned: always
  type: list
names:
  description: The names that were asked for, one of each choice.
  returned: always
  type: list
"""

LISTS = Path("/var/lib/apt/lists")
FRESH_SECONDS = 86400
LOCK_SECONDS = 60
OPTIONS = [
    "--yes",
    "--no-install-recommends",
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
    f"--option=DPkg::Lock::Timeout={LOCK_SECONDS}",
    # Else lists that could not be fetched are a mere warning, and the old ones are taken.
    "--option=APT::Update::Error-Mode=any",
]


class PackageError(Exception):
    """apt refused; the message has its words."""


class Plan(NamedTuple):
    """What apt does."""

    installed: list[str]
    removed: list[str]


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def _apt(*words: str) -> subprocess.CompletedProcess[str]:
    return _run("apt-get", *OPTIONS, *words)


def _words_of(run: subprocess.CompletedProcess[str]) -> str:
    errors = [line for line in run.stderr.splitlines() if line.startswith("E: ")]
    return "\n".join(errors) or run.stderr.strip() or run.stdout.strip()


def _installed(names: list[str]) -> set[str]:
    listed = _run("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n", "--", *names).stdout
    return {name for name, _, status in (line.partition(" ") for line in listed.splitlines()) if status == "installed"}


def settle(names: list[str]) -> list[str]:
    """Return the names with each choice settled on what is installed, else on its first."""
    choices = [name.split(" | ") for name in names]
    there = _installed([name for choice in choices for name in choice])
    return [next((name for name in choice if name in there), choice[0]) for choice in choices]


def missing(names: list[str]) -> list[str]:
    """Return the names that dpkg does not know as an installed package."""
    there = _installed(names)
    return [name for name in names if name not in there]


def planned(names: list[str]) -> Plan | None:
    """Return what apt would do, or finish to do, for the names; None if its lists do not have them all."""
    run = _apt("--simulate", "install", "--", *names)
    if run.returncode:
        return None
    steps = [line.split()[:2] for line in run.stdout.splitlines() if line.startswith(("Inst ", "Conf ", "Remv "))]
    gone = [package for verb, package in steps if verb == "Remv"]
    return Plan(list(dict.fromkeys(package for verb, package in steps if verb != "Remv")), gone)


def refresh() -> None:
    """Fetch the lists, and wait for whoever is at it already.

    Raises:
        PackageError: They cannot be fetched.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while (run := _apt("update")).returncode:
        if "Could not get lock" not in run.stderr or time.monotonic() > deadline:
            raise PackageError(_words_of(run))
        time.sleep(1)
    os.utime(LISTS)


def install(names: list[str], *, check_mode: bool) -> Plan:
    """Install what is missing, and return what that was.

    Raises:
        PackageError: apt refused.
    """
    absent = missing(names) if names else []
    plan = planned(absent) if absent else Plan([], [])
    if check_mode or plan == ([], []):
        return plan or Plan(absent, [])
    if plan is None or time.time() - LISTS.stat().st_mtime > FRESH_SECONDS:
        refresh()
        plan = planned(absent)
    run = _apt("install", "--", *absent)
    if run.returncode:
        raise PackageError(_words_of(run))
    return plan or Plan([], [])


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={"names": {"type": "list", "elements": "str", "required": True}}, supports_check_mode=True
    )
    try:
        names = settle(module.params["names"])
        installed, removed = install(names, check_mode=module.check_mode)
    except (OSError, PackageError) as error:
        module.fail_json(msg=str(error))
    before, after = ("".join(f"{name}\n" for name in some) for some in (removed, installed))
    diff: dict[str, Any] = {"before": before, "after": after}
    module.exit_json(changed=bool(installed), installed=installed, removed=removed, names=names, diff=diff)


if __name__ == "__main__":
    main()
