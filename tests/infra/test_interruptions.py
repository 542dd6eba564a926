"""The engine, killed or interrupted by way of the command line: the next `fleet up` completes."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from fleet.errors import StackError
from lab import tools
from tests.support.kit import selected_stack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kit import Fleet

pytestmark = pytest.mark.skipif(tools.missing() is not None, reason=str(tools.missing()))


def quiet(_: str) -> None: ...


_UP = "from fleet import stack; print(stack.selected().up(lambda line: print(line, flush=True)))"


def test_up_after_a_kill_makes_what_was_begun_anew(selected: Fleet) -> None:
    selected.apis.fault(action="create_server", seconds=3, times=3)
    up = selected.start(_UP)
    selected.wait_for(selected.servers, "a server")
    os.killpg(up.pid, signal.SIGKILL)
    up.communicate()
    selected.apis.await_device(next(iter(selected.servers())))  # the cloud goes on with what it was told

    selected_stack().up(quiet)
    assert set(selected.servers()) == set(selected.apis.devices()) == {"agents-1", "agents-2", "broker-1"}
    assert selected_stack().up(quiet).endswith("unchanged")
    assert "pending_operations" not in selected.stack.state()


def test_up_after_a_kill_takes_over_a_volume_that_was_begun(selected: Fleet) -> None:
    selected.apis.fault(action="create_volume", seconds=5)
    up = selected.start(_UP)
    selected.wait_for(selected.apis.cloud.volumes.get_all, "a volume")
    os.killpg(up.pid, signal.SIGKILL)
    up.communicate()
    (begun,) = selected.apis.cloud.volumes.get_all()

    selected_stack().up(quiet)
    assert [volume.id for volume in selected.apis.cloud.volumes.get_all()] == [begun.id]
    assert set(selected.servers()) == set(selected.apis.devices()) == {"agents-1", "agents-2", "broker-1"}
    assert selected_stack().up(quiet).endswith("unchanged")
    assert "pending_operations" not in selected.stack.state()


def test_an_interrupt_ends_the_engine_in_good_order_and_up_goes_on_from_there(selected: Fleet) -> None:
    up = selected.start(_UP)
    selected.wait_for(selected.servers, "a server")
    os.killpg(up.pid, signal.SIGINT)
    said, _ = up.communicate(timeout=60)
    assert up.returncode == 1
    assert "interrupted; the same command again goes on from here" in said
    selected_stack().up(quiet)
    assert sorted(selected.servers()) == ["agents-1", "agents-2", "broker-1"]


@pytest.mark.parametrize("then", ["up", "destroy"])
def test_after_an_interrupt_servers_that_are_still_being_made_are_waited_for(selected: Fleet, then: str) -> None:
    selected.apis.fault(action="create_server", seconds=20, times=3)
    up = selected.start(_UP)
    selected.wait_for(selected.servers, "a server")
    os.killpg(up.pid, signal.SIGINT)
    up.communicate(timeout=60)
    getattr(selected_stack(), then)(quiet)
    assert sorted(selected.servers()) == (["agents-1", "agents-2", "broker-1"] if then == "up" else [])


def test_the_engine_outlives_us(selected: Fleet) -> None:
    """Killed alone, we leave the engine to end its work: our death must not be the end of its output."""
    selected.apis.fault(action="create_server", seconds=15)
    up = selected.start(_UP)
    selected.wait_for(selected.servers, "a server")
    os.kill(up.pid, signal.SIGKILL)
    up.communicate()
    with pytest.raises(StackError, match=r"is being changed by process \d+ on .*pulumi cancel --stack lab"):
        selected_stack().up(quiet)
    deadline = time.monotonic() + 180
    while len(selected.servers()) < 3 or '"pending_operations"' in selected.stack.state() or _locks(selected):
        assert time.monotonic() < deadline, "the engine did not end its work"
        time.sleep(0.2)
    assert selected_stack().up(quiet).endswith("unchanged")


def _locks(selected: Fleet) -> list[Path]:
    return list((selected.stack.engine.folder / "state/.pulumi/locks").rglob("*.json"))
