"""exec: payload → command, output → result."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from runner_app.handlers.exec import DEFAULT_TIMEOUT_MS, KEPT_BYTES, RESULT_BYTES, error, output_bytes, parse, result
from runner_app.job import JobFailedError

if TYPE_CHECKING:
    from pathlib import Path

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
def test_forms(payload: str, argv: tuple[str, ...], settings: Settings) -> None:
    command = parse(payload, settings)
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
        ({"command": "a", "sudo": True}, "sudo"),
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
        ('["ls"]', "list"),
        ("[" * 100_000, "list"),
    ],
)
def test_refused(payload: Any, named: str, settings: Settings) -> None:
    (settings.workspace / "inside").mkdir()
    (settings.workspace / "file").touch()
    (settings.workspace / "out").symlink_to("/etc")
    (settings.workspace / "loop").symlink_to("loop")
    text = payload if isinstance(payload, str) else json.dumps(payload)
    with pytest.raises(JobFailedError, match=named):
        parse(text, settings)


def test_cwd_inside_the_workspace(settings: Settings) -> None:
    (settings.workspace / "a").mkdir()
    (settings.workspace / "link").symlink_to("a")
    for cwd in ("a", "./a", "link", str(settings.workspace / "a")):
        assert parse(json.dumps({"command": "x", "cwd": cwd}), settings).cwd == str(settings.workspace / "a")


def test_result(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"h\xc3\xa9 \xff\n")
    assert json.loads(result(tmp_path, duration_ms=12)) == {
        "exit_code": 0,
        "stdout": "h\u00e9 \ufffd\n",
        "stderr": "",
        "truncated": False,
        "duration_ms": 12,
    }


def test_the_end_of_long_output_is_kept(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"a" * KEPT_BYTES + b"end")
    facts = json.loads(result(tmp_path, duration_ms=0))
    assert facts["truncated"]
    assert len(facts["stdout"]) == KEPT_BYTES
    assert facts["stdout"].endswith("end")


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"\n", b'"'])
def test_a_result_is_bounded_however_it_is_escaped(byte: bytes, tmp_path: Path) -> None:
    for name in ("stdout", "stderr"):
        (tmp_path / name).write_bytes(byte * KEPT_BYTES)
    assert len(result(tmp_path, duration_ms=0).encode()) <= RESULT_BYTES


def test_an_error_ends_with_the_last_of_stderr(tmp_path: Path) -> None:
    assert error(tmp_path, "exit code 1") == "exit code 1"
    (tmp_path / "stderr").write_text("x" * 5000 + "\nno such file\n")
    text = error(tmp_path, "exit code 1")
    assert text.startswith("exit code 1: ")
    assert text.endswith("no such file")
    assert len(text) < 1100


def test_output_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    for name in ("stdout", "stderr"):
        (tmp_path / name).mkdir()
    assert error(tmp_path, "exit code 1") == "exit code 1: (its stderr cannot be read: Is a directory)"
    with pytest.raises(IsADirectoryError):
        result(tmp_path, duration_ms=0)


def test_output_counts_by_what_it_takes(tmp_path: Path) -> None:
    assert output_bytes(tmp_path) == 0
    (tmp_path / "stdout").write_text("abc")
    small = output_bytes(tmp_path)
    assert 3 <= small < 1 << 20
    (tmp_path / "stderr").touch()
    subprocess.run(["fallocate", "--keep-size", "--length", "1M", str(tmp_path / "stderr")], check=True)
    assert output_bytes(tmp_path) >= small + (1 << 20)
