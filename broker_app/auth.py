"""Principals: whose token a call carries, and under which name it may act."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker_app.agents import Role, digest
from broker_app.errors import MalformedError, WrongIdentityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from broker_app.database import Database
    from broker_app.queue.job import Worker

_TRUST_SECONDS = 0.5
_GOOD_FOR = {Role.WORKER: (Role.WORKER,), Role.BOT: (Role.BOT, Role.ADMIN), Role.ADMIN: (Role.ADMIN,)}


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a token; `name` is None for a token shared by all of that role."""

    role: Role
    name: str | None = None

    def act_as(self, name: str | None) -> str | None:
        """The name under which a call acts.

        Raises:
            WrongIdentityError: The token is bound to another name.
        """
        if self.name is None:
            return name
        if name not in (None, self.name):
            raise WrongIdentityError(f"the {self.role} token of {self.name} cannot act as {name}")
        return self.name


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is behind a request: the owner of its token and, for a worker, as whom it acts; and from where it calls."""

    principal: Principal
    token: str
    worker: Worker
    where: str = ""

    def named(self) -> str:
        """The worker's name.

        Raises:
            MalformedError: It did not say.
        """
        if self.worker.name is None:
            raise MalformedError("X-Worker-Id is missing, and the token is nobody's own: whose leases are these?")
        return self.worker.name


class Authenticator:
    """Finds the principal of a token.

    Tokens are compared by digest only, so the time taken tells nothing about a token. A minted token is looked
    up again after half a second: one that was revoked meanwhile is refused.
    """

    def __init__(
        self,
        database: Database,
        configured: Iterable[tuple[Principal, str | None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._configured = {(owner.role, digest(token)): owner for owner, token in configured if token}
        self._clock = clock
        self._trusted: dict[tuple[Role, bytes], tuple[Principal, float]] = {}
        self._shut_out: set[str] = set()

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Shut an agent out while its tokens are removed, also where one is still trusted."""
        self._shut_out.add(name)
        try:
            yield
        finally:
            self._shut_out.discard(name)
            self._trusted = {key: entry for key, entry in self._trusted.items() if entry[0].name != name}

    async def find(self, role: Role, token: str) -> Principal | None:
        """The principal, None when the token is not good for that role; an admin who acts as a bot stays an admin."""
        if not token:
            return None
        key = (role, digest(token))
        if key in self._configured:
            return self._configured[key]
        principal, until = self._trusted.get(key, (None, 0.0))
        if self._clock() >= until:
            principal = await self._look_up(*key)
        shut_out = principal is not None and principal.role is Role.WORKER and principal.name in self._shut_out
        return None if shut_out else principal

    def configured(self, name: str) -> bool:
        """Whether the environment gives an agent of that name a token."""
        return Principal(Role.WORKER, name) in self._configured.values()

    async def knows(self, name: str) -> bool:
        """Whether an agent of that name has a token."""
        if self.configured(name):
            return True
        query = "SELECT 1 FROM tokens WHERE name = ? AND role = ?"
        return await self._database.read(lambda db: db.execute(query, (name, Role.WORKER)).fetchone()) is not None

    async def _look_up(self, role: Role, token_digest: bytes) -> Principal | None:
        query = "SELECT name, role FROM tokens WHERE digest = ?"
        row = await self._database.read(lambda db: db.execute(query, (token_digest,)).fetchone())
        if row is None or row["role"] not in _GOOD_FOR[role]:
            self._trusted.pop((role, token_digest), None)
            return None
        principal = Principal(Role(row["role"]), row["name"])
        self._trusted[role, token_digest] = (principal, self._clock() + _TRUST_SECONDS)
        return principal
