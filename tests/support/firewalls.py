"""The two firewalls of a node, its own and its cloud's: each can be taken away for a while."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import yaml
from hcloud import Client

from lab import network
from lab.process import run
from lab.stack import LabStack

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from hcloud.actions import BoundAction

    from lab.lab import Lab
    from tests.support.fleet import TestFleet

_TABLE = "table inet openclaw"


@contextmanager
def without_the_hosts(fleet: TestFleet, nodes: Collection[str]) -> Iterator[None]:
    """Delete the nodes' own table of rules, and have its unit make it again."""
    with ExitStack() as stack:
        for node in nodes:
            stack.enter_context(_without_the_hosts(fleet, node))
        yield


@contextmanager
def _without_the_hosts(fleet: TestFleet, node: str) -> Iterator[None]:
    namespace = fleet.lab.machine(node).namespace
    assert _TABLE in _tables(namespace), node
    network.nft(namespace, f"delete {_TABLE}\n")
    try:
        yield
    finally:
        assert _TABLE not in _tables(namespace), f"{node} had its firewall back too early"
        fleet.host(node).run_expect([0], "systemctl restart openclaw-firewall")
        assert _TABLE in _tables(namespace), node


def _tables(namespace: Path) -> list[str]:
    return run(["nsenter", f"--net={namespace}", "nft", "list", "tables"]).splitlines()


@contextmanager
def without_the_clouds(lab: Lab) -> Iterator[None]:
    """Take the cloud's firewalls off their servers, as one may in the cloud's console, and put them back."""
    attached = [(firewall, firewall.applied_to or []) for firewall in _client(lab).firewalls.get_all()]
    assert any(servers for _, servers in attached), "no server has a firewall"
    try:
        for firewall, servers in attached:
            _wait(firewall.remove_from_resources(servers))
        yield
    finally:
        for firewall, servers in attached:
            _wait(firewall.apply_to_resources(servers))


def _wait(actions: list[BoundAction]) -> None:
    for action in actions:
        action.wait_until_finished()


def _client(lab: Lab) -> Client:
    """Return the official client for the cloud of a lab, with the token that its stack has."""
    configuration = yaml.safe_load(LabStack(lab).engine.config.read_text())["config"]
    return Client((lab.folder / "cloud/token").read_text(), configuration["hcloud:endpoint"], poll_interval=0.2)
