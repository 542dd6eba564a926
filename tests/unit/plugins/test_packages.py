"""On this machine's own dpkg, and on programs in its place that answer as apt does on other hosts."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from plugins.modules import packages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KNOWN = (
    "Inst curl (7.88 Debian:12 [amd64])\nInst libcurl4 (7.88 Debian:12 [amd64])\nConf curl (7.88)\nConf libcurl4 (7.88)"
)
UNKNOWN = "E: Unable to locate package curl"


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], list[str]]]:
    """Put an apt-get in place whose simulation prints a plan, or fails until the lists are fetched."""

    def prepare(plan: str, *, lists: bool, age: float = 0, update: str = "true") -> Callable[[], list[str]]:
        folder, called = tmp_path / "lists", tmp_path / "called"
        folder.mkdir()
        called.touch()
        if lists:
            (tmp_path / "known").touch()
        program = tmp_path / "apt-get"
        program.write_text(
            f"""#!/bin/sh
for word; do case $word in --simulate|update|install) verb="$verb$word "; esac; done
echo "$verb" >> {called}
case $verb in
  update*) {update} && touch {tmp_path}/known ;;
  --simulate*) [ -e {tmp_path}/known ] || {{ echo "{UNKNOWN}" >&2; exit 100; }}; echo "{plan}" ;;
esac
"""
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.setattr(packages, "LISTS", folder)
        os.utime(folder, (time.time() - age,) * 2)
        monkeypatch.setattr(packages, "missing", lambda names: names)
        return lambda: called.read_text().split("\n")[:-1]

    return prepare


def test_what_dpkg_has_is_there_and_costs_no_call_of_apt(run_module: Callable[..., dict[str, Any]]) -> None:
    result = run_module("packages", names=["dpkg", "base-files"])
    assert (result["changed"], result["installed"]) == (False, [])


def test_a_check_announces_what_it_cannot_look_up(run_module: Callable[..., dict[str, Any]]) -> None:
    result = run_module("packages", check=True, names=["dpkg", "openclaw-no-such-package"])
    assert (result["changed"], result["installed"]) == (True, ["openclaw-no-such-package"])
    assert result["diff"]["after"] == "openclaw-no-such-package\n"


@pytest.mark.parametrize(
    ("name", "settled"),
    [
        ("openclaw-no-such-package | dpkg", "dpkg"),
        ("dpkg | base-files", "dpkg"),
        ("openclaw-no-such-package | openclaw-nor-this", "openclaw-no-such-package"),
    ],
)
def test_a_choice_is_what_is_installed(run_module: Callable[..., dict[str, Any]], name: str, settled: str) -> None:
    result = run_module("packages", check=True, names=[name, "dpkg"])
    assert (result["names"], result["changed"]) == ([settled, "dpkg"], settled != "dpkg")


@pytest.mark.parametrize("check", [True, False])
def test_what_has_to_go_is_told(
    apt: Callable[..., Callable[[], list[str]]], run_module: Callable[..., dict[str, Any]], check: bool
) -> None:
    apt("Remv chrony [4.3]\nInst no-such-daemon (252 Debian:12 [amd64])\nConf no-such-daemon (252)", lists=True)
    result = run_module("packages", check=check, names=["no-such-daemon"])
    assert result["diff"] == {"before": "chrony\n", "after": "no-such-daemon\n"}
    assert (result["installed"], result["removed"]) == (["no-such-daemon"], ["chrony"])


@pytest.mark.parametrize(
    ("host", "check", "installed", "calls"),
    [
        ({"plan": KNOWN, "lists": True}, False, ["curl", "libcurl4"], ["--simulate install", "install"]),
        (
            {"plan": KNOWN, "lists": True, "age": packages.FRESH_SECONDS + 1},
            False,
            ["curl", "libcurl4"],
            ["--simulate install", "update", "--simulate install", "install"],
        ),
        (
            {"plan": KNOWN, "lists": False},
            False,
            ["curl", "libcurl4"],
            ["--simulate install", "update", "--simulate install", "install"],
        ),
        ({"plan": "Conf curl (7.88)", "lists": True}, False, ["curl"], ["--simulate install", "install"]),
        # Something else provides it.
        ({"plan": "", "lists": True, "age": packages.FRESH_SECONDS + 1}, False, [], ["--simulate install"]),
        ({"plan": KNOWN, "lists": True}, True, ["curl", "libcurl4"], ["--simulate install"]),
        ({"plan": KNOWN, "lists": False}, True, ["curl"], ["--simulate install"]),
    ],
)
def test_lists_are_refreshed_only_where_that_helps(
    apt: Callable[..., Callable[[], list[str]]],
    host: dict[str, Any],
    check: bool,
    installed: list[str],
    calls: list[str],
) -> None:
    called = apt(**host)
    assert packages.install(["curl"], check_mode=check) == (installed, [])
    assert [call.strip() for call in called()] == calls


def test_lists_that_cannot_be_fetched_are_a_failure(apt: Callable[..., Callable[[], list[str]]]) -> None:
    apt(
        KNOWN, lists=False, update="{ echo 'W: Failed'; echo 'E: Some index files failed to download.'; exit 100; } >&2"
    )
    with pytest.raises(packages.PackageError, match=r"^E: Some index files failed to download\.$"):
        packages.install(["curl"], check_mode=False)


def test_lists_that_somebody_is_fetching_are_waited_for(
    apt: Callable[..., Callable[[], list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    monkeypatch.setattr("time.sleep", lambda _: lock.unlink())
    called = apt(
        KNOWN, lists=False, update=f"{{ [ ! -e {lock} ] || {{ echo 'E: Could not get lock x' >&2; exit 100; }}; }}"
    )
    assert packages.install(["curl"], check_mode=False).installed == ["curl", "libcurl4"]
    assert [call.strip() for call in called()].count("update") == 2
