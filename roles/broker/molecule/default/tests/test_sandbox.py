"""What a broker that was taken over could do, tried inside the directives of its own unit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from testinfra.host import Host

    Outcomes = dict[str, list[str]]

testinfra_hosts = ["ansible://brokers"]
PROBE = Path(__file__).with_name("probe.py").read_text()
PLACE = "/usr/local/lib/broker-probe.py"


@pytest.fixture(scope="module")
def tried() -> Callable[[Host], Outcomes]:
    """Make all attempts once on each host."""
    found: dict[str, Outcomes] = {}

    def outcomes(host: Host) -> Outcomes:
        name = host.backend.get_hostname()
        if name not in found:
            with host.sudo():
                host.check_output(f"cat > {PLACE} <<'PROBE'\n{PROBE}\nPROBE")
                found[name] = json.loads(host.check_output(f"python3 {PLACE}; rm {PLACE}"))
        return found[name]

    return outcomes


def test_nothing_but_its_state_is_open_to_it(host: Host, tried: Callable[[Host], Outcomes]) -> None:
    done = [attempt for attempt, (outcome, _) in tried(host).items() if outcome == "done"]

    assert done == ["write to its state"]


def test_every_attempt_was_made(host: Host, tried: Callable[[Host], Outcomes]) -> None:
    outcomes = {outcome for outcome, _ in tried(host).values()}

    assert not {outcome for outcome in outcomes if not outcome.startswith(("done", "refused", "killed"))}


def test_each_attempt_is_stopped_by_the_directives_that_are_meant_for_it(
    host: Host, tried: Callable[[Host], Outcomes]
) -> None:
    """Without them it can be done, so that none fails for want of a target."""
    still = {attempt: outcome for attempt, (_, outcome) in tried(host).items() if outcome != "done"}

    assert still == {}
