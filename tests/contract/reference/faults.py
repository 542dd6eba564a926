"""Each rule of the contract, the change of the reference that breaks it, and the test that must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One broken rule.

    Attributes:
        module: Of the reference.
        old: The piece of its source that keeps the rule.
        new: What stands there instead.
        test: The test that must fail then, without `test_` before its file and name.
    """

    module: str
    old: str
    new: str
    test: str

    def applied(self, source: str) -> str:
        """The module's source with the fault."""
        assert source.count(self.old) == 1, f"{self.module} has {source.count(self.old)} times: {self.old}"
        return source.replace(self.old, self.new)


def _require(module: str, kept: str, test: str) -> Fault:
    """A requirement that is not looked at; `kept` is the beginning of its condition."""
    return Fault(module, f"require({kept}", f"require(True or {kept}", test)


_WRITE = 'self._db.execute(statement, (job["id"], json.dumps(job)))'
_ADMIT = "        for role in roles:\n"
_CALLS = {
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
}
_MEMORY_ONLY = "self.store.jobs[job_id] = job | "

# fmt: off
FAULTS: dict[str, Fault] = {
    # Durability
    "the write comes before the answer": Fault(
        "store",
        _WRITE,
        f"asyncio.get_running_loop().call_later(0.1, {_WRITE.replace('(statement', ', statement', 1)}",
        "durability::nothing_acknowledged_is_lost_with_the_process",
    ),
    "an acknowledged job is kept": Fault(
        "broker",
        "self.store.write(job)\n",
        'self.store.jobs[job["id"]] = job\n        self.store.wake()\n',
        "durability::nothing_acknowledged_is_lost_with_the_process",
    ),
    "an acknowledged end is kept": Fault(
        "broker",
        'self.store.write(job, **ended, finished_at=time.time(), lease_until=None)\n        return {"ok"',
        f'{_MEMORY_ONLY}ended | {{"finished_at": time.time(), "lease_until": None}}\n        return {{"ok"',
        "durability::nothing_acknowledged_is_lost_with_the_process",
    ),
    "an acknowledged failure is kept": Fault(
        "store",
        f"            {_WRITE}",
        f'            if job["outcome"] != "failed":\n                {_WRITE}',
        "durability::everything_survives_a_restart",
    ),
    "an acknowledged release is kept": Fault(
        "broker",
        'self.store.write(job, **QUEUED, attempts=job["attempts"] - 1)',
        f'{_MEMORY_ONLY}QUEUED | {{"attempts": job["attempts"] - 1}}\n        self.store.wake()',
        "durability::everything_survives_a_restart",
    ),
    "a death is kept": Fault(
        "store",
        f"            {_WRITE}",
        f'            if job["outcome"] != "dead":\n                {_WRITE}',
        "leases::a_job_is_dead_after_its_last_delivery[1]",
    ),
    "leases survive a restart": Fault(
        "store",
        f"            {_WRITE}",
        f'            if job["status"] != "running":\n                {_WRITE}',
        "durability::everything_survives_a_restart",
    ),
    "agents survive a restart": Fault(
        "store",
        '"INSERT OR REPLACE INTO agents VALUES (?, ?)", (name, json.dumps(agent))',
        '"SELECT 1"',
        "durability::everything_survives_a_restart",
    ),
    "the order survives a restart": Fault(
        "store",
        "FROM jobs ORDER BY n",
        "FROM jobs ORDER BY n DESC",
        "durability::everything_survives_a_restart",
    ),
    "a full disk is said": Fault(
        "store",
        'raise RefusedError(503, f"the database failed: {error}", {"retry-after": "2"}) from error',
        "pass",
        "durability::a_full_disk_is_said_and_survived",
    ),
    "a full disk is survived": Fault(
        "store",
        "        except sqlite3.Error as error:\n",
        "        except sqlite3.Error as error:\n            self._db.close()\n",
        "durability::a_full_disk_is_said_and_survived",
    ),
    # Claims
    "a job is claimed once": Fault(
        "broker",
        'job["status"] == "queued"\n                and',
        'job["status"] != "done"\n                and',
        "seed_readme::jobs_come_in_the_order_of_submission",
    ),
    "the oldest comes first": Fault(
        "broker",
        "for job in self.store.jobs.values():\n            if (",
        "for job in reversed(self.store.jobs.values()):\n            if (",
        "seed_readme::jobs_come_in_the_order_of_submission",
    ),
    "foreign jobs hide nothing": Fault(
        "broker",
        "for job in self.store.jobs.values():\n            if (",
        'for job in [job for job in self.store.jobs.values() if job["status"] == "queued"][:50]:\n            if (',
        "routing::a_runnable_job_is_found_behind_foreign_ones",
    ),
    "a released job is the next": Fault(
        "broker",
        'self.store.write(job, **QUEUED, attempts=job["attempts"] - 1)',
        'self.store.write(self.store.jobs.pop(job_id), **QUEUED, attempts=job["attempts"] - 1)',
        "native_calls::a_released_job_is_the_next_and_its_delivery_is_not_charged",
    ),
    "a lost job is the next": Fault(
        "broker",
        "self.store.write(job, **QUEUED)",
        'self.store.write(self.store.jobs.pop(job["id"]), **QUEUED)',
        "leases::a_lost_lease_is_taken_back_without_anybody_polling",
    ),
    "every capability is needed": Fault(
        "broker",
        'caller.caps.issuperset(job["needs"])',
        '(not job["needs"] or caller.caps & {*job["needs"]})',
        "routing::a_worker_needs_every_capability",
    ),
    "capabilities matter": Fault(
        "broker",
        'caller.caps.issuperset(job["needs"])',
        "True",
        "routing::a_worker_needs_every_capability",
    ),
    "capabilities are told by case": Fault(
        "broker",
        'caller.caps.issuperset(job["needs"])',
        '{cap.lower() for cap in caller.caps}.issuperset(cap.lower() for cap in job["needs"])',
        "routing::a_worker_needs_every_capability",
    ),
    "a job without needs fits every worker": Fault(
        "broker",
        'caller.caps.issuperset(job["needs"])',
        '(caller.caps.issuperset(job["needs"]) and caller.caps)',
        "routing::no_requirement_fits_every_worker",
    ),
    "a named agent's job is its own": Fault(
        "broker",
        'job["agent"] in (None, caller.name)',
        "True",
        "routing::a_named_agent_gets_its_job_and_nobody_else_does",
    ),
    "a named agent gets its job": Fault(
        "broker",
        'job["agent"] in (None, caller.name)',
        'job["agent"] is None',
        "routing::a_named_agent_gets_its_job_and_nobody_else_does",
    ),
    "a nameless worker gets no agent's job": Fault(
        "broker",
        'job["agent"] in (None, caller.name)',
        '(caller.name is None or job["agent"] in (None, caller.name))',
        "routing::a_named_agent_gets_its_job_and_nobody_else_does",
    ),
    "capabilities may be a JSON array": Fault(
        "reading",
        'json.loads(header) if header.startswith("[") else header.split(",")',
        'header.split(",")',
        "routing::a_worker_needs_every_capability",
    ),
    "capabilities may be a comma list": Fault(
        "reading",
        'header.split(",")',
        "[header]",
        "routing::a_worker_needs_every_capability",
    ),
    "blanks around a capability are no part of it": Fault(
        "reading",
        "names = [name.strip() for name in listed if name.strip()]\n    except",
        "names = [name for name in listed if name.strip()]\n    except",
        "routing::a_worker_needs_every_capability",
    ),
    "capabilities are checked": _require(
        "reading", "all(map(_CAPABILITY", "routing::capabilities_that_cannot_be_understood_are_refused"
    ),
    "a job names its worker": Fault(
        "broker",
        "worker_id=caller.name,",
        "worker_id=None,",
        "seed_readme::a_claim_starts_a_lease_of_sixty_seconds",
    ),
    "a lease has its length": Fault(
        "broker",
        'lease_until=time.time() + job["lease_seconds"],',
        'lease_until=time.time() + job["lease_seconds"] * 2,',
        "seed_readme::a_claim_starts_a_lease_of_sixty_seconds",
    ),
    "each delivery has a new epoch": Fault(
        "broker",
        'lease_epoch=job["lease_epoch"] + 1',
        "lease_epoch=1",
        "native_calls::a_released_job_is_the_next_and_its_delivery_is_not_charged",
    ),
    "deliveries are counted": Fault(
        "broker",
        'attempts=job["attempts"] + 1',
        "attempts=1",
        "leases::a_waiting_worker_gets_the_job_of_a_lost_one",
    ),
    "an empty queue gives null": Fault(
        "broker",
        'return {"job": None}',
        "return {}",
        "seed_readme::an_empty_queue_gives_null",
    ),
    "HEAD claims nothing": Fault(
        "broker",
        "call, job_id = self.route(request)",
        'request.method = request.method.replace("HEAD", "GET")\n        call, job_id = self.route(request)',
        "seed_readme::a_head_request_claims_nothing",
    ),
    # Waiting
    "a wait ends early for a job": Fault(
        "broker",
        "await self.store.changed.wait()",
        "await asyncio.Event().wait()",
        "native_calls::a_waiting_worker_gets_a_job_the_moment_it_is_there",
    ),
    "a claim waits": Fault(
        "broker",
        'time.monotonic() + reading.seconds(request.query.get("wait"))\n        dismissals',
        "time.monotonic()\n        dismissals",
        "native_calls::a_wait_ends_with_null",
    ),
    "a claim waits only when asked to": Fault(
        "broker",
        'time.monotonic() + reading.seconds(request.query.get("wait"))\n        dismissals',
        'time.monotonic() + (reading.seconds(request.query.get("wait")) or 3)\n        dismissals',
        "seed_readme::an_empty_queue_gives_null",
    ),
    "no wake-up is lost": Fault(
        "broker",
        "await self.store.changed.wait()",
        "await asyncio.sleep(0.01)\n                await self.store.changed.wait()",
        "native_calls::a_job_that_comes_as_a_wait_begins_is_not_missed",
    ),
    "each waiting worker is woken": Fault(
        "store",
        "        self.changed.set()\n",
        "        self.changed._waiters and self.changed._waiters[0].set_result(True)\n",
        "native_calls::every_job_wakes_one_waiting_worker",
    ),
    "a foreign job ends no wait": Fault(
        "broker",
        "if not await self.changed(deadline, request) or self.dismissals[caller.name] != dismissals:",
        "if await self.changed(deadline, request) or True:",
        "native_calls::a_foreign_job_ends_no_wait",
    ),
    "a job goes to nobody who hung up": Fault(
        "http",
        "return self.reader.at_eof()",
        "return False",
        "native_calls::a_job_is_not_lost_with_the_worker_that_it_woke",
    ),
    "a submitter can wait for the end": Fault(
        "broker",
        'while self.find(job_id)["outcome"] is None:',
        "while False:",
        "native_calls::a_submitter_can_wait_for_the_end",
    ),
    "a submitter's wait ends with the job": Fault(
        "broker",
        'while self.find(job_id)["outcome"] is None:',
        "while True:",
        "native_calls::a_submitter_can_wait_for_the_end",
    ),
    "a submitter's wait ends in time": Fault(
        "broker", 'reading.seconds(request.query.get("wait"))\n        while self.find',
        'reading.seconds(request.query.get("wait")) + 5\n        while self.find',
        "native_calls::waiting_for_an_end_that_does_not_come",
    ),
    "a wait for no job is 404 at once": Fault(
        "broker",
        'while self.find(job_id)["outcome"] is None:',
        'while job_id not in self.store.jobs or self.find(job_id)["outcome"] is None:',
        "native_calls::waiting_for_an_end_that_does_not_come",
    ),
    "wait is checked": _require("reading", 'well, 400, "wait', "malformed::a_query_that_cannot_be_understood"),
    # Leases
    "a lost lease is taken back": Fault(
        "broker",
        'if job["lease_until"] < time.time():',
        "if False:",
        "leases::a_lost_lease_is_taken_back_without_anybody_polling",
    ),
    "a lost lease is taken back without a poll": Fault(
        "broker",
        "            await asyncio.sleep(0.02)",
        "            await self.store.changed.wait()",
        "leases::a_lost_lease_is_taken_back_without_anybody_polling",
    ),
    "a lease is kept until its end": Fault(
        "broker",
        'if job["lease_until"] < time.time():',
        'if job["lease_until"] < time.time() + 0.5:',
        "leases::a_lost_lease_is_taken_back_without_anybody_polling",
    ),
    "a lease ends in time": Fault(
        "broker",
        'if job["lease_until"] < time.time():',
        'if job["lease_until"] < time.time() - 3:',
        "leases::a_lost_lease_is_taken_back_without_anybody_polling",
    ),
    "a lost delivery is charged": Fault(
        "broker",
        "self.store.write(job, **QUEUED)",
        'self.store.write(job, **QUEUED, attempts=job["attempts"] - 1)',
        "leases::a_lost_lease_is_taken_back_without_anybody_polling",
    ),
    "a queued job has no worker": Fault(
        "broker",
        'QUEUED = {"status": "queued", "worker_id": None,',
        'QUEUED = {"status": "queued",',
        "leases::a_lost_lease_is_taken_back_without_anybody_polling",
    ),
    "a queued job has not begun": Fault(
        "broker",
        '"started_at": None, "lease_until": None}',
        "}",
        "leases::a_lost_lease_is_taken_back_without_anybody_polling",
    ),
    "deliveries are bounded": Fault(
        "broker",
        'if job["attempts"] < job["max_deliveries"]:',
        "if True:",
        "leases::a_job_is_dead_after_its_last_delivery",
    ),
    "the last delivery is one": Fault(
        "broker",
        'if job["attempts"] < job["max_deliveries"]:',
        'if job["attempts"] < job["max_deliveries"] - 1:',
        "leases::a_job_is_dead_after_its_last_delivery[2]",
    ),
    "a dead job is told apart": Fault(
        "broker",
        '"outcome": "dead"',
        '"outcome": "failed"',
        "leases::a_job_is_dead_after_its_last_delivery[1]",
    ),
    "a dead job says why": Fault(
        "broker",
        '"outcome": "dead", "error": error',
        '"outcome": "dead", "error": "dead"',
        "leases::a_job_is_dead_after_its_last_delivery[1]",
    ),
    "a heartbeat extends the lease": Fault(
        "broker",
        'job = self.store.write(job, lease_until=time.time() + job["lease_seconds"])',
        "pass",
        "leases::heartbeats_keep_a_lease",
    ),
    "a heartbeat counts from now": Fault(
        "broker",
        'write(job, lease_until=time.time() + job["lease_seconds"])',
        'write(job, lease_until=job["lease_until"] + job["lease_seconds"])',
        "native_calls::a_heartbeat_extends_the_lease_from_now",
    ),
    "a heartbeat needs no body": Fault(
        "broker",
        'values = reading.json_object(body or b"{}", 422)\n        job = self.leased("heartbeat"',
        'values = reading.json_object(body, 422)\n        job = self.leased("heartbeat"',
        "native_calls::heartbeat_and_release_need_no_body",
    ),
    "a release needs no body": Fault(
        "broker",
        'values = reading.json_object(body or b"{}", 422)\n        reason',
        "values = reading.json_object(body, 422)\n        reason",
        "native_calls::heartbeat_and_release_need_no_body",
    ),
    "a released delivery is not charged": Fault(
        "broker",
        'attempts=job["attempts"] - 1)',
        'attempts=job["attempts"])',
        "native_calls::a_released_job_is_the_next_and_its_delivery_is_not_charged",
    ),
    "an ended job has no lease to renew or release": _require(
        "broker", 'job["status"] == "running", 409', "native_calls::an_ended_job_has_no_lease"
    ),
    **{
        f"{call} checks the epoch": Fault(
            "broker",
            f'require(epoch in (None, job["lease_epoch"]), 409, f"{{call}} with a stale epoch")\n        {after}',
            f'require(call == "{call}" or epoch in (None, job["lease_epoch"]), 409, "stale epoch")\n        {after}',
            f"native_calls::a_stale_epoch_changes_nothing[body-{call}]",
        )
        for call, after in {
            "heartbeat": "require(caller",
            "release": "require(caller",
            "result": "if status",
            "fail": "if status",
        }.items()
    },
    **{
        f"{call} is the holder's": Fault(
            "broker",
            'require(caller.name in (None, job["worker_id"]), 409',
            f'require(call == "{call}" or caller.name in (None, job["worker_id"]), 409',
            f"native_calls::only_the_holder_may_touch_a_lease[epoch1-{call}]",
        )
        for call in ("heartbeat", "release")
    },
    **{
        f"{call} is the holder's": Fault(
            "broker",
            'if status == "running" and caller.name',
            f'if call != "{call}" and status == "running" and caller.name',
            f"native_calls::only_the_holder_may_touch_a_lease[epoch0-{call}]",
        )
        for call in ("result", "fail")
    },
    "another's report is told so": Fault(
        "broker",
        ', "note": f"held by another worker; {call} ignored"}',
        "}",
        "native_calls::only_the_holder_may_touch_a_lease[epoch0-result]",
    ),
    "another's report with an epoch is refused": _require(
        "broker", "epoch is None, 409", "native_calls::only_the_holder_may_touch_a_lease[epoch1-result]"
    ),
    "a report with an epoch ends with the lease": Fault(
        "broker",
        "400 if epoch is None else 409",
        "400",
        "native_calls::an_epoch_ends_with_its_lease[result]",
    ),
    "the epoch may be in the header": Fault(
        "reading",
        'request.headers.get("x-lease-epoch")',
        "None",
        "native_calls::a_stale_epoch_changes_nothing[header-result]",
    ),
    "epochs must agree": _require(
        "reading", "in_header == -1 or", "native_calls::epochs_in_body_and_header_must_agree"
    ),
    "an epoch is a number": Fault(
        "reading",
        "type(in_body) is not int:",
        "False:",
        "malformed::a_report_that_cannot_be_understood_changes_nothing",
    ),
    "an epoch is in its range": Fault(
        "reading",
        "not 0 <= in_body <= 2**53",
        "False",
        "malformed::a_report_that_cannot_be_understood_changes_nothing",
    ),
    # Ends
    "the first result counts": Fault(
        "broker",
        'if status == ended["status"]:',
        'if status == ended["status"] and call != "result":',
        "seed_readme::a_result_ends_the_job_and_its_repetition_changes_nothing",
    ),
    "the first failure counts": Fault(
        "broker",
        '        if status == ended["status"]:\n',
        '        if status == ended["status"]:\n            self.store.write(job, **ended)\n',
        "seed_readme::a_failure_ends_the_job_and_its_repetition_changes_nothing",
    ),
    "a result may be repeated": Fault(
        "broker",
        '        if status == ended["status"]:\n',
        '        require(status != "done" or call == "fail", 409, "done")\n        if status == ended["status"]:\n',
        "seed_readme::a_result_ends_the_job_and_its_repetition_changes_nothing",
    ),
    "a failure may be repeated": Fault(
        "broker",
        '        if status == ended["status"]:\n',
        '        require(status != "failed" or call == "result", 409, "")\n        if status == ended["status"]:\n',
        "seed_readme::a_failure_ends_the_job_and_its_repetition_changes_nothing",
    ),
    "a repeated result checks the epoch": Fault(
        "broker",
        'require(epoch in (None, job["lease_epoch"]), 409, f"{call} with a stale epoch")\n        if status',
        'require(job["outcome"] or epoch in (None, job["lease_epoch"]), 409, "stale epoch")\n        if status',
        "native_calls::a_result_may_be_repeated_with_its_epoch_only",
    ),
    "a failure after a result is ignored": Fault(
        "broker",
        'if status in ("done", "failed"):',
        'if status == "failed":',
        "seed_readme::a_failure_after_a_result_is_ignored_with_a_note",
    ),
    "a result after a failure is ignored": Fault(
        "broker",
        'if status in ("done", "failed"):',
        'if status == "done":',
        "seed_readme::a_result_after_a_failure_is_ignored_with_a_note",
    ),
    "what is ignored is told": Fault(
        "broker",
        ', "note": f"already {status}; {call} ignored"}',
        "}",
        "seed_readme::a_result_after_a_failure_is_ignored_with_a_note",
    ),
    "a result of a queued job is refused": Fault(
        "broker",
        '(call == "result" or job["lease_epoch"] > 0)',
        'call == "fail" and job["lease_epoch"] > 0',
        "seed_readme::a_result_of_a_queued_job_is_refused",
    ),
    "a job never claimed can be failed": Fault(
        "broker",
        '(call == "result" or job["lease_epoch"] > 0)',
        "True",
        "seed_readme::a_job_that_was_never_claimed_can_be_failed",
    ),
    "a late failure does not end a requeued job": Fault(
        "broker",
        '(call == "result" or job["lease_epoch"] > 0)',
        'call == "result"',
        "native_calls::a_late_failure_does_not_end_a_requeued_job",
    ),
    "a failure without words is unknown": Fault(
        "broker",
        '.strip() or "unknown"',
        ".strip()",
        "seed_readme::a_failure_without_words_is_unknown",
    ),
    "an ended job has no lease": Fault(
        "broker",
        '**ended, finished_at=time.time(), lease_until=None)\n        return {"ok"',
        '**ended, finished_at=time.time())\n        return {"ok"',
        "seed_readme::a_result_ends_the_job_and_its_repetition_changes_nothing",
    ),
    "an ended job has its duration": Fault(
        "broker",
        'if job["started_at"] and job["finished_at"]:',
        "if False:",
        "seed_readme::a_result_ends_the_job_and_its_repetition_changes_nothing",
    ),
    "a result is kept as it is": Fault(
        "broker",
        'result = reading.text(values, "result", 422)',
        'result = reading.text(values, "result", 422).replace("\\0", "")',
        "seed_readme::a_result_is_kept_as_it_is",
    ),
    "a result is needed": Fault(
        "broker",
        'if "result" not in values:',
        'values = {"result": ""} | values\n        if False:',
        "malformed::a_report_that_cannot_be_understood_changes_nothing",
    ),
    "results are bounded": _require(
        "broker", "len(result.encode())", "limits::reports_have_a_bounded_size[result-result]"
    ),
    "errors are bounded": _require("broker", "len(error.encode())", "limits::reports_have_a_bounded_size[fail-error]"),
    "reasons are bounded": _require(
        "broker", "len(reason.encode())", "limits::reports_have_a_bounded_size[release-reason]"
    ),
    # What a worker holds
    "what is not held is taken back": Fault(
        "broker",
        "        for job in lost:\n            self.take_back(job)\n",
        "",
        "held::what_is_not_held_is_queued_at_the_head_at_once",
    ),
    "what is held is kept": Fault(
        "broker",
        'if (job["id"], job["lease_epoch"]) not in leases',
        "",
        "held::what_is_not_held_is_queued_at_the_head_at_once",
    ),
    "what others hold is kept": Fault(
        "broker",
        'lost = [job for job in self.running() if job["worker_id"] == caller.name]',
        "lost = self.running()",
        "held::what_is_not_held_is_queued_at_the_head_at_once",
    ),
    "what is held has its epoch": Fault(
        "broker",
        'if (job["id"], job["lease_epoch"]) not in leases',
        'if job["id"] not in dict(leases)',
        "held::a_lease_of_another_epoch_is_not_held",
    ),
    "the last delivery ends there too": Fault(
        "broker",
        "        for job in lost:\n            self.take_back(job)\n",
        "        for job in lost:\n            self.store.write(job, **QUEUED)\n",
        "held::the_last_delivery_ends_as_a_lost_lease_does",
    ),
    "the holder has a name": _require("broker", "caller.name, 400", "held::a_worker_without_a_name_is_refused"),
    "the holder waits no more": Fault(
        "broker",
        "        self.dismissals[caller.name] += 1\n",
        "",
        "held::waiting_claims_go_first_and_without_a_job",
    ),
    "others go on waiting": Fault(
        "broker",
        "self.dismissals[caller.name] += 1",
        "self.dismissals.update([None, *self.store.agents])",
        "held::waiting_claims_go_first_and_without_a_job",
    ),
    "what is held is bounded": Fault(
        "broker",
        "len(listed) > 1000",
        "False",
        "held::a_list_that_cannot_be_understood_frees_nothing",
    ),
    "a list of leases is one": Fault(
        "broker",
        "        for lease in listed:\n            if type",
        "        for lease in ():\n            if type",
        "held::a_list_that_cannot_be_understood_frees_nothing",
    ),
    # Submissions
    "commands are checked": _require("broker", "reading.COMMAND", "malformed::a_command_that_is_none"),
    "commands are trimmed": Fault(
        "broker",
        "command.strip() if",
        "command if",
        "seed_readme::the_content_type_is_not_looked_at",
    ),
    "the content type is not looked at": Fault(
        "broker",
        'values = reading.json_object(body or b"{}", 400)',
        'require("json" in _request.headers.get("content-type", "json"), 400, "no JSON")\n'
        '        values = reading.json_object(body or b"{}", 400)',
        "seed_readme::the_content_type_is_not_looked_at",
    ),
    "only listed commands are accepted": _require(
        "broker", "not self.commands", "limits::only_listed_commands_are_accepted"
    ),
    "no payload is an empty one": Fault(
        "broker",
        'reading.optional_text(values, "payload", 400) or ""',
        'reading.text(values, "payload", 400)',
        "seed_readme::payloads_are_kept_as_they_are",
    ),
    "payloads are kept as they are": Fault(
        "broker",
        '"payload": payload,',
        '"payload": payload.replace("\\0", ""),',
        "seed_readme::payloads_are_kept_as_they_are",
    ),
    "payloads are bounded": _require(
        "broker", "len(payload.encode())", "malformed::a_payload_has_a_bounded_size_in_utf8"
    ),
    "payloads are measured in bytes": Fault(
        "broker",
        "len(payload.encode())",
        "len(payload)",
        "malformed::a_payload_has_a_bounded_size_in_utf8",
    ),
    "unknown keys are ignored": Fault(
        "broker",
        'command = values.get("command")',
        'command = values.get("command") if len(values) < 4 else None',
        "seed_readme::payloads_are_kept_as_they_are",
    ),
    "the broker makes the id": Fault(
        "broker",
        '"id": str(uuid.uuid4())',
        '"id": values.get("id") or str(uuid.uuid4())',
        "seed_readme::payloads_are_kept_as_they_are",
    ),
    "the id is a random UUID": Fault(
        "broker",
        '"id": str(uuid.uuid4())',
        '"id": str(uuid.uuid1())',
        "seed_readme::a_submission_is_answered_with_id_and_status",
    ),
    "requirements fail closed": _require(
        "reading", 'well, 400, "requires', "routing::a_requirement_that_cannot_be_understood_is_refused"
    ),
    "requirements know capabilities only": Fault(
        "reading",
        'parsed.keys() <= {"caps"}',
        "True",
        "routing::a_requirement_that_cannot_be_understood_is_refused",
    ),
    "needed capabilities are checked": Fault(
        "reading",
        "and all(map(_CAPABILITY.fullmatch, names))",
        "",
        "routing::a_requirement_that_cannot_be_understood_is_refused",
    ),
    "requirements are bounded": _require("reading", "len(written", "routing::a_requirement_has_a_bounded_size"),
    "requirements are kept as written": Fault(
        "reading",
        "return written, names",
        'return json.dumps({"caps": names}), names',
        "routing::no_requirement_fits_every_worker",
    ),
    "a requirement may be text": Fault(
        "reading",
        "return written, names",
        "return written, [] if isinstance(given, str) else names",
        "routing::a_requirement_may_be_an_object_or_its_text[text]",
    ),
    "blank capabilities count for nothing": Fault(
        "reading",
        "names = [name.strip() for name in listed if name.strip()]\n        well",
        "names = [name.strip() for name in listed]\n        well",
        "routing::no_requirement_fits_every_worker",
    ),
    "agents are checked": _require(
        "broker",
        'agent is None or reading.NAME.fullmatch(agent), 400, "agent must be a name"',
        "malformed::a_field_of_another_kind_is_named",
    ),
    "max_deliveries is checked": _require("broker", "type(deliveries)", "malformed::a_field_of_another_kind_is_named"),
    "max_deliveries is no truth value": Fault(
        "broker",
        "type(deliveries) is int",
        "isinstance(deliveries, int)",
        "malformed::a_field_of_another_kind_is_named",
    ),
    "five deliveries unless said otherwise": Fault(
        "broker",
        "deliveries = 5 if",
        "deliveries = 3 if",
        "seed_readme::a_queued_job",
    ),
    "the queue is bounded": _require("broker", "unfinished <", "limits::the_queue_is_bounded_by_its_unfinished_jobs"),
    "a running job counts in the queue": Fault(
        "broker",
        'job["status"] in ("queued", "running") for',
        'job["status"] == "queued" for',
        "limits::the_queue_is_bounded_by_its_unfinished_jobs",
    ),
    "an ended job frees its place": Fault(
        "broker",
        'sum(job["status"] in ("queued", "running") for job in self.store.jobs.values())',
        "len(self.store.jobs)",
        "limits::the_queue_is_bounded_by_its_unfinished_jobs",
    ),
    "a full queue names a time": Fault(
        "broker",
        '"job queue limit reached", {"retry-after": "2"}',
        '"job queue limit reached"',
        "limits::the_queue_is_bounded_by_its_unfinished_jobs",
    ),
    "the rate is bounded": _require("broker", "len(recent)", "limits::submissions_are_bounded_per_minute_and_bot"),
    "too high a rate names a time": Fault(
        "broker",
        '"rate limit exceeded", {"retry-after": "60"}',
        '"rate limit exceeded"',
        "limits::submissions_are_bounded_per_minute_and_bot",
    ),
    "each bot has its own rate": Fault(
        "broker",
        "self.bound(caller.name)",
        "self.bound(None)",
        "limits::submissions_are_bounded_per_minute_and_bot",
    ),
    # Reading jobs and agents
    "the seed's keys come first": Fault(
        "broker",
        "for key in KEYS}",
        "for key in sorted(KEYS)}",
        "seed_readme::a_job_has_the_seeds_keys_first_then_the_native_ones",
    ),
    "no key is left out": Fault(
        "broker",
        "    return public\n",
        "    return {key: value for key, value in public.items() if value is not None}\n",
        "seed_readme::a_queued_job",
    ),
    "times are whole seconds": Fault(
        "broker",
        "int(job[key]) if key in TIMES",
        "job[key] if key in TIMES",
        "seed_readme::a_queued_job",
    ),
    "an unknown job is 404": Fault(
        "broker",
        'self.store.jobs, 404, "job',
        'self.store.jobs, 400, "job',
        "seed_readme::an_unknown_job_is_404",
    ),
    "jobs are listed newest first": Fault(
        "broker",
        "reversed([*enumerate(self.store.jobs.values(), 1)])",
        "enumerate(self.store.jobs.values(), 1)",
        "native_calls::jobs_are_listed_newest_first_in_pages",
    ),
    "a page has its limit": Fault(
        "broker",
        "len(page) == limit",
        "len(page) == 50",
        "native_calls::jobs_are_listed_newest_first_in_pages",
    ),
    "a page is bounded": Fault(
        "broker",
        " or size >= 2**20",
        "",
        "native_calls::a_page_has_a_bounded_size",
    ),
    "a page names the next": Fault(
        "broker",
        '"cursor": str(n + 1)',
        '"cursor": None',
        "native_calls::jobs_are_listed_newest_first_in_pages",
    ),
    "no job is between two pages": Fault(
        "broker",
        '"cursor": str(n + 1)',
        '"cursor": str(n)',
        "native_calls::jobs_are_listed_newest_first_in_pages",
    ),
    "jobs are listed by status": Fault(
        "broker",
        'status not in (None, job["status"])',
        "False",
        "native_calls::jobs_are_listed_newest_first_in_pages",
    ),
    "jobs are listed by agent": Fault(
        "broker",
        'agent not in (None, job["worker_id"] or job["agent"])',
        "False",
        "native_calls::jobs_are_listed_newest_first_in_pages",
    ),
    "a listed status is checked": _require("broker", "status in", "malformed::a_query_that_cannot_be_understood"),
    "a listed agent is checked": _require(
        "broker",
        'agent is None or reading.NAME.fullmatch(agent), 400, "agent must be the',
        "malformed::a_query_that_cannot_be_understood",
    ),
    "numbers in a query are checked": Fault(
        "reading",
        "least <= int(given) <= most",
        "True",
        "malformed::a_query_that_cannot_be_understood",
    ),
    "numbers in a query are plain": Fault(
        "reading",
        're.fullmatch("[0-9]{1,19}", given)',
        "given.isdigit()",
        "malformed::a_query_that_cannot_be_understood",
    ),
    "agents are known from their calls": Fault(
        "broker",
        "        if name:\n",
        "        if name and False:\n",
        "native_calls::agents_are_known_from_their_calls",
    ),
    "agents say their version": Fault(
        "store",
        '{"runner_version": version} if version else {}',
        "{}",
        "native_calls::agents_are_known_from_their_calls",
    ),
    "what a call does not say stays": Fault(
        "store",
        '{"runner_version": version} if version else {}',
        '{"runner_version": version or None}',
        "native_calls::agents_are_known_from_their_calls",
    ),
    "agents say what they can": Fault(
        "store",
        '{} if caps is None else {"capabilities": sorted(caps)}',
        "{}",
        "native_calls::agents_are_known_from_their_calls",
    ),
    "agents show what they run": Fault(
        "broker",
        '"running": running}',
        '"running": []}',
        "native_calls::agents_are_known_from_their_calls",
    ),
    "an agent that never called is offline": Fault(
        "broker",
        'else "offline"',
        'else "online"',
        "tokens::an_agent_is_known_from_its_token_on",
    ),
    "an agent is known from its token on": Fault(
        "broker",
        "dict.fromkeys(self.store.minted(), silent) | ",
        "{} and silent | ",
        "tokens::an_agent_is_known_from_its_token_on",
    ),
    "health needs no token": Fault(
        "broker",
        'request.path == "/health":\n',
        'request.path == "/health":\n            self.admit(request, "POST /jobs")\n',
        "seed_readme::health_needs_no_token_and_says_nothing_else",
    ),
    "health says how it is bound": Fault(
        "broker",
        '"ts_bound": True',
        '"ts_bound": False',
        "seed_readme::health_needs_no_token_and_says_nothing_else",
    ),
    # Tokens
    **{
        f"{call} needs a token": Fault(
            "broker",
            _ADMIT,
            f'        if call == "{call}" and not request.headers.keys() & {{"x-bot-token", "x-worker-token"}}:\n'
            f"            return roles[0], None\n{_ADMIT}",
            f"seed_readme::the_token_comes_first[{case}]",
        )
        for call, case in _CALLS.items()
    },
    **{
        f"{call} needs a token of its role": Fault(
            "broker",
            _ADMIT,
            f'        for role in ["bot", "worker"] if call == "{call}" else roles:\n',
            f"seed_readme::the_token_comes_first[{case}]",
        )
        for call, case in _CALLS.items()
        if call != "GET /jobs/{id}"
    },
    "a worker may read a job": Fault(
        "broker",
        '"GET /jobs/{id}": ["bot", "worker"]',
        '"GET /jobs/{id}": ["bot"]',
        "seed_readme::a_job_can_be_read_by_bot_and_worker",
    ),
    "a token counts whole": Fault(
        "broker",
        'if token and token == os.environ.get(f"{role.upper()}_TOKEN"):',
        'if token and token[:-1] in os.environ.get(f"{role.upper()}_TOKEN", ""):',
        "seed_readme::the_token_comes_first",
    ),
    "401 names the token": Fault(
        "broker",
        'f"bad {roles[0]} token" if len(roles) == 1 else "bad token"',
        '"bad token"',
        "seed_readme::the_token_comes_first",
    ),
    "the token comes before the job": Fault(
        "broker",
        "        role, owner = self.admit(request, call)\n",
        "        job_id and self.find(*job_id)\n        role, owner = self.admit(request, call)\n",
        "seed_readme::the_token_comes_first[GET-/jobs/none-bad token]",
    ),
    "the token comes before the body": Fault(
        "broker",
        "        role, owner = self.admit(request, call)\n",
        "        body = await request.body(MAX_BODY)\n        reading.json_object(body or b'{}', 400)\n"
        "        request.body = lambda _: asyncio.sleep(0, body)\n        role, owner = self.admit(request, call)\n",
        "seed_readme::the_token_comes_first",
    ),
    "no tokens, no entry": Fault(
        "broker",
        "if token and token == os.environ.get",
        "if token == os.environ.get",
        "tokens::no_tokens_no_entry",
    ),
    "a minted token is bound to its name": _require(
        "broker", "owner in (None, name)", "tokens::a_minted_token_works_at_once_under_its_own_name_only"
    ),
    "a minted token gives its name": Fault(
        "broker",
        '.get("x-worker-id", "").strip() or owner',
        '.get("x-worker-id", "").strip()',
        "tokens::a_minted_token_works_at_once_under_its_own_name_only",
    ),
    "a minted token has a role": Fault(
        "store",
        'WHERE role = ? AND digest = ?"\n',
        'WHERE ? != role AND digest = ?"\n',
        "tokens::a_minted_token_works_at_once_under_its_own_name_only",
    ),
    "a minted worker touches its own leases only": Fault(
        "broker",
        "return Caller(name, frozenset",
        "return Caller(None if owner else name, frozenset",
        "tokens::a_minted_worker_cannot_touch_anothers_lease",
    ),
    "a revoked token is refused": Fault(
        "store",
        '"DELETE FROM tokens WHERE name = ?"',
        '"SELECT ?"',
        "tokens::a_revoked_token_is_refused_within_a_second",
    ),
    "a revoked worker gets nothing": Fault(
        "broker",
        '            self.admit(request, "GET /jobs/next")\n',
        "",
        "tokens::a_worker_whose_token_is_revoked_while_it_waits_gets_no_job",
    ),
    "no token is kept as it is": Fault(
        "store",
        'hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()',
        "token",
        "tokens::no_token_is_in_the_log_or_the_database",
    ),
    "no token is in the log": Fault(
        "broker",
        '        raise RefusedError(401, f"bad',
        '        print(request.headers, file=os.fdopen(2, "w", closefd=False))\n        raise RefusedError(401, f"bad',
        "tokens::no_token_is_in_the_log_or_the_database",
    ),
    # Requests
    "unknown paths are 404": Fault(
        "broker",
        'require(allowed, 404, "Not Found")',
        "pass",
        "seed_readme::unknown_calls[GET-/-404-Not Found]",
    ),
    "another method is 405": Fault(
        "broker",
        'require(allowed, 404, "Not Found")',
        'require(False, 404, "Not Found")',
        "seed_readme::unknown_calls[DELETE-/jobs-405-Method Not Allowed]",
    ),
    "405 names what is allowed": Fault(
        "broker",
        '"Method Not Allowed", {"allow": ", ".join(allowed)}',
        '"Method Not Allowed"',
        "seed_readme::unknown_calls[DELETE-/jobs-405-Method Not Allowed]",
    ),
    "what is no JSON is refused": Fault(
        "reading",
        'invalid(status, "json_invalid")',
        'return {"command": "ping", "result": ""}',
        "malformed::a_body_that_is_not_json",
    ),
    "JSON is UTF-8": Fault(
        "reading",
        "json.loads(body.decode(), ",
        "json.loads(body, ",
        "malformed::a_body_that_is_not_json",
    ),
    "NaN is no JSON": Fault(
        "reading",
        "json.loads(body.decode(), parse_constant=_refuse)",
        "json.loads(body.decode())",
        "malformed::a_body_that_is_not_json[NaN]",
    ),
    "a body is an object": Fault(
        "reading",
        'invalid(status, "model_attributes_type")',
        'return {"command": "ping", "result": ""}',
        "malformed::a_body_that_is_not_an_object",
    ),
    "nesting is bounded": Fault(
        "reading",
        "_depth(value) > 32",
        "False",
        "malformed::a_body_that_is_nested_too_deeply",
    ),
    "texts are texts": Fault(
        "reading",
        'invalid(status, "string_type", name)',
        "return str(value)",
        "malformed::a_field_of_another_kind_is_named",
    ),
    "texts are Unicode": Fault(
        "reading",
        'invalid(status, "string_unicode", name)',
        'return value.encode("utf-8", "replace").decode()',
        "malformed::a_field_of_another_kind_is_named",
    ),
    "422 has the seed's form": Fault(
        "reading",
        "form if status == 422 else words",
        "words",
        "malformed::a_report_that_cannot_be_understood_changes_nothing",
    ),
    "422 names the field": Fault(
        "reading",
        'loc = ["body", name] if name else ["body"]',
        'loc = ["body"]',
        "malformed::a_report_that_cannot_be_understood_changes_nothing",
    ),
    "X-Worker-Id is checked": _require("broker", "not name or", "malformed::a_header_that_cannot_be_understood"),
    "X-Runner-Version is checked": _require(
        "broker", "not version or", "malformed::a_header_that_cannot_be_understood"
    ),
    "X-Lease-Epoch is checked": Fault(
        "reading",
        "well = re.fullmatch(",
        'well = name.startswith("X") or re.fullmatch(',
        "malformed::a_header_that_cannot_be_understood",
    ),
    "strange bytes in a token are a wrong token": Fault(
        "store",
        'token.encode("utf-8", "replace")',
        'token.encode("ascii")',
        "malformed::strange_bytes_in_a_token_are_a_wrong_token",
    ),
    "what is no HTTP is refused": Fault(
        "http",
        'raise RefusedError(400, "this is no HTTP")',
        'return Request("GET", "/health", {}, {}, reader, False)',
        "malformed::a_request_that_is_not_http",
    ),
    "a body has one length": _require("http", "len(lengths) <= 1", "malformed::a_request_that_is_not_http"),
    "a length is a number": _require("http", "all(re.fullmatch(", "malformed::a_request_that_is_not_http"),
    "bodies are bounded": _require("http", "size <= most", "limits::a_body_that_says_it_is_too_large"),
    "a body of exactly the limit is read": Fault(
        "http",
        "size <= most",
        "size < most",
        "limits::a_body_of_exactly_the_limit_is_read",
    ),
    "streamed bodies are bounded": _require("http", "len(body) <= most", "limits::a_streamed_body_is_counted"),
    "endless bodies are not kept": _require("http", "len(body) <= most", "limits::an_endless_body_is_not_kept"),
    "heads are bounded": Fault(
        "http",
        "MAX_HEAD_BYTES = 32768",
        "MAX_HEAD_BYTES = 2**30",
        "limits::an_endless_head_is_refused_and_not_kept[value]",
    ),
    "a large head is refused with a message": Fault(
        "http",
        '_answer(writer, 431, {"detail": "request head too large"}, _CLOSE)',
        "pass",
        "limits::a_large_head_is_refused_with_a_message",
    ),
    "a client that goes is no error": Fault(
        "http",
        "(asyncio.IncompleteReadError, ConnectionError)",
        "ConnectionError",
        "limits::a_client_that_goes_in_the_middle_of_its_body_is_no_error_of_ours",
    ),
    "connections are bounded": _require("http", "self._open <= self._most", "limits::connections_are_bounded"),
    "a connection that has gone frees its place": Fault(
        "http",
        "            self._open -= 1\n",
        "",
        "limits::connections_are_bounded",
    ),
    # Answers
    "success is 200": Fault(
        "http",
        "_answer(writer, 200, await",
        "_answer(writer, 201, await",
        "seed_readme::a_submission_is_answered_with_id_and_status",
    ),
    "answers say that they are JSON": Fault(
        "http",
        '"content-type": "application/json"',
        '"content-type": "text/plain"',
        "seed_readme::health_needs_no_token_and_says_nothing_else",
    ),
    "errors have one shape": Fault(
        "http",
        '_answer(writer, refusal.status, {"detail": refusal.detail}, refusal.headers',
        '_answer(writer, refusal.status, {"error": refusal.detail}, refusal.headers',
        "seed_readme::a_result_of_a_queued_job_is_refused",
    ),
    "answers are written closely": Fault(
        "http",
        'separators=(",", ":")',
        "",
        "seed_readme::the_readmes_six_curl_examples",
    ),
}
