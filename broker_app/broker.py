"""A running broker's parts, and the one place where commands meet the queue."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from broker_app.agents import Agents, Role
from broker_app.audit import Audit
from broker_app.auth import Authenticator, Caller, Principal
from broker_app.database import Database
from broker_app.errors import BrokerError, DatabaseError, StrangerError, UnauthorisedError
from broker_app.hub import Hub
from broker_app.logs import Logs
from broker_app.messages import Messages
from broker_app.queue import commands
from broker_app.queue.job import Lease, Worker
from broker_app.queue.queue import Queue
from broker_app.queue.sqlite import SqliteStore
from broker_app.registry import Registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping

    from broker_app.dialects import Identity
    from broker_app.queue.job import Job
    from broker_app.settings import Settings

_LOG = logging.getLogger(__name__)
_SAVE_SECONDS = 5.0
# What changes nothing; and renewals and reports, of which there are too many to read and which the jobs show.
_READERS = (
    commands.Look,
    commands.Follow,
    commands.Browse,
    commands.ShowQueue,
    commands.Survey,
    commands.ListAgents,
    commands.ShowAgent,
    commands.ReadLog,
    commands.Renew,
    commands.Report,
)


class Broker:
    """The queue, the registry of agents, their messages and the tokens, on one database; and the trail of all of it."""

    def __init__(self, settings: Settings, database: Database, store: SqliteStore) -> None:
        self._auth = Authenticator(database, _configured(settings))
        self.agents = Agents(database, time.time)
        self.messages = Messages(database, time.time)
        self.logs = Logs()
        self.audit = Audit(settings.database)
        self.queue = Queue(
            store,
            time.time,
            max_unfinished=settings.max_unfinished,
            per_minute=settings.per_minute,
            retention_seconds=settings.retention_seconds,
        )
        self.hub = Hub(self, settings)
        self.registry = Registry(
            self.agents, self.queue, self._auth, hub=self.hub, messages=self.messages, logs=self.logs
        )

    async def admit(self, tokens: Mapping[Role, str], roles: frozenset[Role]) -> tuple[Principal, str]:
        """The owner of the first good token of the roles, and that token.

        Raises:
            UnauthorisedError: There is none.
        """
        for role, token in tokens.items():
            if role in roles and (principal := await self._auth.find(role, token)):
                return principal, token
        raise UnauthorisedError

    async def recheck(self, caller: Caller) -> None:
        """See that a caller's token is as good as it was when it came.

        Raises:
            UnauthorisedError: It was revoked.
        """
        role = caller.principal.role
        await self.admit({role: caller.token}, frozenset({role}))

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

    def identify(self, principal: Principal, token: str, identity: Identity, where: str = "") -> Caller:
        """Who the caller is, and note that it called.

        Raises:
            WrongIdentityError: The token is bound to another name.
        """
        name = principal.act_as(identity.name)
        if name is not None and principal.role is Role.WORKER:
            self.agents.saw(name, runner_version=identity.runner_version, capabilities=identity.capabilities)
        return Caller(principal, token, Worker(name, frozenset(identity.capabilities or ())), where)

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
        try:
            done = await self._do(command, caller, hangup)
        except BrokerError as error:
            await self._note(command, caller, f"refused: {error}")
            raise
        await self._note(command, caller, "done", done)
        return done

    async def _note(self, command: commands.Command, caller: Caller, outcome: str, done: Any = None) -> None:
        """Leave a line in the trail of what changed something, or would have."""
        if isinstance(command, _READERS) or (isinstance(command, commands.Claim) and done is None):
            return
        who, role = caller.worker.name or caller.principal.name, caller.principal.role
        order = command.order if isinstance(command, commands.Assign) else command
        await self.audit.note_with_others(
            time.time(),
            who=who or f"the shared {role} token",
            role=role,
            what=type(command).__name__.lower(),
            where=caller.where,
            job=getattr(done, "id", getattr(command, "job_id", None)),
            jobs=len(done) if isinstance(done, tuple) else None,
            command=getattr(order, "command", getattr(done, "command", None)),
            agent=getattr(command, "agent", getattr(command, "name", getattr(command, "recipient", None))),
            outcome=outcome,
        )

    async def _do(self, command: commands.Command, caller: Caller, hangup: asyncio.Future[None]) -> Any:
        match command:
            case commands.Claim():
                return await self._claim(command, caller, hangup)
            case commands.Hold():
                return await self.queue.hold(caller.named(), command.leases)
            case commands.Renew() | commands.Release() | commands.Finish() | commands.Fail() | commands.Report():
                return await self._of_holder(command, Lease(caller.worker.name, command.epoch))
            case commands.Pause() | commands.Resume() | commands.ShowQueue() | commands.Survey():
                return await self._of_operator(command)
            case command if isinstance(command, commands.JobCommand):
                return await self._of_submitter(command, caller, hangup)
            case _:
                return await self.registry.perform(command, caller)

    async def _of_submitter(self, command: commands.JobCommand, caller: Caller, hangup: asyncio.Future[None]) -> Any:
        match command:
            case commands.Submit():
                work: Awaitable[Any] = self.queue.submit(command, caller.principal.name)
            case commands.SubmitAll():
                work = self.queue.submit_all(command.orders, caller.principal.name)
            case commands.Cancel():
                work = self.queue.cancel(command.job_id, command.reason)
            case commands.Requeue():
                work = self.queue.requeue(command.job_id)
            case commands.Look():
                work = self.queue.look(command.job_id, wait=command.wait, hangup=hangup)
            case commands.Follow():
                work = self.queue.follow(command, hangup=hangup)
            case commands.Browse():
                work = self.queue.browse(command)
        return await work

    async def _of_operator(self, command: commands.QueueCommand) -> Any:
        match command:
            case commands.Pause():
                await self.queue.pause(command.reason)
            case commands.Resume():
                await self.queue.resume()
            case commands.ShowQueue():
                return await self.queue.counts(), self.queue.paused()
            case commands.Survey():
                return await self._survey()
        return None

    async def _of_holder(self, command: commands.HolderCommand, held: Lease) -> Job:
        match command:
            case commands.Renew():
                work = self.queue.renew(command.job_id, held, command.lease_seconds)
            case commands.Release():
                work = self.queue.release(command.job_id, held, command.reason)
            case commands.Finish():
                work = self.queue.finish(command.job_id, held, command.result)
            case commands.Fail():
                work = self.queue.fail(command.job_id, held, command.error, undelivered=command.undelivered)
            case commands.Report():
                work = self.queue.report(command, held)
        return await work

    async def _claim(self, command: commands.Claim, caller: Caller, hangup: asyncio.Future[None]) -> Job | None:
        worker = replace(caller.worker, cordoned=self.agents.cordoned(caller.worker.name))
        job = await self.queue.claim(worker, wait=command.wait, lease_seconds=command.lease_seconds, hangup=hangup)
        if job is None or command.wait <= 0:
            return job
        # Much may happen during a wait. A job handed to nobody, or on a revoked token, would be stuck for a lease.
        try:
            if not hangup.done():
                await self.recheck(caller)
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
        known = [agent for agent in await self.agents.known() if agent.last_seen is not None]
        seen = [(agent, self.registry.online(agent)) for agent in known]
        return await self.queue.counts(), seen, now


def _configured(settings: Settings) -> Iterator[tuple[Principal, str | None]]:
    """The tokens that the environment gives, and whose they are."""
    yield Principal(Role.WORKER), settings.worker_token
    yield Principal(Role.BOT), settings.bot_token
    yield Principal(Role.BOT), settings.api_key
    for name, key in settings.agent_keys.items():
        yield Principal(Role.WORKER, name), key


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
        timers = [asyncio.create_task(broker.queue.keep_time()), asyncio.create_task(_keep(broker))]
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


async def _keep(broker: Broker) -> None:
    while True:
        await asyncio.sleep(_SAVE_SECONDS)
        try:
            await broker.agents.save()
            await broker.messages.forget()
            await broker.queue.forget()
        except DatabaseError as error:
            _LOG.error("cannot keep the database tidy, trying again: %s", error)
