"""The table at the end of a run, and what CI makes of a skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CGROUP_V2_ONLY

_CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
_TESTS = {
    "acceptance": f"import pytest\ndef test_excused() -> None:\n    pytest.skip({CGROUP_V2_ONLY!r})\n",
    "infra": "import pytest\ndef test_skipped() -> None:\n    pytest.skip('there is no Go')\n",
    "lab": "import pytest\ndef test_skipped() -> None:\n    pytest.skip('the lab needs root')\n",
    "unit": "def test_passed() -> None:\n    pass\n",
}


@pytest.mark.parametrize(
    ("areas", "ci", "status"),
    [
        ("unit lab", "true", 1),
        ("unit infra", "true", 1),
        ("unit lab", "", 0),
        ("unit", "true", 0),
        ("unit acceptance", "true", 0),
    ],
)
def test_ci_fails_on_a_skip_in_some_areas(tmp_path: Path, areas: str, ci: str, status: int) -> None:
    (tmp_path / "tests").mkdir()
    shutil.copy(_CONFTEST, tmp_path / "tests/conftest.py")
    for area in areas.split():
        (tmp_path / "tests" / area).mkdir()
        (tmp_path / "tests" / area / "test_it.py").write_text(_TESTS[area])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib", "tests"],
        cwd=tmp_path,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert "area        ·  passed ·  failed · skipped · seconds" in done.stdout
    assert "unit        ·       1 ·       0 ·       0 · " in done.stdout
    assert ("CI must not skip in: " in done.stdout) is bool(status)


_TIMED = """
import time
from pathlib import Path
def test_timed() -> None:
    begun = time.monotonic()
    time.sleep({seconds})
    Path(__file__).with_suffix(".times").write_text(f"{{begun}} {{time.monotonic()}}")
"""

_BEGINNING = """
import time
from pathlib import Path
import pytest
@pytest.fixture(scope="package", autouse=True)
def lab() -> None:
    Path(__file__).with_name("begun").write_text(str(time.monotonic()))
"""

# A worker with fewer tests before it would be given the others too.
_MANY = """
import pytest
@pytest.mark.parametrize("number", range(4))
def test_one_of_many(number: int) -> None:
    pass
"""
_SECONDS = {
    "acceptance/test_one.py": 1,
    "faults/test_two.py": 1,
    "lab/test_leftovers.py": 2,
    "molecule/test_three.py": 1,
    # So that the others' next ones begin while one has the labs to itself.
    "unit/test_five.py": 1,
    "unit/test_four.py": 1,
}


def test_what_looks_for_leftovers_meets_no_other_lab_and_the_others_share(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    for file, seconds in _SECONDS.items():
        (tests / file).parent.mkdir(parents=True, exist_ok=True)
        (tests / file).write_text(_TIMED.format(seconds=seconds))
    shutil.copy(_CONFTEST, tests / "conftest.py")
    (tests / "acceptance/test_many.py").write_text(_MANY)
    (tests / "molecule/conftest.py").write_text(_BEGINNING)
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib", "-n", "3"),
            *("--no-loadscope-reorder", f"--basetemp={tmp_path / 'base'}", "tests"),
        ],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    times = [(tests / file).with_suffix(".times").read_text().split() for file in _SECONDS]
    one, two, leftovers, three, *_ = [(float(begun), float(ended)) for begun, ended in times]
    three = (float((tests / "molecule/begun").read_text()), three[1])
    assert _meet(one, two)
    assert not [lab for lab in (one, two, three) if _meet(leftovers, lab)]


def _meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]
