"""Faults of the queue: of what is kept, handed out, waited for, leased and ended."""

from __future__ import annotations

# Rule: module, test that must fail, what keeps the rule, what stands there instead.
# fmt: off
QUEUE: dict[str, tuple[str, str, str, str]] = {
    # Durability
    "the write comes before the answer": (
        "store", "durability::nothing_acknowledged_is_lost_with_the_process",
        'self._db.execute(statement, (job["id"], json.dumps(job)))',
        'asyncio.get_running_loop().call_later(0.1, self._db.execute, statement, (job["id"], json.dumps(job)))',
    ),
    "an acknowledged job is kept": (
        "broker", "durability::nothing_acknowledged_is_lost_with_the_process",
        "self.store.write(job)\n", 'self.store.jobs[job["id"]] = job\n        self.store.wake()\n',
    ),
    "an acknowledged end is kept": (
        "broker", "durability::nothing_acknowledged_is_lost_with_the_process",
        'self.store.write(job, **ended, finished_at=time.time(), lease_until=None)\n        return {"ok"',
        'self.store.jobs[job_id] = job | ended | {"finished_at": time.time(), "lease_until": None}\n'
        '        return {"ok"',
    ),
    "an acknowledged failure is kept": (
        "store", "durability::everything_survives_a_restart",
        '            self._db.execute(statement, (job["id"], json.dumps(job)))',
        '            if job["outcome"] != "failed":\n'
        '                self._db.execute(statement, (job["id"], json.dumps(job)))',
    ),
    "an acknowledged release is kept": (
        "broker", "durability::everything_survives_a_restart",
        'self.store.write(job, **QUEUED, attempts=job["attempts"] - 1)',
        'self.store.jobs[job_id] = job | QUEUED | {"attempts": job["attempts"] - 1}\n        self.store.wake()',
    ),
    "a death is kept": (
        "store", "leases::a_job_is_dead_after_its_last_delivery[1]",
        '            self._db.execute(statement, (job["id"], json.dumps(job)))',
        '            if job["outcome"] != "dead":\n'
        '                self._db.execute(statement, (job["id"], json.dumps(job)))',
    ),
    "leases survive a restart": (
        "store", "durability::everything_survives_a_restart",
        '            self._db.execute(statement, (job["id"], json.dumps(job)))',
        '            if job["status"] != "running":\n'
        '                self._db.execute(statement, (job["id"], json.dumps(job)))',
    ),
    "agents survive a restart": (
        "store", "durability::everything_survives_a_restart",
        '"INSERT OR REPLACE INTO agents VALUES (?, ?)", (name, json.dumps(agent))', '"SELECT 1"',
    ),
    "the order survives a restart": (
        "store", "durability::everything_survives_a_restart",
        "FROM jobs ORDER BY n", "FROM jobs ORDER BY n DESC",
    ),
    "a full disk is said": (
        "store", "durability::a_full_disk_is_said_and_survived",
        'raise RefusedError(503, f"the database failed: {error}", {"retry-after": "2"}) from error', "pass",
    ),
    "a full disk is survived": (
        "store", "durability::a_full_disk_is_said_and_survived",
        "        except sqlite3.Error as error:\n",
        "        except sqlite3.Error as error:\n            self._db.close()\n",
    ),
    # Claims
    "a job is claimed once": (
        "broker", "seed_readme::jobs_come_in_the_order_of_submission",
        'job["status"] == "queued"\n            and', 'job["status"] != "done"\n            and',
    ),
    "the oldest comes first": (
        "broker", "seed_readme::jobs_come_in_the_order_of_submission",
        'for job in self.store.jobs.values()\n            if job["status"] == "queued"\n',
        'for job in reversed(self.store.jobs.values())\n            if job["status"] == "queued"\n',
    ),
    "foreign jobs hide nothing": (
        "broker", "routing::a_runnable_job_is_found_behind_foreign_ones",
        'for job in self.store.jobs.values()\n            if job["status"] == "queued"\n',
        'for job in [job for job in self.store.jobs.values() if job["status"] == "queued"][:50]\n'
        '            if job["status"] == "queued"\n',
    ),
    "a released job is the next": (
        "broker", "native_calls::a_released_job_is_the_next_and_its_delivery_is_not_charged",
        'self.store.write(job, **QUEUED, attempts=job["attempts"] - 1)',
        'self.store.write(self.store.jobs.pop(job_id), **QUEUED, attempts=job["attempts"] - 1)',
    ),
    "a lost job is the next": (
        "broker", "leases::a_lost_lease_is_taken_back_without_anybody_polling",
        "self.store.write(job, **QUEUED)", 'self.store.write(self.store.jobs.pop(job["id"]), **QUEUED)',
    ),
    "every capability is needed": (
        "broker", "routing::a_worker_needs_every_capability",
        'caller.caps.issuperset(job["needs"])', '(not job["needs"] or caller.caps & {*job["needs"]})',
    ),
    "capabilities matter": (
        "broker", "routing::a_worker_needs_every_capability",
        'caller.caps.issuperset(job["needs"])', "True",
    ),
    "capabilities are told by case": (
        "broker", "routing::a_worker_needs_every_capability",
        'caller.caps.issuperset(job["needs"])',
        '{cap.lower() for cap in caller.caps}.issuperset(cap.lower() for cap in job["needs"])',
    ),
    "a job without needs fits every worker": (
        "broker", "routing::no_requirement_fits_every_worker",
        'caller.caps.issuperset(job["needs"])', '(caller.caps.issuperset(job["needs"]) and caller.caps)',
    ),
    "a named agent's job is its own": (
        "broker", "routing::a_named_agent_gets_its_job_and_nobody_else_does",
        'job["agent"] in (None, caller.name)', "True",
    ),
    "a named agent gets its job": (
        "broker", "routing::a_named_agent_gets_its_job_and_nobody_else_does",
        'job["agent"] in (None, caller.name)', 'job["agent"] is None',
    ),
    "a nameless worker gets no agent's job": (
        "broker", "routing::a_named_agent_gets_its_job_and_nobody_else_does",
        'job["agent"] in (None, caller.name)', '(caller.name is None or job["agent"] in (None, caller.name))',
    ),
    "capabilities may be a JSON array": (
        "reading", "routing::a_worker_needs_every_capability",
        'json.loads(header) if header.startswith("[") else header.split(",")', 'header.split(",")',
    ),
    "capabilities may be a comma list": (
        "reading", "routing::a_worker_needs_every_capability",
        'header.split(",")', "[header]",
    ),
    "blanks around a capability are no part of it": (
        "reading", "routing::a_worker_needs_every_capability",
        "names = [name.strip() for name in listed if name.strip()]\n    except",
        "names = [name for name in listed if name.strip()]\n    except",
    ),
    "capabilities are checked": (
        "reading", "routing::capabilities_that_cannot_be_understood_are_refused",
        "require(all(map(_CAPABILITY", "require(True or all(map(_CAPABILITY",
    ),
    "a job names its worker": (
        "broker", "seed_readme::a_claim_starts_a_lease_of_sixty_seconds",
        "worker_id=caller.name,", "worker_id=None,",
    ),
    "a lease has its length": (
        "broker", "seed_readme::a_claim_starts_a_lease_of_sixty_seconds",
        '(lease_seconds or job["lease_seconds"]),', '(lease_seconds or job["lease_seconds"] * 2),',
    ),
    "each delivery has a new epoch": (
        "broker", "native_calls::a_released_job_is_the_next_and_its_delivery_is_not_charged",
        'lease_epoch=job["lease_epoch"] + 1', "lease_epoch=1",
    ),
    "deliveries are counted": (
        "broker", "leases::a_waiting_worker_gets_the_job_of_a_lost_one",
        'attempts=job["attempts"] + 1', "attempts=1",
    ),
    "an empty queue gives null": (
        "broker", "seed_readme::an_empty_queue_gives_null",
        'return {"job": None}', "return {}",
    ),
    "HEAD claims nothing": (
        "broker", "seed_readme::a_head_request_claims_nothing",
        "call, job_id = self.route(request, CALLS)",
        'request.method = request.method.replace("HEAD", "GET")\n        call, job_id = self.route(request, CALLS)',
    ),
    # Waiting
    "a wait ends early for a job": (
        "broker", "native_calls::a_waiting_worker_gets_a_job_the_moment_it_is_there",
        "await self.store.changed.wait()", "await asyncio.Event().wait()",
    ),
    "a claim waits": (
        "broker", "native_calls::a_wait_ends_with_null",
        'time.monotonic() + reading.seconds(request.query.get("wait"))\n        dismissals',
        "time.monotonic()\n        dismissals",
    ),
    "a claim waits only when asked to": (
        "broker", "seed_readme::an_empty_queue_gives_null",
        'time.monotonic() + reading.seconds(request.query.get("wait"))\n        dismissals',
        'time.monotonic() + (reading.seconds(request.query.get("wait")) or 3)\n        dismissals',
    ),
    "no wake-up is lost": (
        "broker", "native_calls::a_job_that_comes_as_a_wait_begins_is_not_missed",
        "await self.store.changed.wait()",
        "await asyncio.sleep(0.01)\n                await self.store.changed.wait()",
    ),
    "each waiting worker is woken": (
        "store", "native_calls::every_job_wakes_one_waiting_worker",
        "        self.changed.set()\n",
        "        self.changed._waiters and self.changed._waiters[0].set_result(True)\n",
    ),
    "a foreign job ends no wait": (
        "broker", "native_calls::a_foreign_job_ends_no_wait",
        "if not await self.changed(deadline, request) or self.dismissals[caller.name] != dismissals:",
        "if await self.changed(deadline, request) or True:",
    ),
    "a job goes to nobody who hung up": (
        "http", "native_calls::a_job_is_not_lost_with_the_worker_that_it_woke",
        "return self.reader.at_eof()", "return False",
    ),
    "a submitter can wait for the end": (
        "broker", "native_calls::a_submitter_can_wait_for_the_end",
        'while self.find(job_id)["outcome"] is None:', "while False:",
    ),
    "a submitter's wait ends with the job": (
        "broker", "native_calls::a_submitter_can_wait_for_the_end",
        'while self.find(job_id)["outcome"] is None:', "while True:",
    ),
    "a submitter's wait ends in time": (
        "broker", "native_calls::waiting_for_an_end_that_does_not_come",
        'reading.seconds(request.query.get("wait"))\n        while self.find',
        'reading.seconds(request.query.get("wait")) + 5\n        while self.find',
    ),
    "a wait for no job is 404 at once": (
        "broker", "native_calls::waiting_for_an_end_that_does_not_come",
        'while self.find(job_id)["outcome"] is None:',
        'while job_id not in self.store.jobs or self.find(job_id)["outcome"] is None:',
    ),
    "wait is checked": (
        "reading", "malformed::a_query_that_cannot_be_understood",
        'require(well, 400, "wait', 'require(True or well, 400, "wait',
    ),
    # Leases
    "a lost lease is taken back": (
        "broker", "leases::a_lost_lease_is_taken_back_without_anybody_polling",
        'if job["lease_until"] < time.time():', "if False:",
    ),
    "a lost lease is taken back without a poll": (
        "broker", "leases::a_lost_lease_is_taken_back_without_anybody_polling",
        "            await asyncio.sleep(0.02)", "            await self.store.changed.wait()",
    ),
    "a lease is kept until its end": (
        "broker", "leases::a_lost_lease_is_taken_back_without_anybody_polling",
        'if job["lease_until"] < time.time():', 'if job["lease_until"] < time.time() + 0.5:',
    ),
    "a lease ends in time": (
        "broker", "leases::a_lost_lease_is_taken_back_without_anybody_polling",
        'if job["lease_until"] < time.time():', 'if job["lease_until"] < time.time() - 3:',
    ),
    "a lost delivery is charged": (
        "broker", "leases::a_lost_lease_is_taken_back_without_anybody_polling",
        "self.store.write(job, **QUEUED)", 'self.store.write(job, **QUEUED, attempts=job["attempts"] - 1)',
    ),
    "a queued job has no worker": (
        "broker", "leases::a_lost_lease_is_taken_back_without_anybody_polling",
        'QUEUED = {"status": "queued", "worker_id": None,', 'QUEUED = {"status": "queued",',
    ),
    "a queued job has not begun": (
        "broker", "leases::a_lost_lease_is_taken_back_without_anybody_polling",
        '"started_at": None, "lease_until": None}', "}",
    ),
    "a loss ends the loser's wait": (
        "broker", "leases::a_claim_from_before_the_loss_gets_nothing",
        '                    self.dismissals[job["worker_id"]] += 1\n', "",
    ),
    "a loss ends each of the loser's waits": (
        "broker", "leases::a_claim_from_before_the_loss_gets_nothing",
        "self.dismissals[caller.name] != dismissals", "self.dismissals.pop(caller.name, 0) != dismissals",
    ),
    "a loss ends nobody else's wait": (
        "broker", "leases::a_claim_from_before_the_loss_gets_nothing",
        'self.dismissals[job["worker_id"]] += 1', "self.dismissals.update([None, *self.store.agents])",
    ),
    "a loser that calls again is heard": (
        "broker", "leases::a_loser_that_calls_again_is_a_worker_like_any_other",
        "dismissals = self.dismissals[caller.name]", "dismissals = 0",
    ),
    "deliveries are bounded": (
        "broker", "leases::a_job_is_dead_after_its_last_delivery",
        'if job["attempts"] < job["max_deliveries"]:', "if True:",
    ),
    "the last delivery is one": (
        "broker", "leases::a_job_is_dead_after_its_last_delivery[2]",
        'if job["attempts"] < job["max_deliveries"]:', 'if job["attempts"] < job["max_deliveries"] - 1:',
    ),
    "a dead job is told apart": (
        "broker", "leases::a_job_is_dead_after_its_last_delivery[1]",
        '"outcome": "dead"', '"outcome": "failed"',
    ),
    "a dead job says why": (
        "broker", "leases::a_job_is_dead_after_its_last_delivery[1]",
        '"outcome": "dead", "error": error', '"outcome": "dead", "error": "dead"',
    ),
    "a heartbeat extends the lease": (
        "broker", "leases::heartbeats_keep_a_lease",
        'job = self.store.write(job, lease_until=time.time() + job["lease_seconds"])', "pass",
    ),
    "a heartbeat counts from now": (
        "broker", "native_calls::a_heartbeat_extends_the_lease_from_now",
        'write(job, lease_until=time.time() + job["lease_seconds"])',
        'write(job, lease_until=job["lease_until"] + job["lease_seconds"])',
    ),
    "a heartbeat needs no body": (
        "broker", "native_calls::heartbeat_and_release_need_no_body",
        'values = reading.json_object(body or b"{}", 422)\n        job = self.leased("heartbeat"',
        'values = reading.json_object(body, 422)\n        job = self.leased("heartbeat"',
    ),
    "a release needs no body": (
        "broker", "native_calls::heartbeat_and_release_need_no_body",
        'values = reading.json_object(body or b"{}", 422)\n        reason',
        "values = reading.json_object(body, 422)\n        reason",
    ),
    "a released delivery is not charged": (
        "broker", "native_calls::a_released_job_is_the_next_and_its_delivery_is_not_charged",
        'attempts=job["attempts"] - 1)', 'attempts=job["attempts"])',
    ),
    "an ended job has no lease to renew or release": (
        "broker", "native_calls::an_ended_job_has_no_lease",
        'require(job["status"] == "running", 409', 'require(True or job["status"] == "running", 409',
    ),
    "another's report is told so": (
        "broker", "native_calls::only_the_holder_may_touch_a_lease[epoch0-result]",
        ', "note": f"held by another worker; {call} ignored"}', "}",
    ),
    "another's report with an epoch is refused": (
        "broker", "native_calls::only_the_holder_may_touch_a_lease[epoch1-result]",
        "require(epoch is None, 409", "require(True or epoch is None, 409",
    ),
    "a report with an epoch ends with the lease": (
        "broker", "native_calls::an_epoch_ends_with_its_lease[result]",
        "400 if epoch is None else 409", "400",
    ),
    "the epoch may be in the header": (
        "reading", "native_calls::a_stale_epoch_changes_nothing[header-result]",
        'request.headers.get("x-lease-epoch")', "None",
    ),
    "epochs must agree": (
        "reading", "native_calls::epochs_in_body_and_header_must_agree",
        "require(in_header == -1 or", "require(True or in_header == -1 or",
    ),
    "an epoch is a number": (
        "reading", "malformed::a_report_that_cannot_be_understood_changes_nothing",
        "type(in_body) is not int:", "False:",
    ),
    "an epoch is in its range": (
        "reading", "malformed::a_report_that_cannot_be_understood_changes_nothing",
        "not 0 <= in_body <= 2**53", "False",
    ),
    # Ends
    "the first result counts": (
        "broker", "seed_readme::a_result_ends_the_job_and_its_repetition_changes_nothing",
        'if status == ended["status"]:', 'if status == ended["status"] and call != "result":',
    ),
    "the first failure counts": (
        "broker", "seed_readme::a_failure_ends_the_job_and_its_repetition_changes_nothing",
        '        if status == ended["status"]:\n',
        '        if status == ended["status"]:\n            self.store.write(job, **ended)\n',
    ),
    "a result may be repeated": (
        "broker", "seed_readme::a_result_ends_the_job_and_its_repetition_changes_nothing",
        '        if status == ended["status"]:\n',
        '        require(status != "done" or call == "fail", 409, "done")\n        if status == ended["status"]:\n',
    ),
    "a failure may be repeated": (
        "broker", "seed_readme::a_failure_ends_the_job_and_its_repetition_changes_nothing",
        '        if status == ended["status"]:\n',
        '        require(status != "failed" or call == "result", 409, "")\n        if status == ended["status"]:\n',
    ),
    "a repeated result checks the epoch": (
        "broker", "native_calls::a_result_may_be_repeated_with_its_epoch_only",
        'require(epoch in (None, job["lease_epoch"]), 409, f"{call} with a stale epoch")\n        if status',
        'require(job["outcome"] or epoch in (None, job["lease_epoch"]), 409, "stale epoch")\n        if status',
    ),
    "a failure after a result is ignored": (
        "broker", "seed_readme::a_failure_after_a_result_is_ignored_with_a_note",
        'if status in ("done", "failed"):', 'if status == "failed":',
    ),
    "a result after a failure is ignored": (
        "broker", "seed_readme::a_result_after_a_failure_is_ignored_with_a_note",
        'if status in ("done", "failed"):', 'if status == "done":',
    ),
    "what is ignored is told": (
        "broker", "seed_readme::a_result_after_a_failure_is_ignored_with_a_note",
        ', "note": f"already {status}; {call} ignored"}', "}",
    ),
    "a result of a queued job is refused": (
        "broker", "seed_readme::a_result_of_a_queued_job_is_refused",
        '(call == "result" or job["lease_epoch"] > 0)', 'call == "fail" and job["lease_epoch"] > 0',
    ),
    "a job never claimed can be failed": (
        "broker", "seed_readme::a_job_that_was_never_claimed_can_be_failed",
        '(call == "result" or job["lease_epoch"] > 0)', "True",
    ),
    "a late failure does not end a requeued job": (
        "broker", "native_calls::a_late_failure_does_not_end_a_requeued_job",
        '(call == "result" or job["lease_epoch"] > 0)', 'call == "result"',
    ),
    "a failure without words is unknown": (
        "broker", "seed_readme::a_failure_without_words_is_unknown",
        '.strip() or "unknown"', ".strip()",
    ),
    "an ended job has no lease": (
        "broker", "seed_readme::a_result_ends_the_job_and_its_repetition_changes_nothing",
        '**ended, finished_at=time.time(), lease_until=None)\n        return {"ok"',
        '**ended, finished_at=time.time())\n        return {"ok"',
    ),
    "an ended job has its duration": (
        "broker", "seed_readme::a_result_ends_the_job_and_its_repetition_changes_nothing",
        'if job["started_at"] and job["finished_at"]:', "if False:",
    ),
    "a result is kept as it is": (
        "broker", "seed_readme::a_result_is_kept_as_it_is",
        'result = reading.text(values, "result", 422)',
        'result = reading.text(values, "result", 422).replace("\\0", "")',
    ),
    "a result is needed": (
        "broker", "malformed::a_report_that_cannot_be_understood_changes_nothing",
        'if "result" not in values:', 'values = {"result": ""} | values\n        if False:',
    ),
    "results are bounded": (
        "broker", "limits::reports_have_a_bounded_size[result-result]",
        "require(len(result.encode())", "require(True or len(result.encode())",
    ),
    "errors are bounded": (
        "broker", "limits::reports_have_a_bounded_size[fail-error]",
        "require(len(error.encode())", "require(True or len(error.encode())",
    ),
    "reasons are bounded": (
        "broker", "limits::reports_have_a_bounded_size[release-reason]",
        "require(len(reason.encode())", "require(True or len(reason.encode())",
    ),
    # What a worker holds
    "what is not held is taken back": (
        "broker", "held::what_is_not_held_is_queued_at_the_head_at_once",
        "        for job in lost:\n            self.take_back(job)\n", "",
    ),
    "what is held is kept": (
        "broker", "held::what_is_not_held_is_queued_at_the_head_at_once",
        'if (job["id"], job["lease_epoch"]) not in leases', "",
    ),
    "what others hold is kept": (
        "broker", "held::what_is_not_held_is_queued_at_the_head_at_once",
        'lost = [job for job in self.running() if job["worker_id"] == caller.name]', "lost = self.running()",
    ),
    "what is held has its epoch": (
        "broker", "held::a_lease_of_another_epoch_is_not_held",
        'if (job["id"], job["lease_epoch"]) not in leases', 'if job["id"] not in dict(leases)',
    ),
    "the last delivery ends there too": (
        "broker", "held::the_last_delivery_ends_as_a_lost_lease_does",
        "        for job in lost:\n            self.take_back(job)\n",
        "        for job in lost:\n            self.store.write(job, **QUEUED)\n",
    ),
    "the holder has a name": (
        "broker", "held::a_worker_without_a_name_is_refused",
        "require(caller.name, 400", "require(True or caller.name, 400",
    ),
    "the holder waits no more": (
        "broker", "held::waiting_claims_go_first_and_without_a_job",
        "        self.dismissals[caller.name] += 1\n", "",
    ),
    "others go on waiting": (
        "broker", "held::waiting_claims_go_first_and_without_a_job",
        "self.dismissals[caller.name] += 1", "self.dismissals.update([None, *self.store.agents])",
    ),
    "what is held is bounded": (
        "broker", "held::a_list_that_cannot_be_understood_frees_nothing",
        "len(listed) > 1000", "False",
    ),
    "a list of leases is one": (
        "broker", "held::a_list_that_cannot_be_understood_frees_nothing",
        "        for lease in listed:\n            if type", "        for lease in ():\n            if type",
    ),
}
