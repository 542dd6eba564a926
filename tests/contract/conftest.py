"""Brokers for the contract suite: one process per module and setting."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract import tasks as tasks_dialect
from tests.contract.harness import Broker, Endpoint, caps, claim, submit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx


@pytest.fixture(scope="module")
def start_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Broker]]:
    """Start a broker with these settings, or give the one that the module has with them."""
    brokers: dict[tuple[tuple[str, str], ...], Broker] = {}

    def start(**settings: str) -> Broker:
        key = tuple(sorted(settings.items()))
        if key not in brokers:
            brokers[key] = Broker(tmp_path_factory.mktemp("broker"), settings)
            brokers[key].start()
        return brokers[key]

    yield start
    for broker in brokers.values():
        broker.close()


@pytest.fixture(scope="module")
def broker(start_broker: Callable[..., Broker]) -> Iterator[Endpoint]:
    """A broker with default settings: a process of ours, or the one at CONTRACT_URL.

    For the latter CONTRACT_BOT_TOKEN, CONTRACT_WORKER_TOKEN and CONTRACT_ADMIN_TOKEN are its tokens; its queue should
    be empty.
    """
    url = os.environ.get("CONTRACT_URL")
    if url is None:
        yield start_broker()
        return
    endpoint = Endpoint(url, os.environ["CONTRACT_BOT_TOKEN"], os.environ["CONTRACT_WORKER_TOKEN"])
    yield endpoint
    endpoint.close()


@pytest.fixture
def bot(broker: Endpoint) -> httpx.Client:
    """A submitter."""
    return broker.bot()


@pytest.fixture
def worker(broker: Endpoint, cap: str) -> httpx.Client:
    """A worker of this test's own: it gets this test's jobs only, and another test's lost lease ends no wait of it."""
    return broker.worker(f"w-{cap}", cap)


@pytest.fixture
def job(bot: httpx.Client, worker: httpx.Client, cap: str) -> Any:
    """A job that the worker runs, as its claim showed it."""
    submit(bot, requires=caps(cap))
    return claim(worker)


@pytest.fixture
def new_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """A broker of this test's own with these settings, not started yet; ended with the test, however that ends."""
    brokers: list[Broker] = []

    def new(**settings: str) -> Broker:
        brokers.append(Broker(tmp_path, settings))
        return brokers[-1]

    yield new
    for broker in brokers:
        broker.close()


@pytest.fixture
def cap() -> str:
    """A capability of this test's own, so that no other test's worker takes its jobs."""
    return f"cap-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def tasks(start_broker: Callable[..., Broker]) -> Broker:
    """A broker with the settings of the tasks dialect."""
    return start_broker(**tasks_dialect.SETTINGS)


@pytest.fixture
def submitter(tasks: Broker) -> httpx.Client:
    """Who has the global key."""
    return tasks_dialect.submitter(tasks)


@pytest.fixture
def name() -> str:
    """An agent of this test's own."""
    return tasks_dialect.unused()


@pytest.fixture
def agent(tasks: Broker, name: str) -> httpx.Client:
    """That agent's client."""
    return tasks_dialect.agent(tasks, name)
