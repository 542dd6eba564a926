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
    time.sleep(1)
    Path(__file__).with_suffix(".times").write_text(f"{begun} {time.monotonic()}")
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


def test_what_looks_for_leftovers_is_first_and_meets_no_other_lab(tmp_path: Path) -> None:
    for area in ("acceptance", "faults", "lab", "unit"):
        (tmp_path / "tests" / area).mkdir(parents=True)
    shutil.copy(_CONFTEST, tmp_path / "tests/conftest.py")
    files = ("acceptance/test_one.py", "faults/test_two.py", "lab/test_leftovers.py", "unit/test_three.py")
    for file in files:
        (tmp_path / "tests" / file).write_text(_TIMED)
    (tmp_path / "tests/acceptance/test_many.py").write_text(_MANY)
    (tmp_path / "tests/faults/conftest.py").write_text(_BEGINNING)
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib", "-n", "2"),
            *("--no-loadscope-reorder", f"--basetemp={tmp_path / 'base'}", "tests"),
        ],
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    times = [(tmp_path / "tests" / file).with_suffix(".times").read_text().split() for file in files]
    (_, one_ended), _, (leftovers, leftovers_ended), (three, _) = [map(float, pair) for pair in times]
    assert one_ended <= leftovers < leftovers_ended <= float((tmp_path / "tests/faults/begun").read_text())
    assert three < one_ended
