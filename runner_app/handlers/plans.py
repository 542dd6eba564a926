"""``plan_echo`` and ``approve_echo``: a text is set down, and echoed once when its plan is approved."""

import hashlib
import json
import re
from pathlib import Path

from runner_app import records
from runner_app.job import Job, JobFailedError

_KEPT = 1000
_ID = re.compile(r"[0-9a-f]{32}")


class Plans:
    """Plans as files. Both calls may be repeated for the same job, so that a runner may die at any point."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def propose(self, job: Job) -> str:
        """Keep the payload as a plan; the answer is ``{"plan_id", "text"}``."""
        plan_id = hashlib.sha256(job.id.encode()).hexdigest()[:32]
        self._make_room()
        records.write(self._open(plan_id), {"plan_id": plan_id, "text": job.payload})
        return json.dumps({"plan_id": plan_id, "text": job.payload})

    def approve(self, job: Job) -> str:
        """Echo the plan named by the payload, once.

        Raises:
            JobFailedError: The id is malformed, unknown or was used by another job.
        """
        plan_id = job.payload.strip()
        if not _ID.fullmatch(plan_id):
            message = "the payload is not a plan id: send the plan_id that plan_echo answered"
            raise JobFailedError(message)
        used = records.read(self._used(plan_id))
        if used is None:
            plan = records.read(self._open(plan_id))
            if plan is None:
                message = f"unknown plan id {plan_id}"
                raise JobFailedError(message)
            used = {**plan, "used_by": job.id}
            records.write(self._used(plan_id), used)
        self._open(plan_id).unlink(missing_ok=True)
        if used["used_by"] != job.id:
            message = f"plan {plan_id} was used already: a plan is good for one approval"
            raise JobFailedError(message)
        return str(used["text"])

    def _make_room(self) -> None:
        """Forget the oldest plans, used or not; their ids are then unknown."""
        files = sorted(self._directory.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[_KEPT - 1 :]:
            file.unlink()

    def _open(self, plan_id: str) -> Path:
        return self._directory / f"{plan_id}.json"

    def _used(self, plan_id: str) -> Path:
        return self._directory / f"{plan_id}.used.json"
