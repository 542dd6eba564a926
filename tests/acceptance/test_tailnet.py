"""The whole policy of the tailnet: every tag calls every other by every way, told from both ends."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import product
from typing import TYPE_CHECKING

import pytest

from tests.support import firewalls, tailnet
from tests.support.tailnet import CLOSED, OPEN, Call, Member, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fleet import TestFleet

BROKER, RUNNER, GATEWAY, ADMIN = TAGS = ("tag:broker", "tag:runner", "tag:gateway", "tag:admin")
SSH, JOBS, DASHBOARD = ("tcp", 22), ("tcp", 8000), ("tcp", 18789)
# Ports that no rule names, and datagrams to one that is named for TCP.
WAYS = (SSH, JOBS, DASHBOARD, ("tcp", 443), ("tcp", 8001), ("udp", 8000), ("udp", 41000))
# All that is open. What stands here is meant; the kit has its own list (infra/policy.py).
TABLE = {
    (RUNNER, BROKER): {JOBS},
    (ADMIN, BROKER): {SSH, JOBS},
    (ADMIN, RUNNER): {SSH},
    (ADMIN, GATEWAY): {SSH, DASHBOARD},
}
# With the fleet's nodes and the controller, at least two of each tag: a tag may call its own, too.
GUESTS = {"broker-x": BROKER, "gateway-x": GATEWAY, "gateway-y": GATEWAY, "admin-x": ADMIN, "admin-y": ADMIN}
NODES = ("broker-1", "agents-1", "agents-2")
EVERYTHING = {"action": "accept", "src": ["*"], "dst": ["*:*"]}
# A policy without any rule would let everything through.
NOTHING = {"action": "accept", "src": [GATEWAY], "dst": [f"{BROKER}:1"]}

# Members hear of a policy within a second; a machine that is busy with other tests takes longer.
SOON = 90.0

Calls = dict[Call, Outcome]


@pytest.fixture(scope="module")
def members(fleet: TestFleet) -> Iterator[list[Member]]:
    lab = fleet.lab.lab
    with tailnet.guests(lab, GUESTS) as guests:
        members = [*tailnet.nodes(lab), *guests]
        assert {member.name for member in members} == {*NODES, "controller", *GUESTS}
        yield members


def _expected(members: list[Member], call: Call) -> Outcome:
    tags = {member.name: member.tag for member in members}
    return OPEN if call.way in TABLE.get((tags[call.source], tags[call.target]), ()) else CLOSED


def _open_calls(members: list[Member]) -> list[Call]:
    return [call for call in tailnet.pairs(members, WAYS) if _expected(members, call) == OPEN]


@pytest.fixture(scope="module", params=["by the policy alone", "with the hosts' firewalls"])
def calls(request: pytest.FixtureRequest, fleet: TestFleet, members: list[Member]) -> Calls:
    with ExitStack() as stack:
        if request.param == "by the policy alone":
            stack.enter_context(firewalls.without_the_hosts(fleet, NODES))
        return tailnet.call(members, WAYS, _open_calls(members))


@pytest.mark.parametrize(("source", "target"), [*product(TAGS, TAGS)])
def test_who_reaches_what(calls: Calls, members: list[Member], source: str, target: str) -> None:
    tags = {member.name: member.tag for member in members}
    cell = {
        call: outcome for call, outcome in calls.items() if (tags[call.source], tags[call.target]) == (source, target)
    }
    assert {call.way for call in cell} == set(WAYS)
    assert {call: outcome for call, outcome in cell.items() if outcome != _expected(members, call)} == {}


def test_each_cell_would_be_seen_open_and_closed(fleet: TestFleet, members: list[Member]) -> None:
    """Under a policy that lets all through each call arrives, under one that lets nothing through none does."""
    every = tailnet.pairs(members, WAYS)
    with firewalls.without_the_hosts(fleet, NODES):
        with tailnet.policy(fleet.lab.lab, EVERYTHING):
            assert _wrong(members, dict.fromkeys(every, OPEN)) == {}
        with tailnet.policy(fleet.lab.lab, NOTHING):
            assert _wrong(members, dict.fromkeys(every, CLOSED)) == {}
        assert _wrong(members, {call: _expected(members, call) for call in every}) == {}


def _wrong(members: list[Member], expected: Calls) -> Calls:
    """Return what of this does not come about, once the members have had time to hear of their policy."""
    awaited = [call for call, outcome in expected.items() if outcome == OPEN]
    deadline = time.monotonic() + SOON
    while True:
        calls = tailnet.call(members, WAYS, awaited)
        wrong = {call: outcome for call, outcome in calls.items() if outcome != expected[call]}
        if not wrong or time.monotonic() > deadline:
            return wrong
