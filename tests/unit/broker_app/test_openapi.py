"""The checked-in OpenAPI document names exactly the calls that are served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.routing import Route, WebSocketRoute

import broker_app
from broker_app.agents import Role
from broker_app.app import build_app
from broker_app.broker import Broker
from broker_app.dialects import jobs
from broker_app.dialects.hub import HUB_CALLS
from broker_app.dialects.tasks import LEASE_SECONDS, MAX_LEASE_SECONDS, MIN_LEASE_SECONDS, TASKS, TYPE_PATTERN
from broker_app.queue.listing import _LOOKS
from broker_app.settings import COMMAND_PATTERN, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT = json.loads(Path(broker_app.__file__).with_name("openapi.json").read_text(encoding="utf-8"))
TOKENS = {"bot": "bot", "worker": "worker"}


def test_routes_and_methods(bench: Callable[..., Any], run: Callable[[Any], Any]) -> None:
    async def work() -> None:
        settings = Settings.from_environment({})
        async with bench() as b:
            app = build_app(Broker(settings, b.database, b.store), settings, ts_bound=True)
        routes = [route for route in app.routes if isinstance(route, Route)]
        lines = {route.path for route in app.routes if isinstance(route, WebSocketRoute)}
        assert lines == {"/agent/{id}", "/agent/{id}/{token}"}
        assert len(routes) + len(lines) == len(app.routes)
        served = {(method, route.path) for route in routes for method in route.methods or ()}
        assert served == {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}

    run(work())


def test_who_may_call() -> None:
    for call in (*jobs.JOBS.calls, *HUB_CALLS.calls):
        security = DOCUMENT["paths"][call.path][call.method.lower()]["security"]
        assert {name for entry in security for name in entry} == set(call.roles)
    for call in TASKS.calls:
        both: dict[str, list[str]] = {"globalKey": [], "agentKey": []}
        expected = both if Role.WORKER in call.roles else {"globalKey": []}
        assert DOCUMENT["paths"][call.path][call.method.lower()]["security"] == [expected]


def test_limits_and_version() -> None:
    components = DOCUMENT["components"]
    assert DOCUMENT["info"]["version"] == broker_app.__version__
    assert components["parameters"]["Wait"]["schema"]["maximum"] == jobs.MAX_WAIT_SECONDS
    lease = {"type": "integer", "minimum": MIN_LEASE_SECONDS, "maximum": MAX_LEASE_SECONDS, "default": LEASE_SECONDS}
    assert components["parameters"]["LeaseSeconds"]["schema"] == lease
    task = components["schemas"]["TaskSubmission"]["properties"]
    assert task["type"]["pattern"] == f"^{TYPE_PATTERN.pattern}$"
    submission = components["schemas"]["Submission"]["properties"]
    assert submission["command"]["pattern"] == f"^{COMMAND_PATTERN.pattern}$"
    assert str(jobs.MAX_PAYLOAD_BYTES) in submission["payload"]["description"]
    priority = submission["priority"]
    assert (-priority["minimum"], priority["maximum"]) == (jobs.MAX_PRIORITY, jobs.MAX_PRIORITY)
    assert submission["not_before"]["maximum"] == jobs.MAX_TIME
    assert submission["idempotency_key"]["oneOf"][0]["pattern"] == f"^{jobs.KEY_PATTERN.pattern}$"
    schemas = components["schemas"]
    assert schemas["Batch"]["properties"]["jobs"]["maxItems"] == jobs.MAX_BATCH
    assert str(jobs.MAX_TEXT_BYTES) in schemas["Report"]["properties"]["text"]["description"]
    limit = next(
        each for each in DOCUMENT["paths"]["/jobs/{id}/events"]["get"]["parameters"] if "limit" in each.values()
    )
    assert limit["schema"]["maximum"] == schemas["Events"]["properties"]["events"]["maxItems"] == jobs.MAX_EVENTS
    for path in ("/jobs", "/api/tasks"):
        assert f"a look at {_LOOKS} " in DOCUMENT["paths"][path]["get"]["responses"]["200"]["description"]
