"""What operators do with agents, and agents with each other: on the registry, and on what follows from it elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from broker_app.errors import AgentNotFoundError, TokenError
from broker_app.queue import commands

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from broker_app.agents import Agent, Agents
    from broker_app.auth import Authenticator, Caller
    from broker_app.hub import Hub
    from broker_app.logs import LogLine, Logs
    from broker_app.messages import Messages
    from broker_app.queue.job import Job
    from broker_app.queue.queue import Queue

    # An agent, whether it is online, and the ids of its running jobs.
    Entry = tuple[Agent, bool, list[str]]


class Registry:
    """The commands that are about agents."""

    def __init__(
        self, agents: Agents, queue: Queue, auth: Authenticator, *, hub: Hub, messages: Messages, logs: Logs
    ) -> None:
        self._agents = agents
        self._queue = queue
        self._auth = auth
        self._hub = hub
        self._messages = messages
        self._logs = logs

    async def perform(self, command: commands.AgentCommand, caller: Caller) -> Any:
        """Do what a command asks.

        Raises:
            RegistryError: As the registry's methods do.
            TokenError: An agent to register has two tokens already, or one to remove has a key in the environment.
        """
        match command:
            case commands.ListAgents():
                work: Awaitable[Any] = self._list(command)
            case commands.ShowAgent():
                work = self._show(command.name)
            case commands.ReadLog():
                work = self._read_log(command)
            case commands.Register():
                work = self._register(command)
            case commands.Remove():
                work = self._remove(command)
            case commands.Cordon():
                work = self._cordon(command)
            case commands.Assign():
                work = self._assign(command, caller)
            case commands.Post():
                work = self._post(command, caller.named())
        return await work

    def online(self, agent: Agent) -> bool:
        """Whether an agent is connected, or called within two long polls."""
        return self._hub.connected(agent.name) or agent.online(time.time())

    async def _list(self, command: commands.ListAgents) -> list[Entry]:
        running = await self._queue.running()
        return [
            (agent, self.online(agent), running.get(agent.name, []))
            for agent in await self._agents.known()
            if command.online in (None, self.online(agent)) and command.type in (None, agent.type)
        ]

    async def _show(self, name: str) -> Entry:
        agent = await self._agents.find(name)
        return agent, self.online(agent), (await self._queue.running()).get(name, [])

    async def _read_log(self, command: commands.ReadLog) -> list[LogLine]:
        await self._agents.find(command.name)
        return self._logs.since(command.name, command.after, command.limit)

    async def _register(self, command: commands.Register) -> tuple[Entry, str, str]:
        """The agent, its token, and where it connects to."""
        _, token = await self._agents.register(
            command.name, kind=command.type, capabilities=command.capabilities, metadata=command.metadata
        )
        return await self._show(command.name), token, f"{command.base}/agent/{command.name}/{token}"

    async def _remove(self, command: commands.Remove) -> tuple[tuple[Job, ...], bool]:
        """Shut the agent out, take its jobs back, and forget it last: what is cut short can be done again."""
        if self._auth.configured(command.name):
            raise TokenError("its key is in AGENT_API_KEYS: remove it there first")
        await self._agents.find(command.name)
        with self._auth.without(command.name):
            self._hub.remove(command.name)
            await self._queue.hold(command.name, frozenset())
            reason = f"agent {command.name} was removed"
            jobs = await self._queue.disown(command.name, reason, requeue=command.requeue)
            await self._agents.remove(command.name)
            # What it was given meanwhile. Whoever submits after this sees that it is gone (see `_assign`).
            jobs += await self._queue.disown(command.name, reason, requeue=command.requeue)
            self._logs.forget(command.name)
        return jobs, command.requeue

    async def _cordon(self, command: commands.Cordon) -> Entry:
        await self._agents.cordon(command.name, command.cordoned)
        # Who waits for a job does so as what it was before.
        await self._queue.dismiss(command.name)
        return await self._show(command.name)

    async def _assign(self, command: commands.Assign, caller: Caller) -> Job:
        await self._agents.find(command.agent)
        job = await self._queue.submit(command.order, caller.principal.name)
        try:
            await self._agents.find(command.agent)
        except AgentNotFoundError:
            await self._queue.cancel(job.id, f"agent {command.agent} was removed")
            raise
        return job

    async def _post(self, command: commands.Post, sender: str) -> bool:
        await self._agents.find(command.recipient)
        new = await self._messages.post(sender, command.recipient, command.message_id, command.envelope)
        self._hub.mail(command.recipient)
        return new
