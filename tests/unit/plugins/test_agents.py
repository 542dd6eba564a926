"""What the modules that look after agents share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from plugins.module_utils.agents import AgentError, bytes_of, run

if TYPE_CHECKING:
    from collections.abc import Callable

    RunModule = Callable[..., dict[str, Any]]

# No host has a user of this name.
AGENT = {"name": "nobody-agent", "memory": "1G", "cpu": "150%", "tasks": 512}


@pytest.mark.parametrize(
    ("text", "whole", "number"),
    [("4096", 1, 4096), ("5000", 4096, 4096), ("8K", 1, 8192), ("2G", 2**20, 2**31), ("1T", 1, 2**40)],
)
def test_sizes(text: str, whole: int, number: int) -> None:
    assert bytes_of(text, field="size", whole=whole) == number


@pytest.mark.parametrize("text", ["", "0", "1g", "1.5G", "50%", "infinity", "-1", "1 G"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(AgentError, match=f"^size '{text}' must be"):
        bytes_of(text, field="size", whole=1)


def test_a_program_gives_what_it_printed() -> None:
    assert run("sh", "-c", "echo out; echo err >&2; exit 1", good=1) == "out\n"


@pytest.mark.parametrize(("script", "good"), [("exit 1", 0), ("exit 2", 1), ("kill -KILL $$", 1)])
def test_a_program_that_fails_or_is_killed_is_a_failure(script: str, good: int) -> None:
    with pytest.raises(AgentError, match="failed"):
        run("sh", "-c", script, good=good)


def test_a_module_ends_with_what_it_would_do(run_module: RunModule) -> None:
    ended = run_module("agent_accounts", check=True, agents=[AGENT])
    actions = ["make user", "set limits", "linger"]

    assert (ended["changed"], ended["actions"][-3:]) == (True, [f"nobody-agent: {action}" for action in actions])
    assert ended["diff"][0]["after_header"].endswith("user-NEW.slice.d/50-openclaw.conf")
    assert ended["diff"][-1]["after"].splitlines() == ended["actions"]


def test_a_module_that_fails_ends_with_what_it_did_before(run_module: RunModule) -> None:
    ended = run_module("agent_accounts", check=True, agents=[{**AGENT, "memory": "lots"}])

    assert ended["failed"]
    assert ended["msg"].startswith("limits.memory 'lots' must be")
    assert (ended["changed"], ended["actions"][-1]) == (True, "nobody-agent: make user")
