"""Output files → what the broker is told."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from runner_app.handlers.output import KEPT_BYTES, RESULT_BYTES, answer, error, output_bytes, streams

if TYPE_CHECKING:
    from pathlib import Path


def test_a_result(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"h\xc3\xa9 \xff\n")
    assert json.loads(streams(tmp_path, 12)) == {
        "exit_code": 0,
        "stdout": "h\u00e9 \ufffd\n",
        "stderr": "",
        "truncated": False,
        "duration_ms": 12,
    }


def test_the_end_of_long_output_is_kept(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"a" * KEPT_BYTES + b"end")
    facts = json.loads(streams(tmp_path, 0))
    assert facts["truncated"]
    assert len(facts["stdout"]) == KEPT_BYTES
    assert facts["stdout"].endswith("end")


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"\n", b'"'])
def test_a_result_is_bounded_however_it_is_escaped(byte: bytes, tmp_path: Path) -> None:
    for name in ("stdout", "stderr"):
        (tmp_path / name).write_bytes(byte * KEPT_BYTES)
    assert len(streams(tmp_path, 0).encode()) <= RESULT_BYTES


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
        streams(tmp_path, 0)


def test_output_counts_by_what_it_takes(tmp_path: Path) -> None:
    assert output_bytes(tmp_path) == 0
    (tmp_path / "stdout").write_text("abc")
    small = output_bytes(tmp_path)
    assert 3 <= small < 1 << 20
    (tmp_path / "stderr").touch()
    subprocess.run(["fallocate", "--keep-size", "--length", "1M", str(tmp_path / "stderr")], check=True)
    assert output_bytes(tmp_path) >= small + (1 << 20)


def test_a_program_of_ours_says_the_result_itself(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text('{"size": 1}\n')
    (tmp_path / "stderr").write_text("a warning\n")
    assert answer(tmp_path, 12) == '{"size": 1}\n'
