"""What `fleet up` and `fleet destroy` ask at a terminal, and what they do about the answer: a program for `pulumi`."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleet.inventory import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER = "hcloud:index/server:Server"
FLEET = str(Path(sys.executable).parent / "fleet")
# It notes what it is asked to do, and does nothing.
_PULUMI = """#!/bin/sh
echo "$*" >> {folder}/asked
case "$*" in
  "stack --show-name"*) echo lab ;;
  "stack export"*) cat {folder}/state.json ;;
  preview*) cat {folder}/preview.json ;;
  up*) echo "this far"; exit 1 ;;
esac
"""


@dataclass(frozen=True)
class Said:
    """What came of a command at a terminal."""

    status: int
    text: str
    changes: list[str]


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Return what calls `fleet` with a terminal and types an answer to its question."""
    program = tmp_path / "bin/pulumi"
    program.parent.mkdir()
    program.write_text(_PULUMI.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)

    def answer(typed: str, *words: str, protect: bool = False) -> Said:
        server: dict[str, Any] = {"type": SERVER, "urn": "urn:pulumi:lab::x", "outputs": {"name": "agents-1"}}
        state = {"deployment": {"resources": [{**server, "protect": protect}]}}
        (tmp_path / "state.json").write_text(json.dumps(state))
        (tmp_path / "preview.json").write_text(json.dumps({"steps": [{"op": "delete", "oldState": server}]}))
        status, text = _at_a_terminal([FLEET, *words], typed)
        asked = (tmp_path / "asked").read_text().splitlines()
        return Said(status, text, [line.split()[0] for line in asked if line.startswith(("up", "destroy"))])

    return answer


def _at_a_terminal(argv: list[str], typed: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        argv, cwd=PROJECT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        os.write(ours, typed.encode() + b"\4")  # and its end, so that no question waits for ever
        said = b""
        with suppress(OSError):  # where nobody has the other end any more
            while piece := os.read(ours, 4096):
                said += piece
        os.close(ours)
        return process.wait(timeout=60), said.decode()


@pytest.mark.parametrize("typed", ["n\n", "no\n", "\n", "what\nn\n"])
def test_up_changes_nothing_unless_told_yes(answer: Callable[..., Said], typed: str) -> None:
    said = answer(typed, "up")
    assert "Stack lab would delete server agents-1, with the data on them. Go on? [y/N]" in said.text
    assert (said.status, said.changes) == (1, [])
    assert "fleet: nothing was changed" in said.text


def test_up_goes_on_when_told_yes(answer: Callable[..., Said]) -> None:
    said = answer("y\n", "up")
    assert "Go on?" in said.text
    assert said.changes == ["up"]
    assert "fleet: pulumi up of stack lab failed:\r\nthis far" in said.text


def test_up_does_not_ask_who_said_yes_before(answer: Callable[..., Said]) -> None:
    said = answer("", "up", "--yes")
    assert "Go on?" not in said.text
    assert said.changes == ["up"]


@pytest.mark.parametrize("typed", ["n\n", "no\n", "\n"])
def test_destroy_deletes_nothing_unless_told_yes(answer: Callable[..., Said], typed: str) -> None:
    said = answer(typed, "destroy")
    assert "Delete everything that stack lab has, with its data? [y/N]" in said.text
    assert (said.status, said.changes) == (1, [])
    assert "fleet: nothing was deleted" in said.text


def test_destroy_goes_on_when_told_yes(answer: Callable[..., Said]) -> None:
    said = answer("y\n", "destroy")
    assert (said.status, said.changes) == (0, ["destroy"])


@pytest.mark.parametrize("words", [("destroy",), ("destroy", "--yes")])
def test_destroy_of_what_is_protected_is_refused_and_not_asked_about(
    answer: Callable[..., Said], words: tuple[str, ...]
) -> None:
    said = answer("y\n", *words, protect=True)
    assert "nothing was deleted, because stack lab protects: server agents-1; where that is" in said.text
    assert "Delete everything" not in said.text
    assert (said.status, said.changes) == (1, [])
