"""Which worker gets which job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.harness import caps, claim, submit

if TYPE_CHECKING:
    import httpx

    from tests.contract.harness import Endpoint


@pytest.mark.parametrize(
    ("needs", "has", "fits"),
    [
        (["a"], "a", True),
        (["a"], "b, a ,c", True),
        (["a"], '["a"]', True),
        (["a", "b"], '["b", "a", ""]', True),
        (["llm:vllm"], "llm:vllm", True),
        (["a"], None, False),
        (["a"], "", False),
        (["a"], "[]", False),
        ([" a ", ""], "a", True),
        (["a"], "A", False),
        (["a", "b"], "a", False),
        (["a", "b"], "b,c", False),
        (["a"], "ab", False),
    ],
)
def test_a_worker_needs_every_capability(
    *, broker: Endpoint, bot: httpx.Client, cap: str, needs: list[str], has: str | None, fits: bool
) -> None:
    """The job names this test's own agent too, so that no other test's worker is concerned."""
    job_id = submit(bot, agent=cap, requires=caps(*needs))
    job = claim(broker.worker(cap, has))
    assert (job is not None and job["id"] == job_id) == fits


@pytest.mark.parametrize(
    "requires", [None, "", " ", {}, {"caps": None}, {"caps": []}, {"caps": ["", " "]}, "{}", '{"caps": []}']
)
def test_no_requirement_fits_every_worker(broker: Endpoint, bot: httpx.Client, cap: str, requires: object) -> None:
    job_id = submit(bot, agent=cap, requires=requires)
    job = claim(broker.worker(cap))
    assert job["id"] == job_id
    written = requires if requires is None or isinstance(requires, str) else json.dumps(requires)
    assert job["requires"] == written


@pytest.mark.parametrize("form", ["object", "text"])
def test_a_requirement_may_be_an_object_or_its_text(broker: Endpoint, bot: httpx.Client, cap: str, form: str) -> None:
    requires = caps(cap)
    submit(bot, requires=requires if form == "object" else json.dumps(requires))
    assert claim(broker.worker("w", "other")) is None
    assert claim(broker.worker("w", cap)) is not None


@pytest.mark.parametrize(
    "requires",
    [
        "not json", "embed", "1", "[1]", "null", '"a"', [1], [], 1, True, {"caps": "a"}, {"caps": {"a": 1}},
        {"caps": [1]}, {"caps": [None]}, {"caps": ["a,b"]}, {"caps": ["a b"]}, {"caps": ["x" * 65]},
        {"caps": [["a"]]}, {"capz": ["a"]}, {"caps": ["a"], "memory": 4}, "\ud800", {"caps": ["\x00"]},
        '{"caps": NaN}', "[" * 2000,
    ],
)  # fmt: skip
def test_a_requirement_that_cannot_be_understood_is_refused(bot: httpx.Client, requires: object) -> None:
    response = bot.post("/jobs", content=json.dumps({"command": "ping", "requires": requires}))
    assert response.status_code == 400
    assert "requires" in response.json()["detail"]


def test_a_requirement_has_a_bounded_size(bot: httpx.Client) -> None:
    response = bot.post("/jobs", json={"command": "ping", "requires": " " * 2049})
    assert (response.status_code, response.json()) == (400, {"detail": "requires too large"})


@pytest.mark.parametrize("header", ["a b", "a,b c", '["a"', "[1]", '["a",', '[["a"]]', "x" * 65, "[" * 2000])
def test_capabilities_that_cannot_be_understood_are_refused(broker: Endpoint, header: str) -> None:
    response = broker.worker("w", header).get("/jobs/next")
    assert response.status_code == 400
    assert response.json()["detail"].startswith("X-Worker-Caps ")


def test_a_named_agent_gets_its_job_and_nobody_else_does(broker: Endpoint, bot: httpx.Client, cap: str) -> None:
    job_id = submit(bot, agent=cap)
    assert claim(broker.worker(f"{cap}-other")) is None
    assert claim(broker.worker()) is None
    job = claim(broker.worker(cap))
    assert (job["id"], job["agent"], job["worker_id"]) == (job_id, cap, cap)


def test_a_waiting_worker_is_not_woken_by_foreign_jobs(broker: Endpoint, bot: httpx.Client, cap: str) -> None:
    submit(bot, requires=caps(cap))
    assert claim(broker.worker("w", "other"), 0.2) is None


def test_a_runnable_job_is_found_behind_foreign_ones(broker: Endpoint, bot: httpx.Client, cap: str) -> None:
    for n in range(120):
        submit(bot, requires=caps(f"foreign-{n % 60}", cap))
    job_id = submit(bot, requires=caps(cap))
    assert claim(broker.worker("w", cap))["id"] == job_id


def test_the_oldest_comes_first_whatever_its_kind(broker: Endpoint, bot: httpx.Client, cap: str) -> None:
    worker = broker.worker(cap, f"{cap},b")
    kinds: list[dict[str, Any]] = [
        {"requires": caps(cap)},
        {"agent": cap},
        {"agent": cap, "requires": caps("b")},
        {"requires": caps(cap, "b")},
    ]
    ids = [submit(bot, **kind) for kind in [*kinds, *kinds]]
    assert [claim(worker)["id"] for _ in ids] == ids
