"""Faults of the tasks dialect."""

from __future__ import annotations

_BROKER, _TASKS = "broker", "tasks"
_CALLS, _LEASES, _BOTH = "tasks_calls::", "tasks_leases::", "tasks_and_jobs::"

# Rule: module, test that must fail, what keeps the rule, what stands there instead.
# fmt: off
TASKS: dict[str, tuple[str, str, str, str]] = {
    # Who may call
    "health needs no key": (
        _TASKS, _CALLS + "health_needs_no_key",
        'and request.path == "/api/health"', 'and request.path == "/api/healthy"',
    ),
    "tasks need the global key": (
        _TASKS, _CALLS + "the_global_key_comes_first", "require(admitted,", "require(True or admitted,",
    ),
    "the global key is a bearer": (
        _TASKS, _CALLS + "the_global_key_comes_first", r'r"bearer +(\S+)"', r'r"(?:\w+ +)?(\S+)"',
    ),
    "agents' calls need a bearer": (
        _TASKS, _CALLS + "the_global_key_comes_first",
        'bearer if role == "worker" else (bearer or key)', "bearer or key",
    ),
    "an agent's key does not submit": (
        _TASKS, _CALLS + "an_agents_key_does_not_submit",
        'else ["bot", "admin"]\n', 'else ["bot", "admin", "worker"]\n',
    ),
    "the bearer's case is not looked at": (
        _TASKS, _CALLS + "the_global_key_in_its_other_forms", r'r"bearer +(\S+)"', r'r"(?-i:Bearer) +(\S+)"',
    ),
    "X-API-Key may have the global key": (
        _TASKS, _CALLS + "the_global_key_in_its_other_forms", "else (bearer or key))", "else bearer)",
    ),
    "minted bots submit": (
        _TASKS, _CALLS + "minted_tokens_do_for_the_global_key[bot]",
        'else ["bot", "admin"]\n', 'else ["admin"]\n',
    ),
    "bots do not requeue": (
        _TASKS, _LEASES + "only_an_admin_requeues_and_only_the_dead",
        'else ["admin"] if "requeue"', 'else ["bot", "admin"] if "requeue"',
    ),
    "an agent must be known": (
        _TASKS, _CALLS + "who_an_agent_must_be", "require(mine or broker.store.known(name), 403,",
        "require(mine or broker.store.known(name), 401,",
    ),
    "an agent's key is checked": (
        _TASKS, _CALLS + "who_an_agent_must_be", "require(mine, 401,", "require(mine or key or bearer, 401,",
    ),
    "an agent's key is its own": (
        _TASKS, _CALLS + "who_an_agent_must_be",
        'broker.store.owner("worker", key or bearer) == name', 'broker.store.owner("worker", key or bearer)',
    ),
    "an agent's key may let it in": (
        _TASKS, _CALLS + "who_an_agent_must_be", '["bot", "admin", "worker"] if', '["bot", "admin"] if',
    ),
    "an agent's bearer may be its key": (
        _TASKS, _CALLS + "an_agents_key_may_be_the_bearer_alone",
        'broker.store.owner("worker", key or bearer)', 'broker.store.owner("worker", key)',
    ),
    "a pull says how often a task may be tried": (
        _TASKS, _CALLS + "a_submitted_task_is_shown_and_pulled",
        '"lease_until", "max_attempts")', '"lease_until")',
    ),
    "a task says that it is one": (
        _TASKS, _BOTH + "a_task_is_a_job", '"dialect": "tasks"', '"dialect": "jobs"',
    ),
    "an agent says who it is": (
        _TASKS, _CALLS + "the_agent_must_be_named", 'or wrong("agent_id")', 'or "agent1"',
    ),
    "a minted worker is an agent": (
        "store", _CALLS + "a_minted_worker_is_an_agent",
        "return str(row[0]) if row else _KEYS", "return str(row[0]) if row and row[0] != 'minted' else _KEYS",
    ),
    "the global key is a bot's token": (
        "reading", _BOTH + "the_keys_are_tokens_of_every_dialect", '("BOT_TOKEN", "API_KEY")', '("BOT_TOKEN",)',
    ),
    "an agent's key is a worker's token": (
        "store", _BOTH + "the_keys_are_tokens_of_every_dialect",
        '_KEYS.get(token) if role == "worker" else None', "None",
    ),
    "workers' shared token is good for agents": (
        _TASKS, _BOTH + "the_keys_are_tokens_of_every_dialect",
        'reading.shared("worker", key or bearer) or broker', "broker",
    ),
    "an agent that pulls was seen": (
        _TASKS, _BOTH + "the_keys_are_tokens_of_every_dialect", "        broker.store.saw(", "        str(",
    ),
    # What is asked and answered
    "types may be in capitals": (
        _TASKS, _CALLS + "a_submitted_task_is_shown_and_pulled",
        '"[A-Za-z][A-Za-z0-9:_-]{0,63}"', '"[a-z][a-z0-9:_-]{0,63}"',
    ),
    "types are checked": (
        _TASKS, _CALLS + "a_submission_that_is_none", "not TYPE.fullmatch(kind) or", "not kind or",
    ),
    "only listed types are accepted": (
        _TASKS, _CALLS + "only_listed_types_are_accepted", "require(not broker.commands or", "require(True or",
    ),
    "a minted worker is known": (
        "store", _CALLS + "a_minted_worker_is_an_agent", "return name in self.minted() or", "return",
    ),
    "attempts are checked": (
        _TASKS, _CALLS + "a_submission_that_is_none", "type(attempts) is not int or", "",
    ),
    "attempts are bounded": (
        _TASKS, _CALLS + "a_submission_that_is_none", "not 1 <= attempts <= 100", "not 1 <= attempts",
    ),
    "the hint is a name": (
        _TASKS, _CALLS + "a_submission_that_is_none", "hint is not None and not", "hint == 5 and not",
    ),
    "payloads are objects": (
        _TASKS, _CALLS + "a_submission_that_is_none",
        '    if not isinstance(value, dict):\n        reading.invalid(422, "dict_type", name)\n    return value',
        '    return value if isinstance(value, dict) else {"text": str(value)}',
    ),
    "payloads of tasks are bounded": (
        _TASKS, _CALLS + "sizes", '"payload": bounded("payload", kept(payload))', '"payload": kept(payload)',
    ),
    "payloads and results leave room": (
        _TASKS, _CALLS + "objects_leave_room_for_what_is_around_them", "reading.shallow(value, 422)", "pass",
    ),
    "what leaves no room is text": (
        _TASKS, _BOTH + "a_job_is_a_task", "reading.shallow(value, 400)", "pass",
    ),
    "half of a pair is text": (
        _TASKS, _BOTH + "a_job_is_a_task", "json.dumps(value, ensure_ascii=False).encode()", "pass",
    ),
    "results of tasks are bounded": (
        _TASKS, _CALLS + "sizes",
        'bounded("result", kept(objects(values, "result")))', 'kept(objects(values, "result"))',
    ),
    "errors of tasks are bounded": (
        _TASKS, _CALLS + "sizes",
        'bounded("error", (reading.optional', 'str((reading.optional',
    ),
    "success is said": (
        _TASKS, _CALLS + "a_report_that_is_none", "if type(success) is not bool:", "if success == 5:",
    ),
    "a lease token is said": (
        _TASKS, _CALLS + "a_report_that_is_none",
        '{"lease_token": None} | values, "lease_token"', '{"lease_token": "lease 1"} | values, "lease_token"',
    ),
    "payloads come back": (
        _TASKS, _CALLS + "a_submitted_task_is_shown_and_pulled", "json.dumps(value, ensure_ascii=False) if value",
        "json.dumps(dict.fromkeys(value)) if value",
    ),
    "an empty queue is said": (
        _TASKS, _CALLS + "an_empty_queue", '"Queue is empty"', '"No task"',
    ),
    "queries are 422": (
        _TASKS, _CALLS + "a_pull_that_is_none", "raise RefusedError(422, _form", "raise RefusedError(400, _form",
    ),
    "leases have bounds": (
        _TASKS, _CALLS + "a_pull_that_is_none",
        'lease_seconds, wait = number(request, "lease_seconds", 30, 3600, 300)',
        'lease_seconds, wait = number(request, "lease_seconds", 1, 9999, 300)',
    ),
    "waits have bounds": (
        _TASKS, _CALLS + "a_pull_that_is_none", "or float(wait) > 25", "",
    ),
    "the list is filtered by agent": (
        _TASKS, _CALLS + "the_list_is_filtered_and_comes_in_pages",
        'name not in (None, job["worker_id"] or job["agent"])', "False",
    ),
    "the list is filtered by type": (
        _TASKS, _CALLS + "the_list_is_filtered_and_comes_in_pages", 'kind not in (None, job["command"])', "False",
    ),
    "the list is filtered by status": (
        _TASKS, _CALLS + "the_list_is_filtered_and_comes_in_pages", 'if word in (None, shown["status"])', "if True",
    ),
    "the list has pages": (
        _TASKS, _CALLS + "the_list_is_filtered_and_comes_in_pages",
        'request.answer_headers["x-next-cursor"] = str(n + 1)', "pass",
    ),
    "a page begins where the last one ended": (
        _TASKS, _CALLS + "the_list_is_filtered_and_comes_in_pages", "= str(n + 1)", "= str(n)",
    ),
    "the newest task is first": (
        _TASKS, _CALLS + "the_list_is_filtered_and_comes_in_pages",
        "in reversed([*enumerate(broker.store.jobs.values(), 1)])", "in [*enumerate(broker.store.jobs.values(), 1)]",
    ),
    "statuses are the dialect's words": (
        _TASKS, _CALLS + "a_list_that_is_none", "word is not None and word not in STATES", "word == 5",
    ),
    "dead letters are counted": (
        _TASKS, _CALLS + "the_state_of_the_queue", 'sum(job["outcome"] == "dead"', 'sum(job["outcome"] == "failed"',
    ),
    "what is put off is queued": (
        _TASKS, _CALLS + "the_state_of_the_queue", '"queue_depth": len(pending)', '"queue_depth": len(ready)',
    ),
    "the oldest task is the first": (
        _TASKS, _CALLS + "how_old_the_queue_is", "time.time() - min(ready)", "time.time() - max(ready)",
    ),
    "what is put off is not old": (
        _TASKS, _CALLS + "how_old_the_queue_is",
        'for job in pending if not job["not_before"]]', "for job in pending]",
    ),
    # Leases
    "a pull says how long its lease is": (
        _BROKER, _LEASES + "how_long_a_lease_is", '(lease_seconds or job["lease_seconds"])', 'job["lease_seconds"]',
    ),
    "a heartbeat renews": (
        _TASKS, _LEASES + "a_heartbeat_renews", "lease_until=time.time() + lease_seconds,", "",
    ),
    "a heartbeat is noted": (
        _TASKS, _LEASES + "a_heartbeat_renews", "lease_seconds, heartbeat_at=time.time())", "lease_seconds)",
    ),
    "only the owner": (
        _TASKS, _LEASES + "only_the_owner_may_touch_a_task", 'require(job["worker_id"] == name,', "require(True,",
    ),
    "only the current lease": (
        _TASKS, _LEASES + "a_stale_lease_token_changes_nothing",
        "require(lease == f\"lease {job['lease_epoch']}\", 401,", 'require(lease.startswith("lease "), 401,',
    ),
    "the lease token is checked": (
        _TASKS, _LEASES + "a_lease_token_that_is_none",
        "require(lease == f\"lease {job['lease_epoch']}\", 401,", "require(True, 401,",
    ),
    "a task that nobody was given cannot be ended": (
        _TASKS, _LEASES + "a_task_that_nobody_was_given_cannot_be_ended[failure]",
        "    job = leased(broker, name, lease, task_id)\n    if success:",
        '    job = leased(broker, name, lease, task_id) if success or job["lease_epoch"] else job\n    if success:',
    ),
    "a late report is told so": (
        _TASKS, _LEASES + "a_stale_lease_token_changes_nothing",
        "require(lease == f\"lease {job['lease_epoch']}\", 409,", "require(True, 409,",
    ),
    "only a running task": (
        _TASKS, _LEASES + "a_stale_lease_token_changes_nothing", 'require(job["status"] == "running",', "require(True,",
    ),
    "a dead letter is finalized": (
        _TASKS, _LEASES + "a_task_whose_lease_is_lost_too_often_is_dead",
        'require(job["status"] != "failed",', "require(True,",
    ),
    "a completed task stays so": (
        _TASKS, _CALLS + "a_completed_task", 'if job["status"] == "done":', "if False:",
    ),
    # Tries
    "a failure is tried again": (
        _TASKS, _LEASES + "a_failure_is_tried_again_later_and_each_time_later", 'if job["retry_seconds"]:', "if False:",
    ),
    "a back-off doubles": (
        _TASKS, _LEASES + "a_failure_is_tried_again_later_and_each_time_later", '* 2 ** (job["attempts"] - 1)', "",
    ),
    "a back-off is kept": (
        _BROKER, _LEASES + "a_failure_is_tried_again_later_and_each_time_later", 'and not job["not_before"]\n', "",
    ),
    "a back-off ends": (
        _BROKER, _LEASES + "a_waiting_agent_gets_a_new_task_and_one_whose_time_has_come",
        'job["not_before"] < time.time():', 'job["not_before"] < 0:',
    ),
    "back-offs differ": (
        _TASKS, _LEASES + "the_default_is_five_attempts_and_two_minutes", "random.uniform(0.9, 1.1)", "1.0",
    ),
    "the default is two minutes": (
        _TASKS, _LEASES + "the_default_is_five_attempts_and_two_minutes",
        '"TASKS_RETRY_SECONDS", "120"', '"TASKS_RETRY_SECONDS", "60"',
    ),
    "the default is five": (
        _TASKS, _LEASES + "the_default_is_five_attempts_and_two_minutes", "attempts = 5 if", "attempts = 4 if",
    ),
    "the last failure is a dead letter": (
        _TASKS, _LEASES + "a_failure_is_tried_again_later_and_each_time_later",
        'dead = {"status": "failed", "outcome": "dead",',
        'dead = {"status": "failed", "outcome": "failed",',
    ),
    "the error is there until the next try": (
        _TASKS, _LEASES + "a_failure_is_tried_again_later_and_each_time_later",
        "**jobs.QUEUED, error=error,", "**jobs.QUEUED,",
    ),
    "a try begins without an error": (
        _BROKER, _LEASES + "a_failure_is_tried_again_later_and_each_time_later",
        "            error=None,\n", "",
    ),
    "a lost lease waits for nothing": (
        _BROKER, _LEASES + "a_lost_lease_is_delivered_again_at_once",
        "            self.store.write(job, **QUEUED)\n", '            tasks.retry(self, job, "lost")\n',
    ),
    "the retry rule is the task's": (
        _BROKER, _BOTH + "who_runs_a_task_does_not_change_its_retry_rule",
        'and job["retry_seconds"]:\n', "and False:\n",
    ),
    "a job's failure is final": (
        _TASKS, _BOTH + "who_runs_a_task_does_not_change_its_retry_rule", 'if job["retry_seconds"]:', "if True:",
    ),
    "who waits gets a new task": (
        _BROKER, _LEASES + "a_waiting_agent_gets_a_new_task_and_one_whose_time_has_come",
        "await self.store.changed.wait()", "await asyncio.sleep(99)",
    ),
    "a wait ends": (
        _TASKS, _LEASES + "a_wait_ends", "time.monotonic() + float(wait)", "time.monotonic() + 9",
    ),
    "a dead letter can be queued again": (
        _TASKS, _LEASES + "a_dead_letter_is_queued_again", "finished_at=None, attempts=0)", "finished_at=None)",
    ),
    "only a dead letter is queued again": (
        _TASKS, _LEASES + "only_an_admin_requeues_and_only_the_dead",
        'require(job["outcome"] == "dead",', "require(True,",
    ),
    "a requeued task has other leases": (
        _TASKS, _LEASES + "a_dead_letter_is_queued_again", "finished_at=None, attempts=0)",
        "finished_at=None, attempts=0, lease_epoch=0)",
    ),
    "an agent has capabilities": (
        _TASKS, _LEASES + "an_agent_has_what_its_header_says",
        'frozenset(reading.capabilities(request.headers.get("x-worker-caps")) or ())', "frozenset()",
    ),
    # The same jobs
    "a text is shown as an object": (
        _TASKS, _BOTH + "a_job_is_a_task", 'return {"text": text}\n', 'return {"value": text}\n',
    ),
    "a text comes back as it was": (
        _TASKS, _BOTH + "a_job_is_a_task", "if len(value) == 1 and", "if False and",
    ),
    "no payload is an empty object": (
        _TASKS, _BOTH + "a_job_is_a_task", "ensure_ascii=False) if value else", "ensure_ascii=False) if True else",
    ),
}
# fmt: on
