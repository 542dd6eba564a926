"""Tokens, principals, and what is known of agents."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker_app.agents import Agent, Agents, Role, mint, revoke, tokens
from broker_app.auth import Authenticator, Principal
from broker_app.errors import StorageFailedError, TokenError, WrongIdentityError
from broker_app.schema import connect
from broker_app.server import tailnet_bound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_tokens_are_kept_as_digests_only(tmp_path: Path) -> None:
    connection = connect(tmp_path / "broker.db")
    token = mint(connection, "a", Role.WORKER, 5.0)
    dump = "\n".join(connection.iterdump())
    assert len(token) == 64
    assert token not in dump
    (kept,) = tokens(connection)
    assert (kept.name, kept.role, kept.created_at) == ("a", Role.WORKER, 5.0)
    connection.close()


def test_revoking_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    connection = connect(tmp_path / "broker.db")
    mint(connection, "a", Role.BOT, 0)
    with pytest.raises(TokenError, match="a has no worker token"):
        revoke(connection, "a", Role.WORKER)
    assert revoke(connection, "a", None) == 1
    with pytest.raises(TokenError, match="a has no token"):
        revoke(connection, "a", None)
    connection.close()


@pytest.mark.parametrize(
    ("bound", "said", "acts"), [(None, None, None), (None, "x", "x"), ("a", None, "a"), ("a", "a", "a")]
)
def test_as_whom_a_principal_acts(bound: str | None, said: str | None, acts: str | None) -> None:
    assert Principal(Role.WORKER, bound).act_as(said) == acts


def test_a_bound_token_is_for_its_name_only() -> None:
    with pytest.raises(WrongIdentityError, match="worker token of a cannot act as b"):
        Principal(Role.WORKER, "a").act_as("b")


def test_a_token_is_trusted_for_half_a_second(
    tmp_path: Path, bench: Callable[..., Any], run: Callable[[Any], Any]
) -> None:
    async def work() -> None:
        async with bench() as b:
            auth = Authenticator(b.database, [(Principal(Role.BOT), "shared"), (Principal(Role.WORKER), None)], b.clock)
            cli = connect(tmp_path / "broker.db")
            token = mint(cli, "a", Role.WORKER, 0)
            assert await auth.find(Role.WORKER, token) == Principal(Role.WORKER, "a")
            assert await auth.find(Role.BOT, token) is None
            assert await auth.find(Role.BOT, "shared") == Principal(Role.BOT)
            assert await auth.find(Role.WORKER, "shared") is None
            assert await auth.find(Role.WORKER, "") is None
            revoke(cli, "a", None)
            b.clock.now += 0.6
            assert await auth.find(Role.WORKER, token) is None
            cli.close()

    run(work())


def test_what_calls_tell_is_kept(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            agents = Agents(b.database, b.clock)
            agents.saw("a", runner_version="1", capabilities=("x",))
            agents.saw("b", runner_version=None, capabilities=None)
            b.clock.now += 1
            agents.saw("a", runner_version=None, capabilities=None)
            await agents.save()
            again = Agents(b.database, b.clock)
            await again.load()
            expected = [
                Agent(name="a", last_seen=b.clock.now, runner_version="1", capabilities=("x",)),
                Agent(name="b", last_seen=b.clock.now - 1),
            ]
            assert await agents.known() == await again.known() == expected

    run(work())


def test_what_could_not_be_saved_is_saved_the_next_time(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            agents = Agents(b.database, b.clock)
            agents.saw("a", runner_version=None, capabilities=None)
            await b.database.write(lambda connection: connection.execute("ALTER TABLE agents RENAME TO away"))
            with pytest.raises(StorageFailedError):
                await agents.save()
            await b.database.write(lambda connection: connection.execute("ALTER TABLE away RENAME TO agents"))
            await agents.save()
            again = Agents(b.database, b.clock)
            await again.load()
            assert [agent.name for agent in await again.known()] == ["a"]

    run(work())


def test_what_is_removed_while_it_is_saved_is_forgotten(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            agents = Agents(b.database, b.clock)
            agents.saw("a")
            removing = asyncio.create_task(agents.remove("a"))
            await asyncio.sleep(0)  # it waits for the writer now
            await agents.save()
            await removing
            again = Agents(b.database, b.clock)
            await again.load()
            assert await again.known() == await agents.known() == []

    run(work())


def test_what_could_not_be_removed_is_known_still(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            agents = Agents(b.database, b.clock)
            agents.saw("a")
            await b.database.write(lambda connection: connection.execute("ALTER TABLE agents RENAME TO away"))
            with pytest.raises(StorageFailedError):
                await agents.remove("a")
            assert (await agents.find("a")).name == "a"

    run(work())


def test_the_number_of_agents_is_bounded(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        async with bench() as b:
            agents = Agents(b.database, b.clock)
            for n in range(10_050):
                agents.saw(f"a{n}", runner_version=None, capabilities=None)
            assert len(await agents.known()) == 10_000

    run(work())


@pytest.mark.parametrize(("ago", "online"), [(0, True), (50, True), (51, False)])
def test_online_means_seen_within_two_long_polls(ago: int, online: bool) -> None:
    assert Agent(name="a", last_seen=100.0).online(100.0 + ago) is online
    assert not Agent(name="a").online(0.0)


@pytest.mark.parametrize(
    ("addresses", "bound"),
    [
        ([("127.0.0.1", 80)], True),
        ([("::1", 80, 0, 0)], True),
        ([("100.64.0.1", 80)], True),
        ([("100.127.255.254", 80)], True),
        ([("fd7a:115c:a1e0::1", 80, 0, 0)], True),
        (["/run/broker.sock"], True),
        ([("100.128.0.1", 80)], False),
        ([("::", 80, 0, 0)], False),
        ([("10.0.0.1", 80)], False),
        ([("fe80::1%eth0", 80, 0, 2)], False),
        ([("127.0.0.1", 80), ("192.168.1.1", 80)], False),
    ],
)
def test_what_counts_as_bound_to_the_tailnet(addresses: list[Any], bound: bool) -> None:
    assert tailnet_bound(addresses) is bound
