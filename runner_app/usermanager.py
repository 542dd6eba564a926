"""Calls to the systemd user manager over D-Bus, a connection each: a manager that restarted needs no repair here."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, new_method_call
from jeepney.io.asyncio import open_dbus_router
from jeepney.io.common import RouterClosed
from jeepney.wrappers import unwrap_msg

from runner_app.execution import ExecutionError
from runner_app.settings import Limits

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", bus_name=_SYSTEMD, interface=f"{_SYSTEMD}.Manager")
_ANSWER_SECONDS = 20
_GONE = {"NoSuchUnit", "UnknownObject"}


class ManagerRefusedError(ExecutionError):
    """The manager refused a call; ``name`` is the D-Bus error's name without its prefix."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"systemd refused: {message}")
        self.name = name.rpartition(".")[2]


class UserManager:
    """The manager of the user we run as. Every call raises ExecutionError if there is no answer or a refusal."""

    async def start(self, name: str) -> None:
        """Order the start of a unit; one that is running is left as it is."""
        await self._manager("StartUnit", "ss", name, "fail")

    async def restart(self, name: str) -> None:
        """Order the start of a unit, after its stop if it is running."""
        await self._manager("RestartUnit", "ss", name, "replace")

    async def stop(self, name: str) -> None:
        """Order a stop of a unit; one that is gone has stopped."""
        await self._unless_gone("StopUnit", "ss", name, "replace")

    async def kill(self, name: str) -> None:
        """Send SIGKILL to every process of a unit; one that is gone has none."""
        await self._unless_gone("KillUnit", "ssi", name, "all", signal.SIGKILL)

    async def limit(self, slice_name: str, limits: Limits) -> None:
        """Hold a slice to limits, from now on and until the manager ends."""
        properties = [
            ("MemoryMax", ("t", limits.memory)),
            ("MemorySwapMax", ("t", 0)),
            ("CPUQuotaPerSecUSec", ("t", limits.cpu * 10_000)),
            ("TasksMax", ("t", limits.tasks)),
        ]
        await self._manager("SetUnitProperties", "sba(sv)", slice_name, True, properties)

    async def reset_failed(self, name: str) -> None:
        """Make the manager forget a failed unit, if it has not yet."""
        await self._unless_gone("ResetFailedUnit", "s", name)

    async def failed(self, pattern: str) -> list[str]:
        """Return the names of failed units."""
        (units,) = await self._manager("ListUnitsByPatterns", "asas", ["failed"], [pattern])
        return [unit[0] for unit in units]

    async def service(self, name: str) -> dict[str, Any] | None:
        """Return a service's properties, or None if the manager does not know the unit."""
        async with _router() as router:
            try:
                (path,) = await _call(router, _MANAGER, "GetUnit", "s", name)
                found: dict[str, Any] = {}
                for interface in ("Unit", "Service"):
                    target = DBusAddress(path, bus_name=_SYSTEMD, interface="org.freedesktop.DBus.Properties")
                    (values,) = await _call(router, target, "GetAll", "s", f"{_SYSTEMD}.{interface}")
                    found |= {key: value for key, (_, value) in values.items()}
            except ManagerRefusedError as refusal:
                if refusal.name not in _GONE:
                    raise
                return None
            return found

    async def _unless_gone(self, method: str, signature: str, *body: Any) -> None:
        try:
            await self._manager(method, signature, *body)
        except ManagerRefusedError as refusal:
            if refusal.name not in _GONE:
                raise

    async def _manager(self, method: str, signature: str, *body: Any) -> tuple[Any, ...]:
        async with _router() as router:
            return await _call(router, _MANAGER, method, signature, *body)


@asynccontextmanager
async def _router() -> AsyncIterator[Any]:
    address = f"unix:path={os.environ.get('XDG_RUNTIME_DIR', '/nonexistent')}/bus"
    try:
        async with asyncio.timeout(_ANSWER_SECONDS), open_dbus_router(address) as router:
            yield router
    except (OSError, EOFError, RouterClosed) as error:
        message = f"the systemd user manager does not answer: {error or type(error).__name__}"
        raise ExecutionError(message) from error


async def _call(router: Any, target: Any, method: str, signature: str, *body: Any) -> tuple[Any, ...]:
    try:
        reply = await router.send_and_get_reply(new_method_call(target, method, signature, body))
        values: tuple[Any, ...] = unwrap_msg(reply)
    except DBusErrorResponse as error:
        raise ManagerRefusedError(error.name, " ".join(map(str, error.data))) from error
    return values
