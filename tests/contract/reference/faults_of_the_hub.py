"""Faults of the hub: of its calls, its lines, and messages."""

from __future__ import annotations

# Rule: module, test that must fail, what keeps the rule, what stands there instead.
# fmt: off
HUB: dict[str, tuple[str, str, str, str]] = {
    # Registration
    "only an admin registers": (
        "hub", "hub_calls::only_an_admin_registers_cordons_and_removes",
        'call.endswith(("status", "task", "log"))', 'call.endswith(("status", "task", "log", "register"))',
    ),
    "only an admin cordons": (
        "hub", "hub_calls::only_an_admin_registers_cordons_and_removes",
        'call.endswith(("status", "task", "log"))', 'call.endswith(("status", "task", "log", "cordon"))',
    ),
    "only an admin removes": (
        "hub", "hub_calls::only_an_admin_registers_cordons_and_removes",
        'call.endswith(("status", "task", "log"))', 'call.endswith(("status", "task", "log", "{id}"))',
    ),
    "a bot gives tasks": (
        "hub", "hub_calls::a_bot_may_read_and_give_tasks",
        'call.endswith(("status", "task", "log"))', 'call.endswith(("status", "log"))',
    ),
    "the hub's errors have their form": (
        "http", "hub_calls::what_is_about_an_unknown_agent_is_refused",
        'key = "error" if', 'key = "error" if request.headers is None and',
    ),
    "the URL has the token": (
        "hub", "hub_calls::a_registration_is_answered_with_agent_token_and_url",
        "/agent/{name}/{token}", "/agent/{name}/",
    ),
    "what is said at the registration is kept": (
        "hub", "hub_calls::a_registration_is_answered_with_agent_token_and_url",
        "metadata=metadata)", "metadata={})",
    ),
    "no third token": (
        "hub", "hub_calls::a_second_registration_mints_a_second_token_and_a_third_is_refused",
        "count(name) < 2", "count(name) < 3",
    ),
    "a second token": (
        "hub", "hub_calls::a_second_registration_mints_a_second_token_and_a_third_is_refused",
        "count(name) < 2", "count(name) < 1",
    ),
    "names of agents are checked": (
        "hub", "hub_calls::a_malformed_registration_is_refused",
        'reading.NAME.fullmatch(name) and name != "hub"', 'name != "hub"',
    ),
    "the hub's name is its own": (
        "hub", "hub_calls::a_malformed_registration_is_refused",
        'and name != "hub"', "",
    ),
    "types of agents are checked": (
        "hub", "hub_calls::a_malformed_registration_is_refused",
        "and TYPE.fullmatch(kind)", "",
    ),
    "metadata is bounded": (
        "hub", "hub_calls::a_malformed_registration_is_refused",
        "<= 16384", "<= 163840",
    ),
    "agents are found by status": (
        "broker", "hub_calls::agents_are_listed_by_status_and_type",
        'state in (None, agent["status"])', "True",
    ),
    "agents are found by type": (
        "broker", "hub_calls::agents_are_listed_by_status_and_type",
        'and kind in (None, agent["type"])', "",
    ),
    "what is known of agents is on disk": (
        "hub", "hub_calls::what_is_known_of_agents_outlives_the_broker",
        "broker.store.know(name, cordoned", 'broker.store.agents.setdefault(name, {}).update(cordoned',
    ),
    # Tasks
    "a task is for its agent alone": (
        "hub", "hub_calls::a_task_for_an_agent_that_is_away_is_a_job_for_it_alone",
        '"payload": payload, "agent": name}', '"payload": payload}',
    ),
    "a single text is kept as it is": (
        "hub", "hub_calls::what_is_beside_the_type_is_the_payload",
        'if value.keys() == {"text"} and', "if not value and",
    ),
    "types of tasks are checked": (
        "hub", "hub_calls::a_malformed_task_is_refused",
        'broker.order({"command": command', 'broker.order({"command": str(command).lower()',
    ),
    "tasks are bounded": (
        "hub", "hub_calls::a_malformed_task_is_refused",
        "payload = kept(values)\n", "payload = kept(values)[:262144]\n",
    ),
    "tasks leave room": (
        "hub", "hub_calls::a_malformed_task_is_refused", "reading.shallow(value, 400)", "pass",
    ),
    "tasks are for agents that there are": (
        "hub", "hub_calls::what_is_about_an_unknown_agent_is_refused",
        '"agent not found")\n    submission', '"agent not found") if not name else None\n    submission',
    ),
    # Removal and cordon
    "the jobs of a removed agent are cancelled": (
        "hub", "hub_calls::a_removed_agent_has_no_token_and_its_jobs_are_cancelled_with_the_reason",
        '"outcome": "cancelled"', '"outcome": "failed"',
    ),
    "a removed agent's jobs are taken back": (
        "hub", "hub_calls::a_removed_agent_has_no_token_and_its_jobs_are_cancelled_with_the_reason",
        '        if job["worker_id"] == name:\n            broker.take_back',
        "        if not name:\n            broker.take_back",
    ),
    "a removed agent's token ends": (
        "store", "hub_calls::a_removed_agent_has_no_token_and_its_jobs_are_cancelled_with_the_reason",
        '"DELETE FROM tokens WHERE name = ? AND role = \'worker\'"', '"SELECT ?"',
    ),
    "an agent with a configured key is not removed": (
        "hub", "hub_calls::an_agent_whose_key_is_configured_is_not_removed",
        "require(not broker.store.configured(name), 409,", "require(True, 409,",
    ),
    "a removed agent's jobs can be left to others": (
        "hub", "hub_calls::the_jobs_of_a_removed_agent_can_be_left_to_others",
        '{"agent": None} if requeue', "{} if requeue",
    ),
    "a removed agent is forgotten": (
        "store", "hub_calls::a_removed_agent_can_be_registered_again_without_what_was_known",
        "self.agents.pop(name, None)", "pass",
    ),
    "a removed agent's line is closed": (
        "hub", "hub_lines::a_removed_agents_line_is_closed_and_its_token_opens_none",
        "broker.lines.end(name, 4410)", "broker.lines.end(name, 1000)",
    ),
    "a cordoned agent gets nothing": (
        "broker", "hub_calls::a_cordoned_agent_gets_no_new_work",
        "and not cordoned", "",
    ),
    "an agent is uncordoned": (
        "hub", "hub_calls::a_cordoned_agent_gets_no_new_work",
        'cordoned=request.path.endswith("/cordon")', "cordoned=True",
    ),
    # Metrics
    "envelopes are counted": (
        "hub", "hub_calls::metrics",
        'self.counts["out", kind] += 1', 'self.counts["out", ""] += 1',
    ),
    "running jobs are counted": (
        "hub", "hub_calls::metrics",
        '"vm_hub_active_tasks": running', '"vm_hub_active_tasks": len(jobs)',
    ),
    "agents are counted by status": (
        "hub", "hub_calls::metrics",
        'agents[word] for word in ("online", "offline")', 'agents[word] for word in ("online",)',
    ),
    # Lines
    "the token may be in a header": (
        "hub", "hub_lines::the_token_may_be_in_a_header",
        "token = rest[0] if rest else bearer", 'token = rest[0] if rest else ""',
    ),
    "a line needs a token": (
        "hub", "hub_lines::a_bad_token_closes_the_line",
        'require(owner, 4401, "bad token")', "owner = owner or name",
    ),
    "a line needs a worker's token": (
        "hub", "hub_lines::a_bad_token_closes_the_line",
        "        require(owner, 4401",
        '        owner = owner or (name if self.store.owner("admin", token) else None)\n'
        "        require(owner, 4401",
    ),
    "a line needs one's own token": (
        "hub", "hub_lines::anothers_token_closes_the_line",
        'require(owner == name, 4403, "another\'s name")', "pass",
    ),
    "a revoked token is not heard": (
        "hub", "hub_lines::a_line_whose_token_is_revoked_is_closed_before_anything_is_done[response]",
        "if self.good(line):", "if True:",
    ),
    "a revoked token is told nothing": (
        "hub", "hub_lines::a_line_whose_token_is_revoked_is_closed_before_anything_is_done[post]",
        "while self.good(line):", "while self.lines.get(line.name) is line:",
    ),
    "a new line takes the place of the earlier": (
        "hub", "hub_lines::a_new_line_takes_the_place_of_the_earlier_one",
        "self.end(line.name, 4409)", "pass",
    ),
    "a task is pushed at once": (
        "hub", "hub_lines::a_task_is_pushed_the_moment_it_exists",
        "await changed.wait()", "await asyncio.sleep(3)",
    ),
    "an envelope has all its keys": (
        "hub", "hub_lines::a_task_is_pushed_the_moment_it_exists",
        '"to": line.name, "type": kind}', '"type": kind}',
    ),
    "times are milliseconds": (
        "hub", "hub_lines::a_task_is_pushed_the_moment_it_exists",
        'envelope |= {"timestamp": int(time.time() * 1000)', 'envelope |= {"timestamp": int(time.time())',
    ),
    "a cancel is told to who runs the job": (
        "hub", "hub_lines::who_runs_a_cancelled_job_is_told_at_once_and_given_the_next",
        'and job["status"] == "running":', "and False:",
    ),
    "a cancel names its lease": (
        "hub", "hub_lines::who_runs_a_cancelled_job_is_told_at_once_and_given_the_next",
        '"leaseEpoch": job["lease_epoch"], "reason": reason}', '"reason": reason}',
    ),
    "a cancel is told to nobody else": (
        "hub", "hub_lines::who_does_not_run_a_cancelled_job_is_told_nothing",
        'self.lines.get(job["worker_id"] or "")\n'
        '        if line and line.given.get(job["id"]) == job["lease_epoch"] and job["status"] == "running":',
        'self.lines.get(job["agent"] or "")\n'
        "        if line:",
    ),
    "a task has its lease": (
        "hub", "hub_lines::a_task_is_pushed_the_moment_it_exists",
        '{"leaseEpoch": job["lease_epoch"],', '{"leaseEpoch": 0,',
    ),
    "a task says how long its lease is": (
        "hub", "hub_lines::a_task_is_pushed_the_moment_it_exists",
        ', "leaseSeconds": job["lease_seconds"]}', "}",
    ),
    "a task says how often it may be delivered": (
        "hub", "hub_lines::a_job_of_another_dialect_is_a_task",
        'lease["maxDeliveries"] = job["max_deliveries"]', 'lease["maxDeliveries"] = 5',
    ),
    "a task of the hub's says that it is one": (
        "hub", "hub_calls::what_is_beside_the_type_is_the_payload", '{"dialect": "hub"}', '{"dialect": "jobs"}',
    ),
    "registered capabilities count": (
        "hub", "hub_lines::a_job_of_another_dialect_is_a_task",
        'frozenset(self.store.agents[name]["capabilities"])', "frozenset()",
    ),
    "a text is shown as an object": (
        "hub", "hub_lines::a_job_of_another_dialect_is_a_task",
        'return {"text": text}', 'return {"payload": text}',
    ),
    "slots are kept to": (
        "hub", "hub_lines::an_agent_gets_as_many_tasks_as_it_has_slots",
        "len(held) < line.slots and", "",
    ),
    "one task at a time": (
        "hub", "hub_lines::a_task_for_an_agent_that_is_away_is_delivered_when_it_comes",
        'request.query.get("slots", "1")', 'request.query.get("slots", "2")',
    ),
    "a failure ends the job": (
        "hub", "hub_lines::a_response_ends_the_job",
        '"error": text or "unknown"', '"error": text',
    ),
    "a job can be given back": (
        "hub", "hub_lines::a_response_ends_the_job",
        'if said.get("released") is True', "if False",
    ),
    "the first response counts": (
        "hub", "hub_lines::a_response_that_is_sent_again_changes_nothing",
        'if job["outcome"] is None:', "if True:",
    ),
    "a stale epoch is refused": (
        "hub", "hub_lines::a_stale_lease_is_refused",
        'require(epoch in (None, job["lease_epoch"])', "require(True",
    ),
    "a job is its holder's": (
        "hub", "hub_lines::another_agents_job_cannot_be_ended",
        '        if job["outcome"] is None:\n            require(mine and',
        '        if job["outcome"] is None:\n            require(',
    ),
    "a job that nobody was given cannot be ended": (
        "hub", "hub_lines::a_job_that_nobody_was_given_cannot_be_ended",
        '        if job["outcome"] is None:\n            require(mine and',
        '        if job["outcome"] is None:\n            require(not job["lease_epoch"] or mine and',
    ),
    # Leases
    "health is kept": (
        "hub", "hub_lines::health_is_kept_and_renews_what_it_lists",
        'if name in said}', "if name in said and 0}",
    ),
    "health renews": (
        "hub", "hub_lines::health_is_kept_and_renews_what_it_lists",
        'self.store.write(mine[job_id], lease_until=time.time() + mine[job_id]["lease_seconds"])', "pass",
    ),
    "health without a list renews": (
        "hub", "hub_lines::health_without_a_list_renews_what_the_line_was_given",
        "line.given if listed is None", "{} if listed is None",
    ),
    "an agent may want no more": (
        "hub", "hub_lines::an_agent_that_wants_no_more_is_given_nothing_and_keeps_what_it_has",
        "        line.slots = slots\n", "        line.slots = max(slots, 1)\n",
    ),
    "slots are a number": (
        "hub", "hub_lines::a_number_of_slots_that_is_none_is_refused", "type(slots) is int", "slots is not None",
    ),
    "slots are bounded": (
        "hub", "hub_lines::a_number_of_slots_that_is_none_is_refused", "0 <= slots <= 64", "0 <= slots",
    ),
    "a lost lease ends the line": (
        "broker", "hub_lines::a_lost_lease_ends_the_line_and_the_job_is_delivered_on_the_next",
        'self.lines.end(job["worker_id"], 4408)', "pass",
    ),
    "a lost lease is told": (
        "hub", "hub_lines::a_lost_lease_ends_the_line_and_the_job_is_delivered_on_the_next",
        'if job_id in mine and mine[job_id]["lease_epoch"] == epoch]', "]",
    ),
    "what an agent does not list is delivered again": (
        "hub", "hub_lines::an_agent_whose_line_was_cut_keeps_what_it_says_it_holds",
        "self.broker.take_back(mine[job_id])", "pass",
    ),
    "what an agent lists is its own": (
        "hub", "hub_lines::an_agent_whose_line_was_cut_keeps_what_it_says_it_holds",
        "mine.keys() - leases.keys() - line.given.keys()", "mine.keys() - line.given.keys()",
    ),
    "what is on its way is not taken back": (
        "hub", "hub_lines::what_was_given_on_a_new_line_is_not_taken_back_by_its_greeting",
        "mine.keys() - leases.keys() - line.given.keys()", "mine.keys() - leases.keys()",
    ),
    "a restart is told": (
        "serve", "hub_lines::a_broker_that_restarts_loses_nothing_of_a_line",
        "broker.lines.end(name, 1012)", "broker.lines.end(name, 1000)",
    ),
    "logs are kept": (
        "hub", "hub_lines::what_an_agent_logs_can_be_read",
        "self.logs[line.name].append(", "str(",
    ),
    "log lines are cut": (
        "hub", "hub_lines::what_an_agent_logs_can_be_read",
        "text[:4096]", "text",
    ),
    "logs are read from a number on": (
        "hub", "hub_lines::what_an_agent_logs_can_be_read",
        'if entry["n"] > after]', "]",
    ),
    "logs are bounded": (
        "hub", "hub_lines::the_lines_that_are_kept_are_bounded",
        'broker.lines.logs[name][-1000:]', "broker.lines.logs[name][:1000]",
    ),
    # Messages
    "a message is from its sender": (
        "hub", "hub_lines::a_message_reaches_another_agent_and_is_no_job",
        'text = json.dumps(envelope |', 'text = json.dumps(envelope | {"from": "hub"} |',
    ),
    "messages are on disk": (
        "store", "hub_lines::messages_are_kept_in_order_until_the_other_agent_has_them",
        "messages (n INTEGER PRIMARY KEY, recipient", "temp.messages (n INTEGER PRIMARY KEY, recipient",
    ),
    "messages come in order": (
        "store", "hub_lines::messages_are_kept_in_order_until_the_other_agent_has_them",
        "envelope != '' ORDER BY n", "envelope != '' ORDER BY id",
    ),
    "a message comes once": (
        "hub", "hub_lines::messages_are_kept_in_order_until_the_other_agent_has_them",
        "self.store.received([n for n, _ in waiting])", "await asyncio.sleep(9)",
    ),
    "a message that is sent again is the same": (
        "store", "hub_lines::messages_are_kept_in_order_until_the_other_agent_has_them",
        'if not self._db.execute("SELECT 1 FROM messages', 'if "" == self._db.execute("SELECT 1 FROM messages',
    ),
    "messages are for agents that there are": (
        "hub", "hub_lines::a_message_to_nobody_is_refused",
        'require(envelope["to"] in self.broker.names(), 404, "agent not found")', "pass",
    ),
    "messages are bounded": (
        "hub", "hub_lines::the_messages_that_wait_are_bounded",
        "MAX_MESSAGE = 65536", "MAX_MESSAGE = 655360",
    ),
    # What is malformed, or too much
    "an envelope has an id": (
        "hub", "hub_lines::a_malformed_envelope_is_told_so_and_the_line_stays",
        'require(reading.text({"id": None} | values, "id", 400), 400, "id must be a text")', "pass",
    ),
    "an envelope has a type": (
        "hub", "hub_lines::a_malformed_envelope_is_told_so_and_the_line_stays",
        'require(values.get("type") in HEAR, 400, "type must be one of four")',
        'values["type"] = values["type"] if values.get("type") in HEAR else "health"',
    ),
    "nobody speaks for another": (
        "hub", "hub_lines::a_malformed_envelope_is_told_so_and_the_line_stays",
        'require(values["from"] == line.name, 400, "from must be the agent")', "pass",
    ),
    "health is measures": (
        "hub", "hub_lines::a_malformed_envelope_is_told_so_and_the_line_stays",
        'require(all(isinstance(value, int | float | dict) for value in measures.values()), 400, "no measures")',
        "pass",
    ),
    "health is bounded": (
        "hub", "hub_lines::a_malformed_envelope_is_told_so_and_the_line_stays",
        'require(len(json.dumps(measures)) <= 4096, 413, "health too large")', "pass",
    ),
    "logs are texts": (
        "hub", "hub_lines::a_malformed_envelope_is_told_so_and_the_line_stays",
        'require(isinstance(texts, list) and all(isinstance(text, str) for text in texts), 400, "lines must be texts")',
        "texts = []",
    ),
    "bytes are no envelope": (
        "hub", "hub_lines::a_malformed_envelope_is_told_so_and_the_line_stays",
        'require(opcode == frames.TEXT, 400, "an envelope is a text")',
        """data = data if opcode == frames.TEXT else b'{"id": "1", "type": "health"}'""",
    ),
    "envelopes are bounded": (
        "hub", "hub_lines::an_envelope_is_bounded",
        "frames.receive(reader, self.broker.max_body)", "frames.receive(reader, 2**30)",
    ),
    "results are bounded": (
        "hub", "hub_lines::a_result_is_bounded",
        "len(text.encode()) <= self.broker.max_result", "True",
    ),
    "envelopes are read at a pace": (
        "hub", "hub_lines::who_sends_too_fast_is_read_no_faster",
        "(count - 100) / 50", "(count - 100) / 50000",
    ),
}
