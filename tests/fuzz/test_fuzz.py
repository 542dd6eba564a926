"""A real broker holds to its OpenAPI document, whatever comes. `FUZZ_SECONDS` says for how long it is tried."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from schemathesis.core.failures import FailureGroup

from tests.contract.harness import Broker
from tests.fuzz.fuzzing import Fuzz

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
SEED = 20261121
# Far longer than it takes to meet a fault.
_FAULT_SECONDS = 180
_BROKEN = """
import sys
from broker_app.__main__ import main
from broker_app.dialects import Answer, jobs, jobs_answers
{}
sys.exit(main())
"""
_FAULTS = {
    "a crash on some payloads": "jobs.utf8_size = lambda name, text, **_: 1 // (len(text) % 7 != 3)",
    "a status of its own": "jobs_answers._STATUSES[jobs_answers.LeaseLostError] = 410",
    "another type": "jobs_answers._whole = lambda seconds: seconds",
}


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[Callable[[], Broker]]:
    brokers: list[Broker] = []

    def start() -> Broker:
        brokers.append(Broker(tmp_path, {"LEASE_SECONDS": "10"}))
        return brokers[-1].start()

    yield start
    for broker in brokers:
        broker.close()


def test_the_broker_holds_to_its_document(
    start_broker: Callable[[], Broker], record_property: Callable[[str, object], None]
) -> None:
    broker = start_broker()
    calls = {f"{method} {path}" for method, path, _ in broker.document.statuses()}
    with closing(Fuzz(broker, SEED)) as fuzz:
        try:
            fuzz.run(SECONDS)
            # A busy machine may need longer to have been everywhere.
            fuzz.run(2 * SECONDS, enough=lambda: fuzz.succeeded() == calls)
        finally:
            record_property("note", f"seed {SEED}, {fuzz.summary()}")
    assert fuzz.succeeded() == calls
    assert fuzz.authenticated / fuzz.count >= 0.6
    assert "ERROR" not in broker.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_broken_broker_is_found_out(
    start_broker: Callable[[], Broker], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    command = [sys.executable, "-c", _BROKEN.format(_FAULTS[fault])]
    monkeypatch.setenv("CONTRACT_COMMAND", shlex.join(command))
    with closing(Fuzz(start_broker(), SEED)) as fuzz, pytest.raises(FailureGroup):
        fuzz.run(_FAULT_SECONDS)
