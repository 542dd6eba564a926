from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from plugins.module_utils.agents import AgentError
from plugins.modules.agent_accounts import drop_in, expected, in_force, memory_of, percent_of, properties

if TYPE_CHECKING:
    from pathlib import Path

AGENT: dict[str, Any] = {"name": "agent1", "memory": "1G", "cpu": "150%", "tasks": 512}


@pytest.mark.parametrize(("text", "number"), [("4096", 4096), ("5000", 4096), ("1G", 2**30)])
def test_memory_is_in_whole_pages(text: str, number: int) -> None:
    assert memory_of({**AGENT, "memory": text}) == number


def test_memory_that_is_no_size_is_refused() -> None:
    with pytest.raises(AgentError, match=r"limits\.memory '50%'"):
        memory_of({**AGENT, "memory": "50%"})


@pytest.mark.parametrize("text", ["", "150", "0%", "1.5%", "150 %", "-1%"])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(AgentError, match=r"limits\.cpu"):
        percent_of(text)


def test_a_wrong_limit_is_refused_before_anything_is_written() -> None:
    with pytest.raises(AgentError):
        drop_in({**AGENT, "memory": "lots"})
    with pytest.raises(AgentError):
        properties({**AGENT, "cpu": "fast"})


def test_drop_in() -> None:
    assert drop_in(AGENT).splitlines()[1:] == [
        "[Slice]",
        "MemoryMax=1G",
        "MemorySwapMax=0",
        "CPUQuota=150%",
        "TasksMax=512",
    ]


def cgroup(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_limits_in_force_are_read_from_cgroup_v2(tmp_path: Path) -> None:
    cgroup(
        tmp_path / "user.slice/user-1001.slice",
        memory__max=str(2**30),
        cpu__max="150000 100000",
        pids__max="512",
    )

    assert in_force("user-1001.slice", tmp_path) == expected(AGENT)


def test_limits_in_force_are_read_from_cgroup_v1(tmp_path: Path) -> None:
    inside = "user.slice/user-1001.slice"
    cgroup(tmp_path / "memory" / inside, memory__limit_in_bytes=str(2**30))
    cgroup(tmp_path / "cpu" / inside, cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    cgroup(tmp_path / "pids" / inside, pids__max="512")

    assert in_force("user-1001.slice", tmp_path) == expected(AGENT)


def test_a_limit_that_the_kernel_does_not_have_is_no_number(tmp_path: Path) -> None:
    cgroup(tmp_path / "user.slice/user-1001.slice", memory__max="max", cpu__max="max 100000", pids__max="max")

    assert in_force("user-1001.slice", tmp_path) == {"memory": None, "cpu": None, "tasks": None}


def test_nothing_can_be_said_without_a_cgroup(tmp_path: Path) -> None:
    assert in_force("user-1001.slice", tmp_path) is None
