"""What Prometheus reads: the seed's three metrics of the hub, and the queue's own."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from broker_app.broker import Broker
    from broker_app.queue.store import Counts

# Whoever asks more often is told the same again: counting is work, and asking needs no token.
_FRESH_SECONDS = 1.0
_TALLIED = {
    "jobs_submitted": "Jobs submitted.",
    "jobs_delivered": "Leases granted.",
    "jobs_done": "Jobs that ended with a result.",
    "leases_lost": "Leases that ended before their job.",
}


class Metrics:
    """The metrics of one broker."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._text = b""
        self._until = 0.0
        self._reading = asyncio.Lock()

    async def text(self) -> bytes:
        """All of them, in Prometheus' text format.

        Raises:
            DatabaseError: They cannot be read.
        """
        async with self._reading:
            if time.monotonic() >= self._until:
                self._text = await self._read()
                self._until = time.monotonic() + _FRESH_SECONDS
            return self._text

    async def _read(self) -> bytes:
        counts = await self._broker.queue.counts()
        agents = [self._broker.registry.online(agent) for agent in await self._broker.agents.known()]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Reading(self._broker, counts, agents))
        return generate_latest(registry)


class _Reading:
    """The metrics at one time."""

    def __init__(self, broker: Broker, counts: Counts, online: list[bool]) -> None:
        self._broker = broker
        self._counts = counts
        self._online = online

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        counts, tally = self._counts, self._broker.queue.tally
        messages = CounterMetricFamily("vm_hub_messages", "Envelopes over WebSocket.", labels=["direction", "type"])
        for labels, count in sorted(self._broker.hub.counts.items()):
            messages.add_metric(labels, count)
        yield messages
        agents = GaugeMetricFamily("vm_hub_agents", "Agents.", labels=["status"])
        agents.add_metric(["online"], self._online.count(True))
        agents.add_metric(["offline"], self._online.count(False))
        yield agents
        yield GaugeMetricFamily("vm_hub_active_tasks", "Jobs that are running.", value=counts.running)
        jobs = GaugeMetricFamily("openclaw_jobs", "Unfinished and dead jobs.", labels=["state"])
        for state in ("ready", "delayed", "running", "dead"):
            jobs.add_metric([state], getattr(counts, state))
        yield jobs
        age = 0.0 if counts.oldest is None else max(0.0, time.time() - counts.oldest)
        yield GaugeMetricFamily("openclaw_oldest_ready_job_seconds", "Age of the oldest ready job.", value=age)
        for name, text in _TALLIED.items():
            yield CounterMetricFamily(f"openclaw_{name}", text, value=tally[name])
