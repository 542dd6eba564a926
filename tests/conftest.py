"""What all tests share: the table of areas, and the rule that CI skips nothing that needs the lab."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter, defaultdict
from fcntl import LOCK_EX, LOCK_SH, LOCK_UN, flock
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from xdist.remote import Producer

_TESTS = Path(__file__).parent
_LAB_AREAS = {"acceptance", "faults", "lab", "molecule"}
# It looks for what a lab left anywhere on the machine, and so must not meet another.
_ALONE = "tests/lab/test_leftovers.py"
# A file that is locked by whom the labs belong to.
_LABS = os.open(__file__, os.O_RDONLY)
_NEVER_SKIPPED_BY_CI = {*_LAB_AREAS, "infra"}
# The one thing that the lab of a machine with cgroup v1 cannot show; CI lets this skip pass, by its very words.
CGROUP_V2_ONLY = "limits of single jobs are enforced where cgroup v2 delegates them, and this machine has cgroup v1"
_OUTCOMES = ("passed", "failed", "skipped")


class Areas:
    """Counts outcomes and seconds by area: the first folder below tests/. Shows what tests recorded as "note"."""

    def __init__(self) -> None:
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.excused: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.notes: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        area = _area(report.nodeid)
        self.seconds[area] += report.duration
        if report.when == "call":
            self.notes += [f"{area}: {value}" for name, value in report.user_properties if name == "note"]
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[area][report.outcome] += 1
        if report.skipped and CGROUP_V2_ONLY in str(report.longrepr):
            self.excused[area] += 1

    def skipped_in_ci(self) -> list[str]:
        return sorted(area for area in _NEVER_SKIPPED_BY_CI if self.outcomes[area]["skipped"] > self.excused[area])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if os.environ.get("CI") and self.skipped_in_ci() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        write("")
        write("area        · " + " · ".join(f"{outcome:>7}" for outcome in _OUTCOMES) + " · seconds")
        for area in sorted(self.outcomes):
            counts = " · ".join(f"{self.outcomes[area][outcome]:7}" for outcome in _OUTCOMES)
            write(f"{area:<11} · {counts} · {self.seconds[area]:7.1f}")
        for note in self.notes:
            write(note)
        if os.environ.get("CI") and self.skipped_in_ci():
            write(f"CI must not skip in: {', '.join(self.skipped_in_ci())}", red=True)


class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist's is untyped
    """What goes to a worker as one: tests that share a lab, of the rest each file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        area = _area(file)
        if file == _ALONE:
            # First in the lane that has a lab from the beginning: no other gets to one for long.
            return "acceptance"
        return area if area in {"acceptance", "faults"} else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Lanes:
    return Lanes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what has the labs to itself and what takes longest, beside it what needs no lab.

    Of the rest Molecule's scenarios begin: they wait more than they work.
    """
    items.sort(key=lambda item: _turn(item.nodeid))


def _turn(nodeid: str) -> int:
    if nodeid.startswith(_ALONE):
        return 0
    area = _area(nodeid)
    if area == "acceptance":
        return 1
    if area not in _LAB_AREAS:
        return 2
    return 3 if area == "molecule" else 4


def _area(nodeid: str) -> str:
    return Path(nodeid.partition("::")[0]).parts[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Let no test leave another its umask, as one that calls a program's `main` would."""
    before = os.umask(0o022)
    try:
        return (yield)
    finally:
        os.umask(before)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Wait for the labs where a test needs them, before its first fixture; what needs none yields to what does.

    They stay a worker's from test to test: in between, too, another's lab would leave traces.
    """
    has_lab = _area(item.nodeid) in _LAB_AREAS
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.setpriority(os.PRIO_PROCESS, 0, 0 if has_lab else 10)
    shared = LOCK_SH if has_lab else LOCK_UN
    flock(_LABS, LOCK_EX if item.nodeid.startswith(_ALONE) else shared)


def pytest_sessionfinish() -> None:
    # A worker that has ended waits for the others.
    flock(_LABS, LOCK_UN)


@pytest.fixture(autouse=True, scope="module")
def _beside_a_lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make nothing in /tmp beside a lab's tests, which look there."""
    if request.path.relative_to(_TESTS).parts[0] in _LAB_AREAS:
        yield
        return
    folder = str(tmp_path_factory.mktemp("tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


def pytest_configure(config: pytest.Config) -> None:
    # A run in the background ignores interrupts, and all that it starts would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Areas())
