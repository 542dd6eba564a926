"""What a running job says, told to a broker that answers or does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from runner_app.clients import reports
from runner_app.clients.client import BrokerError, LeaseLostError, RefusedError, UnavailableError
from runner_app.clients.reports import Reports

if TYPE_CHECKING:
    from pathlib import Path


class Scene:
    """A job's directory, and a broker that fails as told: first what is in ``errors``, one by one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sent: list[dict[str, Any]] = []
        self.errors: list[BrokerError] = []
        self._reports = Reports(directory, self.send)

    async def send(self, fields: dict[str, Any]) -> None:
        self.sent.append(fields)
        if self.errors:
            raise self.errors.pop(0)

    def says(self, text: str) -> None:
        with (self.directory / "stdout").open("a") as file:
            file.write(text)

    def tell(self, *, ended: bool = False) -> list[dict[str, Any]]:
        """What is sent now."""
        self.sent = []
        asyncio.run(self._reports.tell(ended=ended))
        return self.sent


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(reports, "_FIRST_REST_SECONDS", 0)
    return Scene(tmp_path)


def _said(offset: int, text: str) -> dict[str, Any]:
    return {"text": text, "offset": offset}


def test_nothing_is_sent_where_nothing_is_new(scene: Scene) -> None:
    assert scene.tell() == []
    scene.says("one\n")
    assert scene.tell() == [_said(0, "one\n")]
    assert scene.tell() == scene.tell(ended=True) == []


def test_after_a_lost_answer_the_same_piece_is_sent_again(scene: Scene) -> None:
    scene.says("one\n")
    scene.errors = [UnavailableError("lost")]
    assert scene.tell() == [_said(0, "one\n")]
    scene.says("two\n")
    assert scene.tell() == [_said(0, "one\n")]
    assert scene.tell() == [_said(4, "two\n")]


def test_while_it_runs_one_piece_is_sent_at_a_time_and_all_at_the_end(scene: Scene) -> None:
    scene.says("x" * 100_000)
    assert len(scene.tell()) == 1
    assert [piece["offset"] for piece in scene.tell(ended=True)] == [32768, 65536, 98304]


def test_a_broker_that_is_away_is_left_alone_for_a_while_but_at_the_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_FIRST_REST_SECONDS", 30)
    away = Scene(scene.directory)
    away.says("one\n")
    away.errors = [UnavailableError("away")]
    assert len(away.tell()) == 1
    assert away.tell() == []
    assert away.tell(ended=True) == [_said(0, "one\n")]


@pytest.mark.parametrize("error", [LeaseLostError("404 no such call"), RefusedError("413 too large", 413)])
def test_a_broker_that_wants_none_of_it_is_told_no_more(error: BrokerError, scene: Scene) -> None:
    scene.says("one\n")
    scene.errors = [error]
    assert len(scene.tell()) == 1
    assert scene.tell() == scene.tell(ended=True) == []


def test_a_disk_that_takes_no_bounds_ends_nothing(scene: Scene) -> None:
    (scene.directory / "told").mkdir()
    scene.says("one\n")
    assert scene.tell() == []
    assert scene.tell() == [_said(0, "one\n")]


def test_progress_is_told_when_it_changes(scene: Scene) -> None:
    (scene.directory / "progress").write_text("40 copying")
    scene.says("one\n")
    assert scene.tell() == [{**_said(0, "one\n"), "progress": 40, "note": "copying"}]
    assert scene.tell() == []
    (scene.directory / "progress").write_text("nonsense")
    assert scene.tell() == []
    (scene.directory / "progress").write_text("41")
    scene.errors = [UnavailableError("lost")]
    assert scene.tell() == scene.tell() == [{"progress": 41, "note": ""}]
