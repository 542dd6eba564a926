"""The stand-in's state outlives it: nothing that was answered is lost, and what was under way is done."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.hetzner import Hetzner, create_server, start_server, unique

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Hetzner]:
    """A stand-in of one test, to be killed."""
    stand_in = Hetzner(tmp_path / "state", seconds=0.02)
    stand_in.start()
    yield stand_in
    stand_in.stop()


def kill(stand_in: Hetzner) -> None:
    stand_in.stop(signal.SIGKILL)
    stand_in.start()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_an_action_under_way_is_done_after_the_next_start(fragile: Hetzner, how: signal.Signals) -> None:
    cloud = fragile.client()
    fragile.fault(action="create_server", seconds=4)
    created = start_server(cloud)
    fragile.stop(how)
    fragile.start()
    assert cloud.servers.get_by_id(created.server.id).status == "initializing"
    for action in [created.action, *created.next_actions]:
        action.wait_until_finished()
        assert cloud.actions.get_by_id(action.id).status == "success"
    assert cloud.servers.get_by_id(created.server.id).status == "running"


def test_everything_is_as_it_was(fragile: Hetzner) -> None:
    cloud = fragile.client()
    create_server(cloud, labels={"a": "b"}, firewalls=[cloud.firewalls.create(unique()).firewall])
    fragile.fault(match="GET /pricing", code="conflict")
    fragile.limit(server=5)
    paths = ("/v1/servers", "/v1/firewalls", "/v1/primary_ips", "/v1/actions", "/_lab/faults")
    before = [fragile.call("GET", path).json() for path in paths]
    kill(fragile)
    assert [fragile.call("GET", path).json() for path in paths] == before
    fragile.call("DELETE", "/_lab/faults")


def test_numbers_are_never_given_twice(fragile: Hetzner) -> None:
    cloud = fragile.client()
    group = cloud.placement_groups.create(unique(), "spread").placement_group
    group.delete()
    kill(fragile)
    assert cloud.placement_groups.create(unique(), "spread").placement_group.id > group.id


def test_kills_at_any_point_lose_and_tear_nothing(fragile: Hetzner) -> None:
    """Someone makes and deletes servers while the stand-in is killed again and again."""
    cloud, answered, ends = fragile.client(), {}, threading.Event()

    def work() -> None:
        while not ends.is_set():
            try:
                created = start_server(cloud)
                answered[created.server.id] = True
                created.next_actions[-1].wait_until_finished()
                cloud.servers.get_by_id(created.server.id).delete().wait_until_finished()
                answered[created.server.id] = False
            except (OSError, httpx.TransportError):
                time.sleep(0.02)

    worker = threading.Thread(target=work)
    worker.start()
    for number in range(6):
        time.sleep(0.15 + 0.07 * number)
        kill(fragile)
    ends.set()
    worker.join(timeout=60)
    assert not worker.is_alive()
    settle(fragile)
    left = {server.id for server in cloud.servers.get_all()}
    assert answered
    # A server whose deletion was never answered may be there or gone; one that was seen gone stays gone.
    assert not left & {number for number, is_there in answered.items() if not is_there}
    assert all(server.status == "running" for server in cloud.servers.get_all())
    assert {address.assignee_id for address in cloud.primary_ips.get_all()} == left
    with sqlite3.connect(fragile.state) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def settle(stand_in: Hetzner) -> None:
    deadline = time.monotonic() + 60
    while stand_in.call("GET", "/v1/actions", params={"status": "running"}).json()["actions"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_fault_is_used_up_before_a_crash(fragile: Hetzner) -> None:
    cloud = fragile.client()
    fragile.fault(action="create_server", code="action_failed", seconds=1)
    failed = start_server(cloud)
    kill(fragile)
    with pytest.raises(Exception, match="on demand"):
        failed.action.wait_until_finished()
    assert create_server(cloud).status == "running"


def test_a_state_file_serves_one_stand_in(fragile: Hetzner) -> None:
    second: Any = Hetzner(fragile.state)
    with pytest.raises(AssertionError, match="did not start"):
        second.start()
    assert fragile.call("GET", "/v1/servers").status_code == 200
