"""Hosts mount files as file systems, as servers do, and leave none of the machine's loop devices in use."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.lab import TestLab

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE = "/var/lib/openclaw-loop-test"


def _in_use() -> bool:
    """Whether a loop device of the machine has the file; the kernel names it as the host sees it."""
    return _FILE in subprocess.run(["losetup", "--all"], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def lab() -> Iterator[TestLab]:
    lab = TestLab("test-loops")
    lab.run("down")
    yield lab
    lab.run("down")


def _mount(lab: TestLab) -> None:
    lab.machine("h1").ssh(
        f"sudo sh -ec 'truncate -s 64M {_FILE}; mkfs.ext4 -q -F {_FILE}; mount -o loop {_FILE} /mnt; touch /mnt/x'"
    )


def test_no_loop_device_outlives_its_host(lab: TestLab) -> None:
    for verb, *hosts in (("reboot", "h1"), ("crash", "h1"), ("down",)):
        lab.run("create", "h1")
        _mount(lab)
        assert _in_use(), verb
        lab.run(verb, *hosts)
        assert not _in_use(), verb
