"""Requests made from the OpenAPI document, well and badly formed, with tokens, ids and leases that are real."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode, checks
from schemathesis.core.result import Ok

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypothesis.strategies import SearchStrategy
    from schemathesis import Case

    from tests.contract.harness import Broker

_CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
_ANSWER_SECONDS = 10
_WAIT_SECONDS = 0.02
_AUTHENTICATED = 0.85
_WORKERS = ("w1", "w2", "w3")
_KEYS = ("k1", "k2", "k3")
_SETTINGS = settings(
    max_examples=100,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Fuzz:
    """Fuzzes one broker.

    Attributes:
        requests: By operation and status.
        authenticated: How many had a good token.
    """

    def __init__(self, broker: Broker, number: int) -> None:
        self._broker = broker
        # An admin's is good for all that a bot's is, and the workers' for an agent of any name.
        admin = broker.command("token", "mint", "admin", "--role", "admin").stdout.strip()
        self._keys = {
            "bot": ("X-Bot-Token", broker.bot_token),
            "worker": ("X-Worker-Token", broker.worker_token),
            "admin": ("X-Bot-Token", admin),
            "globalKey": ("Authorization", f"Bearer {admin}"),
            "agentKey": ("X-API-Key", broker.worker_token),
        }
        self._seed = number
        self._random = random.Random(number)
        self._session = requests.Session()
        self._ids: deque[str] = deque(maxlen=20)
        self._leases: deque[dict[str, Any]] = deque(maxlen=5)
        self._pulled: deque[dict[str, Any]] = deque(maxlen=5)
        self._failed: deque[str] = deque(maxlen=5)
        self._deadline = 0.0
        document = deepcopy(broker.document.document)
        # Tokens are given here: of a call that it knows to need one, Schemathesis would take some away again.
        self._schemes = {
            f"{method.upper()} {path}": [list(scheme) for scheme in operation.pop("security")]
            for path, item in document["paths"].items()
            for method, operation in item.items()
        }
        self._cases = one_of(list(_strategies(document)))
        self.requests: Counter[tuple[str, int]] = Counter()
        self.authenticated = 0

    def run(self, seconds: float, *, enough: Callable[[], bool] = lambda: False) -> None:
        """Send requests for so long, or until it is enough; raises for an answer that the document does not promise."""
        self._deadline = time.monotonic() + seconds
        while time.monotonic() < self._deadline and not enough():
            self._round()

    def _round(self) -> None:
        self._seed += 1

        @seed(self._seed)
        @_SETTINGS
        @given(self._cases)
        def example(case: Case[Any]) -> None:
            if time.monotonic() < self._deadline:
                self._send(case)

        example()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    @property
    def count(self) -> int:
        """How many requests were sent."""
        return sum(self.requests.values())

    def succeeded(self) -> set[str]:
        """The calls that were answered with 200."""
        return {call for call, status in self.requests if status == 200}

    def summary(self) -> str:
        """What was sent and answered, in words."""
        statuses: Counter[int] = Counter()
        for (_, status), count in self.requests.items():
            statuses[status] += count
        answers = ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
        return f"{self.count} requests, {self.authenticated / max(1, self.count):.0%} with a good token: {answers}"

    def _send(self, case: Case[Any]) -> None:
        self._make_real(case)
        good, tokens = self._tokens(case)
        response = case.call(self._broker.url, self._session, headers=tokens, timeout=_ANSWER_SECONDS)
        self.requests[case.operation.label, response.status_code] += 1
        self.authenticated += good and response.status_code != 401
        case.validate_response(response, checks=_CHECKS)
        if response.status_code == 200 and "application/json" in response.headers["content-type"]:
            self._learn(case, response.json())

    def _make_real(self, case: Case[Any]) -> None:
        """Have most requests name a job, a lease and a worker that there are, and none wait for long."""
        leases = self._pulled if "/api/agents/tasks/{id}" in case.operation.label else self._leases
        lease = self._random.choice(leases) if leases and self._mostly() else None
        if "id" in case.path_parameters and lease:
            case.path_parameters["id"] = lease["id"]
        elif "id" in case.path_parameters and self._ids and self._mostly():
            case.path_parameters["id"] = self._random.choice(self._ids)
        if "/agents/{id}" in case.operation.label and self._mostly():
            case.path_parameters["id"] = self._random.choice(_WORKERS)
        if case.operation.label.endswith("/requeue") and self._failed and self._mostly():
            case.path_parameters["id"] = self._random.choice(self._failed)
        if "wait" in case.query:
            case.query["wait"] = self._random.choice([0, _WAIT_SECONDS, case.query["wait"]])
            if isinstance(case.query["wait"], float) and case.query["wait"] <= 25:
                case.query["wait"] %= _WAIT_SECONDS
        if self._mostly():
            case.headers["X-Worker-Id"] = lease["worker_id"] if lease else self._random.choice(_WORKERS)
            if "agent_id" in case.query:
                case.query["agent_id"] = case.headers.pop("X-Worker-Id")
        if isinstance(case.body, dict) and lease and self._mostly():
            case.headers.pop("X-Lease-Epoch", None)
            case.body |= {key: value for key, value in lease.items() if key in ("lease_epoch", "lease_token")}
        self._have_jobs_run(case)
        if isinstance(case.body, dict) and case.operation.label == "POST /api/tasks" and self._mostly():
            case.body |= {"payload": {}, "max_attempts": 1}

    def _have_jobs_run(self, case: Case[Any]) -> None:
        """Have most submissions be for anybody, at once and for one time only, and their keys meet."""
        for order in _orders(case):
            if self._mostly():
                order.update({"requires": None, "agent": None, "not_before": None, "max_deliveries": 1})
            if isinstance(order.get("idempotency_key"), str) and self._mostly():
                order["idempotency_key"] = self._random.choice(_KEYS)

    def _tokens(self, case: Case[Any]) -> tuple[bool, dict[str, str]]:
        """Good tokens for most requests, and for the others one that is of another role, wrong or empty."""
        schemes = self._schemes[case.operation.label]
        if not schemes:
            return False, {}
        scheme = self._random.choice(schemes)
        good = dict(self._keys[name] for name in scheme)
        if self._random.random() < _AUTHENTICATED:
            return True, good
        accepted = {name for names in schemes for name in names}
        others = [
            token for name, (_, token) in self._keys.items() if name in ("bot", "worker") and name not in accepted
        ]
        header, _ = self._keys[self._random.choice(scheme)]
        return False, good | {header: self._random.choice(["", "wrong", *others])}

    def _learn(self, case: Case[Any], answer: dict[str, Any]) -> None:
        """Remember the jobs and leases that an answer names."""
        if case.operation.label == "POST /jobs":
            self._ids.append(answer["id"])
        if case.operation.label == "POST /jobs/batch":
            self._ids.extend(job["id"] for job in answer["jobs"])
        if case.operation.label == "POST /queue/pause":
            # Nothing could be claimed.
            self._session.post(f"{self._broker.url}/queue/resume", headers=dict([self._keys["admin"]]))
        if case.operation.label == "POST /jobs/held":
            self._failed.extend(answer["released"])
        if case.operation.label == "GET /jobs/next" and answer["job"] and answer["job"]["worker_id"]:
            self._leases.append(answer["job"])
        if case.operation.label == "POST /api/tasks":
            self._ids.append(answer["task"]["id"])
        if case.operation.label == "GET /api/agents/tasks/pull" and answer["task"]:
            self._pulled.append(answer["task"] | {"worker_id": case.query["agent_id"]})
        if case.operation.label.endswith("/complete") and answer["message"] == "Task failure processed":
            self._failed.append(case.path_parameters["id"])

    def _mostly(self) -> bool:
        return self._random.random() < 0.8


def _orders(case: Case[Any]) -> list[dict[str, Any]]:
    """The jobs that a request submits."""
    if not isinstance(case.body, dict):
        return []
    found = {"POST /jobs": [case.body], "POST /jobs/batch": case.body.get("jobs")}.get(case.operation.label)
    return [order for order in found if isinstance(order, dict)] if isinstance(found, list) else []


def _strategies(document: dict[str, Any]) -> Iterator[SearchStrategy[Case[Any]]]:
    """Well formed and badly formed requests of each call."""
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        yield operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        # Of a request that may have nothing in it there is none that is badly formed.
        if list(operation.iter_parameters()) or operation.body:
            yield operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
