"""exec, build, test: payload → command."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runner_app import elevated
from runner_app.handlers.exec import parse
from runner_app.handlers.payload import DEFAULT_TIMEOUT_MS
from runner_app.job import JobFailedError

if TYPE_CHECKING:
    from runner_app.settings import Settings

SHELL = ("/bin/sh", "-c")


@pytest.mark.parametrize(
    ("payload", "argv"),
    [
        ("uname -a", (*SHELL, "uname -a")),
        ("true", (*SHELL, "true")),
        ("12", (*SHELL, "12")),
        ('"quoted"', (*SHELL, '"quoted"')),
        ('{"command": "a; b"}', (*SHELL, "a; b")),
        ('{"argv": ["ls", "-l", ""]}', ("ls", "-l", "")),
        ('{"argv": ["a=b", "$HOME %n"]}', ("a=b", "$HOME %n")),
    ],
)
@pytest.mark.parametrize("task", ["exec", "build", "test"])
def test_forms(task: str, payload: str, argv: tuple[str, ...], settings: Settings) -> None:
    command = parse(task, payload, settings)
    assert (command.argv, command.cwd) == (argv, str(settings.workspace))
    assert command.timeout_ms == DEFAULT_TIMEOUT_MS


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        ("", "command"),
        ("  ", "command"),
        ("{}", "argv or command"),
        ({"argv": ["a"], "command": "a"}, "argv or command"),
        ({"argv": []}, "argv"),
        ({"argv": "ls"}, "argv"),
        ({"argv": ["ls", 1]}, r"argv\[1\]"),
        ({"argv": [""]}, r"argv\[0\]"),
        ({"argv": ["a\0b"]}, r"argv\[0\]"),
        ({"argv": ["a", "\ud800"]}, r"argv\[1\]"),
        ({"command": ["ls"]}, "command"),
        ({"command": "x" * (128 * 1024)}, "command"),
        ({"command": "a", "sudo": "yes"}, "sudo"),
        ({"command": "a", "user": "root"}, "user"),
        ({"command": "a", "timeout": 0}, "timeout"),
        ({"command": "a", "timeout": 1.5}, "timeout"),
        ({"command": "a", "timeout": True}, "timeout"),
        ({"command": "a", "timeout": "1"}, "timeout"),
        ({"command": "a", "timeout": 6 * 3600 * 1000 + 1}, "timeout"),
        ({"command": "a", "cwd": 1}, "cwd"),
        ({"command": "a", "cwd": "a\0"}, "cwd"),
        ({"command": "a", "cwd": ".."}, "cwd"),
        ({"command": "a", "cwd": "/etc"}, "cwd"),
        ({"command": "a", "cwd": "inside/../.."}, "cwd"),
        ({"command": "a", "cwd": "out"}, "cwd"),
        ({"command": "a", "cwd": "loop"}, "cwd"),
        ({"command": "a", "cwd": "absent"}, "cwd"),
        ({"command": "a", "cwd": "file"}, "cwd"),
        ({"command": "a", "cwd": "x" * 5000}, "cwd"),
        ({"command": "a", "cwd": "\ud800"}, "cwd"),
        ('["ls"]', "object with argv, command"),
        ("[" * 100_000, "object"),
    ],
)
@pytest.mark.parametrize("task", ["exec", "build"])
def test_refused(task: str, payload: Any, named: str, settings: Settings) -> None:
    (settings.workspace / "inside").mkdir()
    (settings.workspace / "file").touch()
    (settings.workspace / "out").symlink_to("/etc")
    (settings.workspace / "loop").symlink_to("loop")
    text = payload if isinstance(payload, str) else json.dumps(payload)
    with pytest.raises(JobFailedError, match=f"{task}: .*{named}"):
        parse(task, text, settings)


def test_cwd_inside_the_workspace(settings: Settings) -> None:
    (settings.workspace / "a").mkdir()
    (settings.workspace / "link").symlink_to("a")
    for cwd in ("a", "./a", "link", str(settings.workspace / "a")):
        assert parse("exec", json.dumps({"command": "x", "cwd": cwd}), settings).cwd == str(settings.workspace / "a")


def test_sudo_is_an_agents_own_setting(settings: Settings) -> None:
    payload = json.dumps({"command": "id -u", "sudo": True})
    allowed = replace(settings, sudo=True)
    with pytest.raises(JobFailedError, match="exec: sudo is not allowed to this agent: its runner has no RUNNER_SUDO"):
        parse("exec", payload, settings)
    with pytest.raises(JobFailedError, match="build: unknown key 'sudo'"):
        parse("build", payload, allowed)
    command = parse("exec", payload, allowed)
    assert (command.argv, command.walled) == (elevated.command("run", (*SHELL, "id -u")), False)
    for own in (settings, allowed):
        command = parse("exec", json.dumps({"command": "id -u", "sudo": False}), own)
        assert (command.argv, command.walled) == ((*SHELL, "id -u"), True)
