"""``python -m runner_app``: run, run --once, check."""

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from runner_app import __version__
from runner_app.attempt import Services
from runner_app.clients.client import BrokerError, Client
from runner_app.clients.identity import Identity
from runner_app.clients.jobs import JobsClient
from runner_app.clients.tasks import Agent, TasksClient
from runner_app.execution import ExecutionError
from runner_app.handlers.inline import InlineCommands
from runner_app.health import Health
from runner_app.journal import Journal
from runner_app.processes import ProcessGroups
from runner_app.runner import Runner
from runner_app.selftest import Selftest
from runner_app.settings import HUB, PROCESS, SYSTEMD, TASKS, Settings, SettingsError, from_environment
from runner_app.systemd import SystemdUnits
from runner_app.watch import Watcher


def main() -> int:
    """Run the command line; the exit code is 0 for success, 1 for a failure and 2 for a wrong use."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = from_environment(os.environ)
        _make_directories(settings)
        if arguments.verb == "check":
            asyncio.run(_check(settings))
        else:
            with _only_runner(settings.lock_file):
                asyncio.run(_run(settings, once=arguments.once))
    except (SettingsError, BrokerError, ExecutionError, OSError) as error:
        sys.stderr.write(f"openclaw-runner: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openclaw-runner", description="Take jobs from a broker and run them.")
    parser.add_argument("verb", nargs="?", choices=["run", "check"], default="run", help="default: run")
    parser.add_argument("--once", action="store_true", help="take one job if there is one, finish it, and exit")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


async def _check(settings: Settings) -> None:
    async with _http_client(settings) as client:  # of a hub too: a line would take the place of the runner's
        await client.probe()
    with _watcher() as watcher:
        if fault := await Selftest(SystemdUnits(settings), settings, watcher).run():
            raise ExecutionError(fault)
    sys.stdout.write(f"runner {__version__}: the broker at {settings.broker_url} accepts {settings.worker_id}\n")


async def _run(settings: Settings, *, once: bool) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with _runner(settings) as runner:
        await runner.run(stopping, once=once)


@asynccontextmanager
async def _runner(settings: Settings) -> AsyncIterator[Runner]:
    with _watcher() as watcher:
        async with _client(settings) as client:
            units = SystemdUnits(settings)
            services = Services(
                settings=settings,
                client=client,
                watcher=watcher,
                inline=InlineCommands(settings),
                executors={SYSTEMD: units, PROCESS: ProcessGroups(settings)},
                selftest=Selftest(units, settings, watcher),
            )
            yield Runner(services, Journal(settings.jobs_dir))


@contextmanager
def _watcher() -> Iterator[Watcher]:
    watcher = Watcher()
    try:
        yield watcher
    finally:
        watcher.close()


def _client(settings: Settings) -> Client:
    if settings.dialect != HUB:
        return _http_client(settings)
    from runner_app.clients.hub import HubClient  # noqa: PLC0415 - its library is loaded only where it is used

    url, slots, identity = settings.broker_url, settings.max_jobs, _identity(settings)
    journal, health = Journal(settings.jobs_dir), Health(settings.workspace)
    return HubClient(url, identity, slots=slots, leases=journal.leases, health=health)


def _http_client(settings: Settings) -> JobsClient | TasksClient:
    if settings.dialect == TASKS:
        agent = Agent(settings.worker_id, settings.token, settings.global_key, settings.capabilities, __version__)
        return TasksClient(settings.broker_url, agent, settings.lease_seconds)
    return JobsClient(settings.broker_url, _identity(settings))


def _identity(settings: Settings) -> Identity:
    return Identity(settings.token, settings.worker_id, settings.capabilities, __version__)


def _make_directories(settings: Settings) -> None:
    for variable, path in (
        ("RUNNER_STATE_DIR", settings.jobs_dir),
        ("RUNNER_STATE_DIR", settings.plans_dir),
        ("RUNNER_WORKSPACE", settings.workspace),
    ):
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            message = f"{variable}: {path} cannot be made ({error.strerror}): name a directory this user may write"
            raise SettingsError(message) from error


@contextmanager
def _only_runner(lock: Path) -> Iterator[None]:
    """Hold the state directory; two runners in one would both see to the same claims."""
    with lock.open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"RUNNER_STATE_DIR: another runner works in {lock.parent}: give each runner its own"
            raise SettingsError(message) from None
        yield


if __name__ == "__main__":
    sys.exit(main())
