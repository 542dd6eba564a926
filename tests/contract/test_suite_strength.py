"""The suite notices each broken rule of the contract: it is run on the reference, whole and with each fault."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.reference.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator

_HERE = Path(__file__).parent
# What is about our program: its command line, its service, and how it keeps a second one away.
_OURS = (
    "test_serving.py",
    "test_durability.py::test_one_broker_per_database",
    "test_tokens.py::test_a_token_that_replaces",
    "test_tokens.py::test_two_tokens_of_a_name",
    "test_tokens.py::test_tokens_from_systemds_credentials",
    "test_tokens.py::test_a_wrong_command_line",
    "test_tokens.py::test_check_prints_the_version",
    "test_hub_bounds.py",
    "test_hub_lines.py::test_every_change_leaves_a_line_in_the_trail",
)
_FILES = sorted(path.name for path in _HERE.glob("test_*.py") if path != Path(__file__) and path.name not in _OURS)
# A leak of a test that failed before is not what the next one is about; and a fault may let a test run for ever.
_OPTIONS = [
    *("-qx", "--tb=short", "-pno:cacheprovider", "-pno:unraisableexception", "-pno:threadexception"),
    *("-ofaulthandler_timeout=60", "-ofaulthandler_exit_on_timeout=true"),
]
# Most of the time is spent waiting, so there are more than this machine may have cores.
_PROCESSES = 4


class Outcomes:
    """A pytest plugin: leaves out what is about our program, and keeps what became of the rest."""

    def __init__(self) -> None:
        self.passed = 0
        self.failures: list[str] = []
        self.errors: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if not any(ours in item.nodeid for ours in _OURS)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and (report.when != "call" or "NotStartedError" in report.longreprtext):
            self.errors.append(report.longreprtext)
        elif report.failed:
            self.failures.append(report.longreprtext)
        elif report.when == "call":
            self.passed += 1


def run(rule: str, test: str) -> Outcomes:
    """Run tests of the suite on the reference, without this rule if one is given."""
    command = [sys.executable, "-m", "tests.contract.reference", *(["--without", rule] if rule else [])]
    os.environ["CONTRACT_COMMAND"] = shlex.join(command)
    os.environ.pop("CONTRACT_URL", None)
    outcomes = Outcomes()
    # A folder of its own: several at once clear away each other's of the common one.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as output:
        code = pytest.main([*_OPTIONS, f"--basetemp={folder}/t", str(_HERE / test)], plugins=[outcomes])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        outcomes.errors.append(output.getvalue())
    return outcomes


def _node(test: str) -> str:
    """`leases::a_thing[x]` → `test_leases.py::test_a_thing[x]`."""
    file, _, name = test.partition("::")
    return f"test_{file}.py::test_{name}"


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[Outcomes]]]:
    """Every run by its rule or, of those without a fault, its file."""
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as pool:
        whole = {file: pool.submit(run, "", file) for file in _FILES}
        broken = {rule: pool.submit(run, rule, _node(fault.test)) for rule, fault in FAULTS.items()}
        yield whole | broken
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("file", _FILES)
def test_the_reference_passes(runs: dict[str, Future[Outcomes]], file: str) -> None:
    outcomes = runs[file].result(600)
    assert outcomes.failures + outcomes.errors == []
    assert outcomes.passed > 0


@pytest.mark.parametrize("rule", FAULTS)
def test_a_broken_rule_is_noticed(runs: dict[str, Future[Outcomes]], rule: str) -> None:
    outcomes = runs[rule].result(600)
    assert outcomes.failures, outcomes.errors or f"{FAULTS[rule].test} passes without it"
