"""Faults of the calls: of what is submitted, read, refused and answered."""

from __future__ import annotations

# Rule: module, test that must fail, what keeps the rule, what stands there instead.
# fmt: off
CALLS: dict[str, tuple[str, str, str, str]] = {
    # Submissions
    "commands are checked": (
        "broker", "malformed::a_command_that_is_none",
        "require(reading.COMMAND", "require(True or reading.COMMAND",
    ),
    "commands are trimmed": (
        "broker", "seed_readme::the_content_type_is_not_looked_at",
        "command.strip() if", "command if",
    ),
    "the content type is not looked at": (
        "broker", "seed_readme::the_content_type_is_not_looked_at",
        'values = reading.json_object(body or b"{}", 400)',
        'require("json" in _request.headers.get("content-type", "json"), 400, "no JSON")\n'
        '        values = reading.json_object(body or b"{}", 400)',
    ),
    "only listed commands are accepted": (
        "broker", "limits::only_listed_commands_are_accepted",
        "require(not self.commands", "require(True or not self.commands",
    ),
    "no payload is an empty one": (
        "broker", "seed_readme::payloads_are_kept_as_they_are",
        'reading.optional_text(values, "payload", 400) or ""', 'reading.text(values, "payload", 400)',
    ),
    "payloads are kept as they are": (
        "broker", "seed_readme::payloads_are_kept_as_they_are",
        '"payload": payload,', '"payload": payload.replace("\\0", ""),',
    ),
    "payloads are bounded": (
        "broker", "malformed::a_payload_has_a_bounded_size_in_utf8",
        "require(len(payload.encode())", "require(True or len(payload.encode())",
    ),
    "payloads are measured in bytes": (
        "broker", "malformed::a_payload_has_a_bounded_size_in_utf8",
        "len(payload.encode())", "len(payload)",
    ),
    "unknown keys are ignored": (
        "broker", "seed_readme::payloads_are_kept_as_they_are",
        'command = values.get("command")', 'command = values.get("command") if len(values) < 4 else None',
    ),
    "the broker makes the id": (
        "broker", "seed_readme::payloads_are_kept_as_they_are",
        '"id": str(uuid.uuid4())', '"id": values.get("id") or str(uuid.uuid4())',
    ),
    "the id is a random UUID": (
        "broker", "seed_readme::a_submission_is_answered_with_id_and_status",
        '"id": str(uuid.uuid4())', '"id": str(uuid.uuid1())',
    ),
    "requirements fail closed": (
        "reading", "routing::a_requirement_that_cannot_be_understood_is_refused",
        'require(well, 400, "requires', 'require(True or well, 400, "requires',
    ),
    "requirements know capabilities only": (
        "reading", "routing::a_requirement_that_cannot_be_understood_is_refused",
        'parsed.keys() <= {"caps"}', "True",
    ),
    "needed capabilities are checked": (
        "reading", "routing::a_requirement_that_cannot_be_understood_is_refused",
        "and all(map(_CAPABILITY.fullmatch, names))", "",
    ),
    "requirements are bounded": (
        "reading", "routing::a_requirement_has_a_bounded_size",
        "require(len(written", "require(True or len(written",
    ),
    "requirements are kept as written": (
        "reading", "routing::no_requirement_fits_every_worker",
        "return written, names", 'return json.dumps({"caps": names}), names',
    ),
    "a requirement may be text": (
        "reading", "routing::a_requirement_may_be_an_object_or_its_text[text]",
        "return written, names", "return written, [] if isinstance(given, str) else names",
    ),
    "blank capabilities count for nothing": (
        "reading", "routing::no_requirement_fits_every_worker",
        "names = [name.strip() for name in listed if name.strip()]\n        well",
        "names = [name.strip() for name in listed]\n        well",
    ),
    "agents are checked": (
        "broker", "malformed::a_field_of_another_kind_is_named",
        'require(agent is None or reading.NAME.fullmatch(agent), 400, "agent must be a name"',
        'require(True or agent is None or reading.NAME.fullmatch(agent), 400, "agent must be a name"',
    ),
    "max_deliveries is checked": (
        "broker", "malformed::a_field_of_another_kind_is_named",
        "require(type(deliveries)", "require(True or type(deliveries)",
    ),
    "max_deliveries is no truth value": (
        "broker", "malformed::a_field_of_another_kind_is_named",
        "type(deliveries) is int", "isinstance(deliveries, int)",
    ),
    "five deliveries unless said otherwise": (
        "broker", "seed_readme::a_queued_job",
        "deliveries = 5 if", "deliveries = 3 if",
    ),
    "the queue is bounded": (
        "broker", "limits::the_queue_is_bounded_by_its_unfinished_jobs",
        "require(unfinished +", "require(True or unfinished +",
    ),
    "a running job counts in the queue": (
        "broker", "limits::the_queue_is_bounded_by_its_unfinished_jobs",
        'job["status"] in ("queued", "running") for', 'job["status"] == "queued" for',
    ),
    "an ended job frees its place": (
        "broker", "limits::the_queue_is_bounded_by_its_unfinished_jobs",
        'sum(job["status"] in ("queued", "running") for job in self.store.jobs.values())', "len(self.store.jobs)",
    ),
    "a full queue names a time": (
        "broker", "limits::the_queue_is_bounded_by_its_unfinished_jobs",
        '"job queue limit reached", {"retry-after": "2"}', '"job queue limit reached"',
    ),
    "the rate is bounded": (
        "broker", "limits::submissions_are_bounded_per_minute_and_bot",
        "require(len(recent)", "require(True or len(recent)",
    ),
    "too high a rate names a time": (
        "broker", "limits::submissions_are_bounded_per_minute_and_bot",
        '"rate limit exceeded", {"retry-after": "60"}', '"rate limit exceeded"',
    ),
    "each bot has its own rate": (
        "broker", "limits::submissions_are_bounded_per_minute_and_bot",
        "self.bound(bot, ", "self.bound(None, ",
    ),
    # Reading jobs and agents
    "the seed's keys come first": (
        "broker", "seed_readme::a_job_has_the_seeds_keys_first_then_the_native_ones",
        "for key in KEYS}", "for key in sorted(KEYS)}",
    ),
    "no key is left out": (
        "broker", "seed_readme::a_queued_job",
        "    return public\n", "    return {key: value for key, value in public.items() if value is not None}\n",
    ),
    "times are whole seconds": (
        "broker", "seed_readme::a_queued_job",
        "int(job[key]) if key in TIMES", "job[key] if key in TIMES",
    ),
    "an unknown job is 404": (
        "broker", "seed_readme::an_unknown_job_is_404",
        'self.store.jobs, 404, "job', 'self.store.jobs, 400, "job',
    ),
    "jobs are listed newest first": (
        "broker", "native_calls::jobs_are_listed_newest_first_in_pages",
        "reversed([*enumerate(self.store.jobs.values(), 1)])", "enumerate(self.store.jobs.values(), 1)",
    ),
    "a page has its limit": (
        "broker", "native_calls::jobs_are_listed_newest_first_in_pages",
        "len(page) == limit", "len(page) == 50",
    ),
    "a page is bounded": (
        "broker", "native_calls::a_page_has_a_bounded_size",
        " or size >= 2**20", "",
    ),
    "a page names the next": (
        "broker", "native_calls::jobs_are_listed_newest_first_in_pages",
        '"cursor": str(n + 1)', '"cursor": None',
    ),
    "no job is between two pages": (
        "broker", "native_calls::jobs_are_listed_newest_first_in_pages",
        '"cursor": str(n + 1)', '"cursor": str(n)',
    ),
    "jobs are listed by status": (
        "broker", "native_calls::jobs_are_listed_newest_first_in_pages",
        'status not in (None, job["status"])', "False",
    ),
    "jobs are listed by agent": (
        "broker", "native_calls::jobs_are_listed_newest_first_in_pages",
        'agent not in (None, job["worker_id"] or job["agent"])', "False",
    ),
    "a listed status is checked": (
        "broker", "malformed::a_query_that_cannot_be_understood",
        "require(status in", "require(True or status in",
    ),
    "a listed agent is checked": (
        "broker", "malformed::a_query_that_cannot_be_understood",
        'require(agent is None or reading.NAME.fullmatch(agent), 400, "agent must be the',
        'require(True or agent is None or reading.NAME.fullmatch(agent), 400, "agent must be the',
    ),
    "numbers in a query are checked": (
        "reading", "malformed::a_query_that_cannot_be_understood",
        "least <= int(given) <= most", "True",
    ),
    "numbers in a query are plain": (
        "reading", "malformed::a_query_that_cannot_be_understood",
        're.fullmatch("[0-9]{1,19}", given)', "given.isdigit()",
    ),
    "agents are known from their calls": (
        "broker", "native_calls::agents_are_known_from_their_calls",
        "        if name:\n", "        if name and False:\n",
    ),
    "agents say their version": (
        "store", "native_calls::agents_are_known_from_their_calls",
        '{"runner_version": version} if version else {}', "{}",
    ),
    "what a call does not say stays": (
        "store", "native_calls::agents_are_known_from_their_calls",
        '{"runner_version": version} if version else {}', '{"runner_version": version or None}',
    ),
    "agents say what they can": (
        "store", "native_calls::agents_are_known_from_their_calls",
        '{} if caps is None else {"capabilities": sorted(caps)}', "{}",
    ),
    "agents show what they run": (
        "broker", "native_calls::agents_are_known_from_their_calls",
        '"running": running}', '"running": []}',
    ),
    "an agent that never called is offline": (
        "broker", "tokens::an_agent_is_known_from_its_token_on",
        'else "offline"', 'else "online"',
    ),
    "an agent is known from its token on": (
        "broker", "tokens::an_agent_is_known_from_its_token_on",
        "*self.store.minted(), ", "",
    ),
    "health needs no token": (
        "broker", "seed_readme::health_needs_no_token_and_says_nothing_else",
        'request.path == "/health":\n', 'request.path == "/health":\n            self.admit(request, "POST /jobs")\n',
    ),
    "health says how it is bound": (
        "broker", "seed_readme::health_needs_no_token_and_says_nothing_else",
        '"ts_bound": True', '"ts_bound": False',
    ),
    # Tokens
    "a worker may read a job": (
        "broker", "seed_readme::a_job_can_be_read_by_bot_and_worker",
        '"GET /jobs/{id}": ["bot", "worker"]', '"GET /jobs/{id}": ["bot"]',
    ),
    "a token counts whole": (
        "reading", "seed_readme::the_token_comes_first",
        "token in [os.environ.get(name) for name in names]",
        'any(token[:-1] in os.environ.get(name, "") for name in names)',
    ),
    "401 names the token": (
        "broker", "seed_readme::the_token_comes_first",
        'f"bad {roles[0]} token" if len(roles) == 1 else "bad token"', '"bad token"',
    ),
    "the token comes before the job": (
        "broker", "seed_readme::the_token_comes_first[GET-/jobs/none-bad token]",
        "        role, owner = self.admit(request, call)\n",
        "        job_id and self.find(*job_id)\n        role, owner = self.admit(request, call)\n",
    ),
    "the token comes before the body": (
        "broker", "seed_readme::the_token_comes_first",
        "        role, owner = self.admit(request, call)\n",
        "        body = await request.body(MAX_BODY)\n"
        "        reading.json_object(body or b'{}', 400)\n"
        "        request.body = lambda _: asyncio.sleep(0, body)\n"
        "        role, owner = self.admit(request, call)\n",
    ),
    "no tokens, no entry": (
        "reading", "tokens::no_tokens_no_entry",
        'return token != "" and token in', "return token in",
    ),
    "a minted token is bound to its name": (
        "broker", "tokens::a_minted_token_works_at_once_under_its_own_name_only",
        "require(owner in (None, name)", "require(True or owner in (None, name)",
    ),
    "a minted token gives its name": (
        "broker", "tokens::a_minted_token_works_at_once_under_its_own_name_only",
        '.get("x-worker-id", "").strip() or owner', '.get("x-worker-id", "").strip()',
    ),
    "an admin's token does for a bot's": (
        "broker", "tokens::an_admins_token_does_for_a_bots_and_for_no_workers",
        '"bot": ["bot", "admin"]', '"bot": ["bot"]',
    ),
    "an admin is no worker": (
        "broker", "tokens::an_admins_token_does_for_a_bots_and_for_no_workers",
        '"worker": ["worker"],', '"worker": ["worker", "admin"],',
    ),
    "a minted token has a role": (
        "store", "tokens::a_minted_token_works_at_once_under_its_own_name_only",
        'WHERE role = ? AND digest = ?"\n', 'WHERE ? != role AND digest = ?"\n',
    ),
    "a minted worker touches its own leases only": (
        "broker", "tokens::a_minted_worker_cannot_touch_anothers_lease",
        "return Caller(name, frozenset", "return Caller(None if owner else name, frozenset",
    ),
    "a revoked token is refused": (
        "store", "tokens::a_revoked_token_is_refused_within_a_second",
        '"DELETE FROM tokens WHERE name = ?"', '"SELECT ?"',
    ),
    "a revoked worker gets nothing": (
        "broker", "tokens::a_worker_whose_token_is_revoked_while_it_waits_gets_no_job",
        '            self.admit(request, "GET /jobs/next")\n', "",
    ),
    "no token is kept as it is": (
        "store", "tokens::no_token_is_in_the_log_or_the_database",
        'hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()', "token",
    ),
    "no token is in the log": (
        "broker", "tokens::no_token_is_in_the_log_or_the_database",
        '        raise RefusedError(401, f"bad',
        '        print(request.headers, file=os.fdopen(2, "w", closefd=False))\n        raise RefusedError(401, f"bad',
    ),
    # Requests
    "unknown paths are 404": (
        "broker", "seed_readme::unknown_calls[GET-/-404-Not Found]",
        'require(allowed, 404, "Not Found")', "pass",
    ),
    "another method is 405": (
        "broker", "seed_readme::unknown_calls[DELETE-/jobs-405-Method Not Allowed]",
        'require(allowed, 404, "Not Found")', 'require(False, 404, "Not Found")',
    ),
    "405 names what is allowed": (
        "broker", "seed_readme::unknown_calls[DELETE-/jobs-405-Method Not Allowed]",
        '"Method Not Allowed", {"allow": ", ".join(allowed)}', '"Method Not Allowed"',
    ),
    "what is no JSON is refused": (
        "reading", "malformed::a_body_that_is_not_json",
        'invalid(status, "json_invalid")', 'return {"command": "ping", "result": ""}',
    ),
    "JSON is UTF-8": (
        "reading", "malformed::a_body_that_is_not_json",
        "json.loads(body.decode(), ", "json.loads(body, ",
    ),
    "NaN is no JSON": (
        "reading", "malformed::a_body_that_is_not_json[NaN]",
        "body.decode(), parse_constant=_refuse, ", "body.decode(), ",
    ),
    "a number has an end": (
        "reading", "malformed::a_body_that_is_not_json[endless number]",
        "parse_float=_finite", "parse_float=float",
    ),
    "a body is an object": (
        "reading", "malformed::a_body_that_is_not_an_object",
        'invalid(status, "model_attributes_type")', 'return {"command": "ping", "result": ""}',
    ),
    "nesting is bounded": (
        "reading", "malformed::a_body_that_is_nested_too_deeply",
        "_depth(value) > 32", "False",
    ),
    "texts are texts": (
        "reading", "malformed::a_field_of_another_kind_is_named",
        'invalid(status, "string_type", name)', "return str(value)",
    ),
    "texts are Unicode": (
        "reading", "malformed::a_field_of_another_kind_is_named",
        'invalid(status, "string_unicode", name)', 'return value.encode("utf-8", "replace").decode()',
    ),
    "422 has the seed's form": (
        "reading", "malformed::a_report_that_cannot_be_understood_changes_nothing",
        "form if status == 422 else words", "words",
    ),
    "422 names the field": (
        "reading", "malformed::a_report_that_cannot_be_understood_changes_nothing",
        'loc = ["body", name] if name else ["body"]', 'loc = ["body"]',
    ),
    "X-Worker-Id is checked": (
        "broker", "malformed::a_header_that_cannot_be_understood",
        "require(not name or", "require(True or not name or",
    ),
    "X-Runner-Version is checked": (
        "broker", "malformed::a_header_that_cannot_be_understood",
        "require(not version or", "require(True or not version or",
    ),
    "X-Lease-Epoch is checked": (
        "reading", "malformed::a_header_that_cannot_be_understood",
        "well = re.fullmatch(", 'well = name.startswith("X") or re.fullmatch(',
    ),
    "strange bytes in a token are a wrong token": (
        "store", "malformed::strange_bytes_in_a_token_are_a_wrong_token",
        'token.encode("utf-8", "replace")', 'token.encode("ascii")',
    ),
    "what is no HTTP is refused": (
        "http", "malformed::a_request_that_is_not_http",
        'raise RefusedError(400, "this is no HTTP")', 'return Request("GET", "/health", {}, {}, reader, False)',
    ),
    "a body has one length": (
        "http", "malformed::a_request_that_is_not_http",
        "require(len(lengths) <= 1", "require(True or len(lengths) <= 1",
    ),
    "a length is a number": (
        "http", "malformed::a_request_that_is_not_http",
        "require(all(re.fullmatch(", "require(True or all(re.fullmatch(",
    ),
    "bodies are bounded": (
        "http", "limits::a_body_that_says_it_is_too_large",
        "require(size <= most", "require(True or size <= most",
    ),
    "a body of exactly the limit is read": (
        "http", "limits::a_body_of_exactly_the_limit_is_read",
        "size <= most", "size < most",
    ),
    "streamed bodies are bounded": (
        "http", "limits::a_streamed_body_is_counted",
        "require(len(body) <= most", "require(True or len(body) <= most",
    ),
    "endless bodies are not kept": (
        "http", "limits::an_endless_body_is_not_kept",
        "require(len(body) <= most", "require(True or len(body) <= most",
    ),
    "heads are bounded": (
        "http", "limits::an_endless_head_is_refused_and_not_kept[value]",
        "MAX_HEAD_BYTES = 32768", "MAX_HEAD_BYTES = 2**30",
    ),
    "a large head is refused with a message": (
        "http", "limits::a_large_head_is_refused_with_a_message",
        '_answer(writer, 431, {"detail": "request head too large"}, _CLOSE)', "pass",
    ),
    "a client that goes is no error": (
        "http", "limits::a_client_that_goes_in_the_middle_of_its_body_is_no_error_of_ours",
        "(asyncio.IncompleteReadError, ConnectionError)", "ConnectionError",
    ),
    "connections are bounded": (
        "http", "limits::connections_are_bounded",
        "require(self._open <= self._most", "require(True or self._open <= self._most",
    ),
    "a connection that has gone frees its place": (
        "http", "limits::connections_are_bounded",
        "            self._open -= 1\n", "",
    ),
    # Answers
    "success is 200": (
        "http", "seed_readme::a_submission_is_answered_with_id_and_status",
        "_answer(writer, 200, ", "_answer(writer, 201, ",
    ),
    "answers say that they are JSON": (
        "http", "seed_readme::health_needs_no_token_and_says_nothing_else",
        '"content-type": "application/json"', '"content-type": "text/plain"',
    ),
    "errors have one shape": (
        "http", "seed_readme::a_result_of_a_queued_job_is_refused",
        '_answer(writer, refusal.status, {key: refusal.detail}, refusal.headers',
        '_answer(writer, refusal.status, {"error": refusal.detail}, refusal.headers',
    ),
    "answers are written closely": (
        "http", "seed_readme::the_readmes_six_curl_examples",
        'separators=(",", ":")', "",
    ),
}
