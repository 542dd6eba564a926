from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from plugins.modules.units import Unit, UnitError, label, newest_change, parse, plan

if TYPE_CHECKING:
    from pathlib import Path

RUNNING = Unit("loaded", "active", "enabled", reload=False, started=1000.0)
STOPPED = Unit("loaded", "inactive", "disabled", reload=False, started=0.0)


def entry(**more: Any) -> dict[str, Any]:
    return {"name": "x.service", "user": None, "state": "started", "enabled": None, "respect_mask": False, **more}


def unit(base: Unit, **more: Any) -> Unit:
    return Unit(**{**base.__dict__, **more})


@pytest.mark.parametrize(
    ("wanted", "actual", "stale", "verbs"),
    [
        (entry(enabled=True), RUNNING, False, []),
        (entry(enabled=True), STOPPED, False, ["enable", "start"]),
        (entry(enabled=False), unit(RUNNING, file="enabled"), False, ["disable"]),
        (entry(), unit(STOPPED, active="failed"), False, ["start"]),
        (entry(), unit(RUNNING, active="activating"), False, []),
        (entry(), RUNNING, False, []),
        (entry(), RUNNING, True, ["restart"]),
        (entry(), unit(STOPPED, started=1000.0), True, ["start"]),
        (entry(), unit(RUNNING, reload=True), False, ["daemon-reload"]),
        (entry(), unit(RUNNING, reload=True), True, ["daemon-reload", "restart"]),
        (entry(enabled=True), unit(RUNNING, file="static"), False, []),
        (entry(state="stopped", enabled=False), RUNNING, False, ["disable", "stop"]),
        (entry(state="stopped", enabled=False), STOPPED, False, []),
        (entry(state="stopped"), RUNNING, True, ["stop"]),
        (entry(state="stopped", enabled=False), unit(STOPPED, load="not-found", file=""), False, []),
        (entry(respect_mask=True, enabled=True), unit(STOPPED, load="masked", file="masked"), False, []),
    ],
)
def test_plan(wanted: dict[str, Any], actual: Unit, stale: bool, verbs: list[str]) -> None:
    assert plan(wanted, actual, stale=stale) == verbs


def test_a_masked_unit_that_must_run_is_refused() -> None:
    with pytest.raises(UnitError, match="systemctl unmask"):
        plan(entry(), unit(STOPPED, load="masked"), stale=False)


def test_parse_reads_the_start_on_the_wall_clock() -> None:
    text = "\n".join(
        [
            "LoadState=loaded",
            "ActiveState=active",
            "UnitFileState=enabled",
            "NeedDaemonReload=yes",
            "InactiveExitTimestampMonotonic=2500000",
            "",
        ]
    )

    assert parse(text, epoch_of_boot=100.0) == Unit("loaded", "active", "enabled", reload=True, started=102.5)


def test_parse_of_a_unit_that_never_ran() -> None:
    text = "LoadState=loaded\nActiveState=inactive\nUnitFileState=\nInactiveExitTimestampMonotonic=0\n"

    assert parse(text, epoch_of_boot=100.0).started == 0.0


def test_the_newest_change_counts_a_link_and_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "current").symlink_to("target")
    os.utime(tmp_path / "target", (9000, 9000))
    os.utime(tmp_path / "current", (5000, 5000), follow_symlinks=False)

    assert newest_change([str(tmp_path / "current"), str(tmp_path / "missing")]) == 5000
    assert newest_change([]) == 0


def test_a_broken_link_counts(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("nowhere")
    os.utime(tmp_path / "current", (5000, 5000), follow_symlinks=False)

    assert newest_change([str(tmp_path / "current")]) == 5000


def test_label() -> None:
    assert label(entry()) == "x.service"
    assert label(entry(user="agent1")) == "agent1/x.service"
