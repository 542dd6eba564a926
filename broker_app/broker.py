"""A running broker's parts, and the one place where commands meet the queue."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broker_app.agents import Agents, Role
from broker_app.auth import Authenticator, Principal
from broker_app.database import Database
from broker_app.errors import DatabaseError, MalformedError, StrangerError, UnauthorisedError
from broker_app.queue import commands
from broker_app.queue.job import Lease, Worker
from broker_app.queue.queue import Queue
from broker_app.queue.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping

    from broker_app.dialects import Identity
    from broker_app.queue.job import Job
    from broker_app.settings import Settings

_LOG = logging.getLogger(__name__)
_SAVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is behind a request: the owner of its token and, for a worker, as whom it acts."""

    principal: Principal
    token: str
    worker: Worker


class Broker:
    """The queue, the registry of agents and the tokens, on one database."""

    def __init__(self, settings: Settings, database: Database, store: SqliteStore) -> None:
        self._auth = Authenticator(database, _configured(settings))
        self.agents = Agents(database, time.time)
        self.queue = Queue(store, time.time, max_unfinished=settings.max_unfinished, per_minute=settings.per_minute)

    async def admit(self, tokens: Mapping[Role, str], roles: frozenset[Role]) -> tuple[Principal, str]:
        """The owner of the first good token of the roles, and that token.

        Raises:
            UnauthorisedError: There is none.
        """
        for role, token in tokens.items():
            if role in roles and (principal := await self._auth.find(role, token)):
                return principal, token
        raise UnauthorisedError

    async def vouch(self, name: str, key: str) -> tuple[Principal, str]:
        """The agent of that name, and its key.

        Raises:
            StrangerError: No agent of that name has a token.
            UnauthorisedError: The key is none of its tokens.
        """
        principal = await self._auth.find(Role.WORKER, key)
        if principal is not None and principal.name in (None, name):
            return principal, key
        if not await self._auth.knows(name):
            raise StrangerError(name)
        raise UnauthorisedError("Invalid credentials for agent")

    def identify(self, principal: Principal, token: str, identity: Identity) -> Caller:
        """Who the caller is, and note that it called.

        Raises:
            WrongIdentityError: The token is bound to another name.
        """
        name = principal.act_as(identity.name)
        if name is not None and principal.role is Role.WORKER:
            self.agents.saw(name, runner_version=identity.runner_version, capabilities=identity.capabilities)
        return Caller(principal, token, Worker(name, frozenset(identity.capabilities or ())))

    async def perform(self, command: commands.Command, caller: Caller, hangup: asyncio.Future[None]) -> Any:
        """Do what a command asks; what comes back is what its call renders.

        Args:
            command: What to do.
            caller: For whom.
            hangup: Done when the caller has gone.

        Raises:
            BrokerError: As the queue's methods do.
            MalformedError: The call is of a worker, and does not say of which.
        """
        held = Lease(caller.worker.name, getattr(command, "epoch", None))
        match command:
            case commands.Submit():
                work: Awaitable[Any] = self.queue.submit(command, caller.principal.name)
            case commands.Claim():
                work = self._claim(command, caller, hangup)
            case commands.Look():
                work = self.queue.look(command.job_id, wait=command.wait, hangup=hangup)
            case commands.Renew():
                work = self.queue.renew(command.job_id, held, command.lease_seconds)
            case commands.Release():
                work = self.queue.release(command.job_id, held, command.reason)
            case commands.Hold():
                work = self.queue.hold(_named(caller), command.leases)
            case commands.Finish():
                work = self.queue.finish(command.job_id, held, command.result)
            case commands.Fail():
                work = self.queue.fail(command.job_id, held, command.error)
            case commands.Requeue():
                work = self.queue.requeue(command.job_id)
            case commands.Browse():
                work = self.queue.browse(command)
            case commands.Survey():
                work = self._survey()
            case commands.ListAgents():
                work = self._list_agents()
        return await work

    async def _claim(self, command: commands.Claim, caller: Caller, hangup: asyncio.Future[None]) -> Job | None:
        job = await self.queue.claim(
            caller.worker, wait=command.wait, lease_seconds=command.lease_seconds, hangup=hangup
        )
        if job is None or command.wait <= 0:
            return job
        # Much may happen during a wait. A job handed to nobody, or on a revoked token, would be stuck for a lease.
        try:
            if not hangup.done():
                await self.admit({caller.principal.role: caller.token}, frozenset({caller.principal.role}))
                return job
        except UnauthorisedError:
            await self._give_back(job, "the token was revoked while its owner waited")
            raise
        await self._give_back(job, "the worker hung up while it waited")
        return None

    async def _give_back(self, job: Job, reason: str) -> None:
        await self.queue.release(job.id, Lease(job.worker, job.lease_epoch), reason)

    async def _survey(self) -> Any:
        now = time.time()
        seen = [(agent, agent.online(now)) for agent in await self.agents.known() if agent.last_seen is not None]
        return await self.queue.counts(), seen, now

    async def _list_agents(self) -> list[Any]:
        running = await self.queue.running()
        now = time.time()
        return [(agent, agent.online(now), running.get(agent.name, [])) for agent in await self.agents.known()]


def _configured(settings: Settings) -> Iterator[tuple[Principal, str | None]]:
    """The tokens that the environment gives, and whose they are."""
    yield Principal(Role.WORKER), settings.worker_token
    yield Principal(Role.BOT), settings.bot_token
    yield Principal(Role.BOT), settings.api_key
    for name, key in settings.agent_keys.items():
        yield Principal(Role.WORKER, name), key


def _named(caller: Caller) -> str:
    if caller.worker.name is None:
        raise MalformedError("X-Worker-Id is missing, and the token is nobody's own: whose leases are these?")
    return caller.worker.name


@asynccontextmanager
async def open_broker(settings: Settings) -> AsyncIterator[Broker]:
    """Open the database and keep the broker's own timers running meanwhile.

    Raises:
        DatabaseError: The database cannot be used.
    """
    database = Database(settings.database)
    try:
        broker = Broker(settings, database, await SqliteStore.open(database))
        await broker.agents.load()
        timers = [asyncio.create_task(broker.queue.keep_time()), asyncio.create_task(_keep_agents(broker.agents))]
        try:
            yield broker
        finally:
            for timer in timers:
                timer.cancel()
            await asyncio.gather(*timers, return_exceptions=True)
            with suppress(DatabaseError):
                await broker.agents.save()
    finally:
        await database.close()


async def _keep_agents(agents: Agents) -> None:
    while True:
        await asyncio.sleep(_SAVE_SECONDS)
        try:
            await agents.save()
        except DatabaseError as error:
            _LOG.error("cannot save who called, trying again: %s", error)
