"""What a job says of how far it is. It may put anything there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner_app.progress import Progress, progress


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", Progress(0, "")),
        ("40 copying\n", Progress(40, "copying")),
        ("  100   all done  \n\n", Progress(100, "all done")),
        ("1 a\n2 b\n3 c\n", Progress(3, "c")),
        ("7 größer\r\n", Progress(7, "größer")),
        (f"5 {'x' * 300}", Progress(5, "x" * 200)),
        ("nothing\n" * 10_000 + "9 end\n", Progress(9, "end")),
        ("", None),
        ("101", None),
        ("-1", None),
        ("4.5", None),
        ("40copying", None),
        ("half", None),
        ("٤", None),
        ("40 \x1b[31mred", None),
        ("40 copying\nnonsense", None),
        ("40 " + "x" * 5000, None),
    ],
)
def test_the_last_line_is_a_percentage_and_perhaps_a_note(text: str, said: Progress | None, tmp_path: Path) -> None:
    (tmp_path / "progress").write_text(text)
    assert progress(tmp_path) == said


def test_without_a_file_nothing_is_said(tmp_path: Path) -> None:
    assert progress(tmp_path) is None
    (tmp_path / "progress").symlink_to(tmp_path / "tmp" / "job-progress")
    assert progress(tmp_path) is None


def test_it_is_where_our_link_leads_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "progress").symlink_to(tmp_path / "of-the-job")
    (tmp_path / "of-the-job").write_text("40 copying")
    assert progress(tmp_path) == Progress(40, "copying")
    (tmp_path / "secret").write_text("40 winks")
    (tmp_path / "of-the-job").unlink()
    (tmp_path / "of-the-job").symlink_to(tmp_path / "secret")
    assert progress(tmp_path) is None


def test_a_pipe_and_a_directory_say_nothing_and_keep_nothing_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    os.mkfifo(tmp_path / "progress")
    assert progress(tmp_path) is None
    (tmp_path / "progress").unlink()
    (tmp_path / "progress").mkdir()
    assert progress(tmp_path) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
