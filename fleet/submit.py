"""The commands that give jobs to agents."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from fleet import broker, inventory, jobs, live, times
from fleet.agents import AsJson  # noqa: TC001 -- typer looks at it
from fleet.errors import BrokerError, FleetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fleet.broker import Broker

# A runner's own bound where none is said.
_EXEC_SECONDS = 30 * 60
# What a job may take longer from its submission to its end than its program: a queue before it, a broker that restarts.
_AROUND_SECONDS = 60
# What one call may hold: as many jobs as the broker takes, and less than it reads where nobody set that higher.
_CALL_JOBS = 1000
_CALL_BYTES = 500_000
_PLACE = re.compile(r"^jobs\[(\d+)\]\.?(?:: )?")

Line = tuple[int, dict[str, Any]]
Priority = Annotated[
    int | None, typer.Option(min=-100, max=100, help="The highest goes first; 0 if it is not given.", metavar="N")
]
After = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Begin after 30s, 10m, 2h, 1d or at a time in ISO 8601; print the id, and go."),
]
Key = Annotated[str | None, typer.Option(help="Queue nothing where a job was submitted under this key before.")]
Deliveries = Annotated[
    int | None, typer.Option(min=1, max=100, metavar="N", help="How often it may be begun before it is dead; 5.")
]


def task(
    context: typer.Context,
    agent: str,
    text: Annotated[str, typer.Argument(metavar="JSON", help='Such as {"type":"exec","command":"uname -sr"}.')],
    *,
    priority: Priority = None,
    after: After = None,
    key: Key = None,
    max_deliveries: Deliveries = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print what it prints and reports as it comes.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the end of the job.")] = 600,
) -> None:
    """Give an agent a job, wait for its end and print what it printed; status 1 where it failed."""
    begins = _begins(after, key)
    command, payload = jobs.parse_task(text)
    fleet = inventory.load(context.obj.inventories)
    options = {"agent": fleet.agent(agent).name, "priority": priority, "max_deliveries": max_deliveries}
    with broker.connect(fleet) as client:
        now = client.now()
        not_before = begins.at(now) if begins else None
        order = jobs.order(command, payload, **options, not_before=not_before, idempotency_key=key)
        job_id = client.submit(order)
        if follow:
            live.say(f"job {job_id}")
            live.follow(client, job_id, timeout + max(0.0, (not_before or now) - now))
        elif not_before is None:
            live.wait(client, job_id, timeout)
        else:
            typer.echo(job_id)
            live.say(f"begins at {times.moment(not_before)}")


def execute(
    context: typer.Context,
    agent: str,
    command: Annotated[list[str], typer.Argument(help="A program with its arguments, or one line for the shell.")],
    timeout: Annotated[int | None, typer.Option(min=1, help="Milliseconds that it may take.")] = None,
    sudo: Annotated[bool, typer.Option("--sudo", help="As root, where the inventory lets the agent.")] = False,
) -> None:
    """Have an agent run a program, wait for its end and print what it printed; status 1 where it failed.

    Options of fleet's own are taken wherever they stand; what follows `--` is the program's alone.
    """
    program: dict[str, Any] = {"command": command[0]} if len(command) == 1 else {"argv": command}
    said = {"timeout": timeout, "sudo": sudo or None}
    payload = {**program, **{key: value for key, value in said.items() if value is not None}}
    seconds = timeout / 1000 if timeout else _EXEC_SECONDS
    fleet = inventory.load(context.obj.inventories)
    order = jobs.order("exec", json.dumps(payload), agent=fleet.agent(agent).name)
    with broker.connect(fleet) as client:
        live.wait(client, client.submit(order), seconds + _AROUND_SECONDS)


def batch(
    context: typer.Context,
    file: Annotated[typer.FileBinaryRead, typer.Argument(help="A job in JSON on each line; - for standard input.")],
    as_json: AsJson = False,
) -> None:
    """Queue many jobs and print their ids; nothing of a thousand lines is queued where one of them is wrong.

    A line is such as {"agent":"agent1","task":{"type":"exec","command":"uname -sr"},"priority":5,"after":"10m"}. It may
    have "key", "max_deliveries" and "requires" (a list of capabilities, for any agent that has them) too.
    """
    texts = [(number, text) for number, text in enumerate(file.read().splitlines(), start=1) if text.strip()]
    if not texts:
        raise FleetError("nothing was queued: there is no job in the file")
    fleet = inventory.load(context.obj.inventories)
    with broker.connect(fleet) as client:
        now = client.now()
        lines = [(number, _order(number, text, fleet, now)) for number, text in texts]
        submitted = _submitted(client, lines)
        if as_json:
            typer.echo(json.dumps([{"line": number, "id": job_id} for number, job_id in submitted], indent=2))
            return
        for _, job_id in submitted:
            typer.echo(job_id)


def _begins(after: str | None, key: str | None) -> times.Later | None:
    begins = after and times.later(after)
    if not begins:
        return None
    if key and begins.is_delay:
        raise FleetError("a delay is another time whenever it is said, so --key would refuse it: give --after a time")
    return begins


def _order(number: int, text: bytes, fleet: inventory.Inventory, now: float) -> dict[str, Any]:
    try:
        return jobs.parse_line(text, fleet, now)
    except FleetError as error:
        raise FleetError(f"nothing was queued: line {number}: {error}") from error


def _submitted(client: Broker, lines: list[Line]) -> Iterator[tuple[int, str]]:
    """Queue the lines, some at a time, and give each with its job's id."""
    before = 0
    for some in _calls(lines):
        try:
            ids = client.submit_all([order for _, order in some])
        except BrokerError as error:
            _refused(error, some, before)
        yield from zip((number for number, _ in some), ids, strict=True)
        before = some[-1][0]


def _refused(error: BrokerError, some: list[Line], before: int) -> NoReturn:
    queued = (
        f"the lines up to {before} are queued, those from {some[0][0]} on are not" if before else "nothing was queued"
    )
    raise BrokerError(f"{queued}: {_complaint(error, some)}", status=error.status, detail=error.detail) from error


def _complaint(error: BrokerError, some: list[Line]) -> str:
    """Return what the broker said, about a line of the file where it was about a job."""
    if place := _PLACE.match(error.detail):
        return f"line {some[int(place[1])][0]}: {error.detail[place.end() :]}"
    for number, order in some:
        if error.status and repr(order["idempotency_key"]) in error.detail:
            return f"line {number}: {error.detail}"
    return str(error)


def _calls(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Part the lines into what one call can hold."""
    some: list[Line] = []
    size = 0
    for line in lines:
        more = len(json.dumps(line[1])) + 2
        if some and (len(some) == _CALL_JOBS or size + more > _CALL_BYTES):
            yield some
            some, size = [], 0
        some.append(line)
        size += more
    if some:
        yield some
