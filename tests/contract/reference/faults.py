"""Each rule of the contract, the change of the reference that breaks it, and the test that must notice."""

from __future__ import annotations

from dataclasses import dataclass

from tests.contract.reference.faults_of_the_calls import CALLS
from tests.contract.reference.faults_of_the_hub import HUB
from tests.contract.reference.faults_of_the_native_calls import NATIVE
from tests.contract.reference.faults_of_the_queue import QUEUE
from tests.contract.reference.faults_of_the_tasks import TASKS


@dataclass(frozen=True)
class Fault:
    """One broken rule.

    Attributes:
        module: Of the reference.
        test: The test that must fail then, without the `test_` of its file and of its name.
        old: The piece of the module's source that keeps the rule.
        new: What stands there instead.
    """

    module: str
    test: str
    old: str
    new: str

    def applied(self, source: str) -> str:
        """The module's source with the fault."""
        assert source.count(self.old) == 1, f"{self.module}.py must have this once: {self.old}"
        return source.replace(self.old, self.new)


_ADMIT = "        for role in roles:\n"
_EPOCH = 'require(epoch in (None, job["lease_epoch"]), 409, f"{call} with a stale epoch")\n        '
_TOKENS = {
    "POST /jobs": "POST-/jobs-bad bot token",
    "GET /jobs": "GET-/jobs-bad bot token",
    "GET /agents": "GET-/agents-bad bot token",
    "GET /jobs/next": "GET-/jobs/next-bad worker token",
    "GET /jobs/{id}": "GET-/jobs/none-bad token",
    "POST /jobs/held": "POST-/jobs/held-bad worker token",
    "POST /jobs/{id}/heartbeat": "POST-/jobs/none/heartbeat-bad worker token",
    "POST /jobs/{id}/release": "POST-/jobs/none/release-bad worker token",
    "POST /jobs/{id}/result": "POST-/jobs/none/result-bad worker token",
    "POST /jobs/{id}/fail": "POST-/jobs/none/fail-bad worker token",
    "POST /jobs/batch": "POST-/jobs/batch-bad bot token",
    "POST /jobs/{id}/cancel": "POST-/jobs/none/cancel-bad bot token",
    "POST /jobs/{id}/requeue": "POST-/jobs/none/requeue-bad bot token",
    "POST /jobs/{id}/log": "POST-/jobs/none/log-bad worker token",
    "GET /jobs/{id}/events": "GET-/jobs/none/events-bad bot token",
    "GET /queue": "GET-/queue-bad bot token",
    "POST /queue/pause": "POST-/queue/pause-bad admin token",
    "POST /queue/resume": "POST-/queue/resume-bad admin token",
}


def _tokens() -> dict[str, Fault]:
    """Each call, open to everybody, and to the other role."""
    faults = {}
    for call, case in _TOKENS.items():
        test = f"seed_readme::the_token_comes_first[{case}]"
        nobody = (
            f'        if call == "{call}" and not request.headers.keys() & {{"x-bot-token", "x-worker-token"}}:\n'
            f"            return roles[0], None\n{_ADMIT}"
        )
        anybody = f'        for role in ["bot", "worker"] if call == "{call}" else roles:\n'
        faults[f"{call} needs a token"] = Fault("broker", test, _ADMIT, nobody)
        if call != "GET /jobs/{id}":
            faults[f"{call} needs a token of its role"] = Fault("broker", test, _ADMIT, anybody)
    return faults


def _leases() -> dict[str, Fault]:
    """Each report, accepted with a stale epoch, and from another worker."""
    faults = {}
    for call in ("heartbeat", "release", "log", "result", "fail"):
        ends = call in ("result", "fail")
        old = _EPOCH + ("if status" if ends else "require(caller")
        new = old.replace("require(epoch", f'require(call == "{call}" or epoch', 1)
        test = f"native_calls::a_stale_epoch_changes_nothing[body-{call}]"
        faults[f"{call} checks the epoch"] = Fault("broker", test, old, new)
        old, new = (
            ('if status == "running" and caller', f'if call != "{call}" and status == "running" and caller')
            if ends
            else (
                'require(caller.name in (None, job["worker_id"])',
                f'require(call == "{call}" or caller.name in (None, job["worker_id"])',
            )
        )
        test = f"native_calls::only_the_holder_may_touch_a_lease[epoch{0 if ends else 1}-{call}]"
        faults[f"{call} is the holder's"] = Fault("broker", test, old, new)
    return faults


FAULTS = {rule: Fault(*fault) for rule, fault in (QUEUE | CALLS | NATIVE | TASKS | HUB).items()} | _leases() | _tokens()
