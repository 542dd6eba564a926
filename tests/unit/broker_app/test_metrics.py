"""Several who ask for the metrics at once, and when they cannot be read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker_app.broker import Broker
from broker_app.errors import StorageFailedError
from broker_app.metrics import Metrics
from broker_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def broker_of(bench: Any, path: Path) -> Broker:
    return Broker(Settings.from_environment({"BROKER_DB": str(path / "broker.db")}), bench.database, bench.store)


def test_who_asks_while_they_are_read_is_told_the_same(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path
) -> None:
    async def work() -> None:
        async with bench() as b:
            metrics = Metrics(broker_of(b, tmp_path))
            first, second = await asyncio.gather(metrics.text(), metrics.text())
            assert first == second
            assert b"openclaw_jobs" in first

    run(work())


def test_what_was_read_before_is_not_told_in_place_of_an_error(
    bench: Callable[..., Any], run: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing() -> Any:
        raise StorageFailedError("the database failed")

    async def work() -> None:
        async with bench() as b:
            metrics = Metrics(broker_of(b, tmp_path))
            await metrics.text()
            metrics._until = 0.0
            with monkeypatch.context() as broken:
                broken.setattr(b.store, "counts", failing)
                for _ in range(2):
                    with pytest.raises(StorageFailedError):
                        await metrics.text()
            assert await metrics.text()

    run(work())
