"""The bench's verdicts, and the count that one of them is about."""

from __future__ import annotations

import pytest

from tests.bench.report import COLD, LIMITS, SCRIPT, SECOND, Figures, Sample
from tests.support.ansible import module_runs

# (hosts, kind, seconds, module runs): just inside every limit.
WITHIN = [
    (3, COLD, 60.0, 70),
    (3, SECOND, 40.0, 60),
    (3, SCRIPT, 15.0, 0),
    (10, COLD, 300.0, 70),
    (10, SECOND, 132.0, 60),
    (10, SCRIPT, 50.0, 0),
]


def figures(*rows: tuple[int, str, float, int]) -> Figures:
    return Figures(
        Sample(hosts, 1, kind, wall, controller=1, per_host=1, elsewhere=0, load=0, modules=modules, changed=0)
        for hosts, kind, wall, modules in rows
    )


def broken(found: Figures) -> set[str]:
    return {limit.what for limit in LIMITS if not limit.verdict(found)[0]}


def test_what_is_inside_the_limits_holds() -> None:
    assert broken(figures(*WITHIN)) == set()


@pytest.mark.parametrize(
    ("row", "worse", "named"),
    [
        (0, (3, COLD, 60.1, 70), {"cold converge of 3 hosts, to the script", "cold converge of 3 hosts"}),
        (2, (3, SCRIPT, 14.9, 0), {"cold converge of 3 hosts, to the script"}),
        (1, (3, SECOND, 40.1, 60), {"second converge of 3 hosts"}),
        (4, (10, SECOND, 133.0, 60), {"second converge of 10 hosts, to that of 3"}),
        (4, (10, SECOND, 132.0, 61), {"module runs per host in a second converge"}),
    ],
)
def test_what_is_outside_a_limit_is_named(row: int, worse: tuple[int, str, float, int], named: set[str]) -> None:
    assert broken(figures(*WITHIN[:row], worse, *WITHIN[row + 1 :])) == named


def test_ratios_are_those_of_a_round_and_their_median_counts() -> None:
    rounds = [figures((3, COLD, cold, 0), (3, SCRIPT, script, 0)) for cold, script in ((10, 5), (90, 10), (20, 4))]
    assert Figures(sample for each in rounds for sample in each.samples).times_script(3, COLD) == 5.0


def test_module_runs_are_counted_by_address() -> None:
    ssh = "p=1 u=root n=ansible INFO| <{}> SSH: EXEC ssh -o ControlPath=/x {} '/bin/sh -c '\"'\"'{} && sleep 0'\"'\"''"
    log = [
        ssh.format("10.0.0.1", "10.0.0.1", "sudo -u root /bin/sh -c echo BECOME ; /usr/bin/python3"),
        ssh.format("10.0.0.1", "10.0.0.1", "/usr/bin/python3"),
        ssh.format("10.0.0.2", "10.0.0.2", "/usr/bin/python3"),
        ssh.format("10.0.0.2", "10.0.0.2", "rm -f -r /tmp/x"),
        "p=1 u=root n=ansible INFO| TASK [x : run /usr/bin/python3 ]",
    ]
    assert module_runs("\n".join(log)) == {"10.0.0.1": 2, "10.0.0.2": 1}
