"""What is made of the engine's words, and when the holder of a lock is known to be dead."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from fleet import stack
from fleet.errors import StackError
from fleet.inventory import PROJECT
from fleet.stack import Holder

if TYPE_CHECKING:
    from pathlib import Path

# The texts of pulumi 3.250.0.
_UP = """
Updating (lab):
 +  pulumi:pulumi:Stack fleet-lab creating (0s)
 +  hcloud:index:Server broker-1 creating (0s)
 +  hcloud:index:Server broker-1 created (0.41s)

Resources:
    + 20 created
    ~ 1 updated
    3 unchanged

Duration: 4s
"""
_LOCKED = """
error: the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end or delete the lock \
file with `pulumi cancel`.
  file:///state/.pulumi/locks/organization/fleet/lab/8a3.json: created by root@laptop (pid 4711) at 2026-11-21T19:00:00Z
"""


@pytest.mark.parametrize(
    ("said", "summary"),
    [
        (_UP, "20 created, 1 updated, 3 unchanged"),
        ("Resources:\n\nDuration: 1s\n", "nothing to do"),
        ("The stack is empty.\n", "nothing to do"),
    ],
)
def test_what_was_done_in_a_few_words(said: str, summary: str) -> None:
    assert stack._summary(said) == summary


def test_the_holder_of_a_lock_is_read() -> None:
    assert list(stack._holders(_LOCKED)) == [Holder("laptop", 4711, datetime(2026, 11, 21, 19, tzinfo=UTC))]


_HERE = os.uname().nodename
_NOBODY = 4_000_000  # more than a number of a process can be
_NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("holder", "is_dead"),
    [
        (Holder(_HERE, _NOBODY, _NOW), True),
        (Holder("another", _NOBODY, _NOW), False),
        (Holder(_HERE, os.getpid(), _NOW), False),
        (Holder(_HERE, os.getpid(), _NOW - timedelta(hours=1000)), True),
    ],
    ids=["ended", "on another machine", "alive", "its number is another's"],
)
def test_a_holder_is_dead_only_where_that_can_be_known(holder: Holder, is_dead: bool) -> None:
    assert holder.is_dead() is is_dead


def test_a_holder_that_nobody_has_collected_is_dead() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert Holder(_HERE, child, datetime.now(UTC)).is_dead()
    finally:
        os.waitpid(child, 0)


@pytest.mark.parametrize(("file", "refused"), [(None, False), ("Pulumi.lab.yaml", False), ("Pulumi.prod.yaml", True)])
def test_to_be_logged_out_is_to_have_no_stack_only_where_none_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, refused: bool
) -> None:
    (tmp_path / "infra").mkdir()
    if file:
        (tmp_path / "infra" / file).touch()
    pulumi = tmp_path / "pulumi"
    said = "error: PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions"
    pulumi.write_text(f"#!/bin/sh\necho '{said}' >&2; exit 1\n")
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(stack, "PROJECT", tmp_path)
    if refused:
        with pytest.raises(StackError, match=r"Pulumi\.prod\.yaml is there, and pulumi is logged out: pulumi login"):
            stack.selected()
    else:
        assert stack.selected() is None


_WITHOUT_PROC = """
import os
from datetime import UTC, datetime
from fleet import stack

assert not os.listdir("/proc")
here = os.uname().nodename
assert not stack.Holder(here, os.getpid(), datetime.now(UTC)).is_dead(), "a live process is said to be dead"
assert stack.Holder(here, 4_000_000, datetime.now(UTC)).is_dead()
lines = []
assert stack._run(["sh", "-c", "echo one; echo two; exit 3"], lines.append) == (3, "one\\ntwo\\n")
assert lines == ["one", "two"]
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="hides /proc, which needs root")
def test_a_machine_without_proc_does_as_well() -> None:
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    done = subprocess.run(
        [*hidden, sys.executable, "-c", _WITHOUT_PROC], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
