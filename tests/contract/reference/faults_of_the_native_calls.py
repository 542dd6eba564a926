"""Faults of what is ours: keys, batches, order, times, cancel, requeue, reports, the pause and retention."""

from __future__ import annotations

_BROKER, _NATIVE = "broker", "native"
_QUEUE, _EVENTS = "queue_calls::", "events::"
_JOBS = 'for job in self.store.jobs.values()\n            if job["status"] == "queued"\n'
_NEWS = 'if found or job["outcome"] or job["status"] != status or not await broker.changed(deadline, request):'
# Rule: module, test that must fail, what keeps the rule, what stands there instead.
# fmt: off
NATIVE: dict[str, tuple[str, str, str, str]] = {
    # Idempotency keys
    "a key stands for its job": (
        _BROKER, _QUEUE + "the_same_words_under_a_key_are_answered_with_the_same_job",
        "kept.append(same[0] if same else job)", "kept.append(job)",
    ),
    "an answer under a key says where its job stands": (
        _BROKER, _QUEUE + "the_same_words_under_a_key_are_answered_with_the_same_job",
        '"status": job["status"]}\n\n    def order', '"status": "queued"}\n\n    def order',
    ),
    "other words under a key are refused": (
        _BROKER, _QUEUE + "other_words_under_a_key_are_refused",
        'require(words == job["words"]', 'require(True or words == job["words"]',
    ),
    "a time to begin is one of the words": (
        _BROKER, _QUEUE + "other_words_under_a_key_are_refused", "priority, when],", "priority],",
    ),
    "each submitter has its own keys": (
        _BROKER, _QUEUE + "a_key_is_one_submitters",
        'if (other["idempotency_key"], other["submitter"]) == key]', 'if other["idempotency_key"] == key[0]]',
    ),
    "a key may be in the header": (
        _BROKER, _QUEUE + "a_key_may_be_in_the_header", 'key = request.headers.get("idempotency-key")', "key = None",
    ),
    "keys must agree": (
        _BROKER, _QUEUE + "a_key_may_be_in_the_header",
        'require(values.get("idempotency_key") in', 'require(True or values.get("idempotency_key") in',
    ),
    "keys are checked": (
        _BROKER, "malformed::a_field_of_another_kind_is_named",
        "require(key is None or reading.KEY", "require(True or key is None or reading.KEY",
    ),
    "a key outlives a restart": (
        "store", _QUEUE + "a_key_outlives_a_restart", "return {key: json.loads(value) for key, value in",
        'return {key: json.loads(value) | {"idempotency_key": None} for key, value in',
    ),
    # Batches
    "a batch is in order": (
        _NATIVE, _QUEUE + "a_batch_is_queued_in_its_order",
        "in enumerate(orders)]", "in reversed([*enumerate(orders)])]",
    ),
    "a batch is all or none": (
        _NATIVE, _QUEUE + "a_batch_with_a_job_that_is_wrong_queues_none", "jobs = [order_at(broker, place, order) for",
        "jobs = [broker.enqueue(caller.name, [order_at(broker, place, order)])[0] for",
    ),
    "a batch names what is wrong": (
        _NATIVE, _QUEUE + "a_batch_with_a_job_that_is_wrong_queues_none",
        'f"jobs[{place}]{dot}{refusal.detail}"', "refusal.detail",
    ),
    "a batch is a list of objects": (
        _NATIVE, _QUEUE + "a_batch_that_is_none",
        "isinstance(orders, list) and all(isinstance(order, dict) for order in orders)", "orders is not None",
    ),
    "a batch is bounded": (
        _NATIVE, _QUEUE + "a_batch_has_a_bounded_number_of_jobs",
        "require(len(orders) <= 1000", "require(True or len(orders) <= 1000",
    ),
    "a key twice in a batch is one job": (
        _BROKER, _QUEUE + "a_key_in_a_batch_is_its_jobs",
        "known = [*self.store.jobs.values(), *kept]", "known = [*self.store.jobs.values()]",
    ),
    "a batch has no key of its own": (
        _NATIVE, _QUEUE + "a_key_in_a_batch_is_its_jobs",
        'require("idempotency-key" not in', 'require(True or "idempotency-key" not in',
    ),
    "a batch fits into the queue whole": (
        _BROKER, _QUEUE + "a_batch_fits_into_the_queue_whole_or_not_at_all", "unfinished + new <=", "unfinished + 1 <=",
    ),
    "a batch fits into the minute whole": (
        _BROKER, _QUEUE + "a_batch_fits_into_the_minute_whole_or_not_at_all",
        "len(recent) + asked <=", "len(recent) + 1 <=",
    ),
    "a batch counts whole in the minute": (
        _BROKER, _QUEUE + "a_batch_fits_into_the_minute_whole_or_not_at_all", "[time.time()] * asked", "[time.time()]",
    ),
    "a batch that never fits is told so": (
        _BROKER, _QUEUE + "a_batch_fits_into_the_minute_whole_or_not_at_all",
        "require(asked <= min", "require(True or asked <= min",
    ),
    # Order and times
    "the highest priority comes first": (
        _BROKER, _QUEUE + "the_highest_priority_comes_first_and_of_equals_the_oldest",
        'max(fitting, key=lambda job: job["priority"])', "fitting[0]",
    ),
    "of equals the oldest comes first": (
        _BROKER, _QUEUE + "the_highest_priority_comes_first_and_of_equals_the_oldest",
        'max(fitting, key=lambda job: job["priority"])', 'max(reversed(fitting), key=lambda job: job["priority"])',
    ),
    "priorities hold across routes": (
        _BROKER, _QUEUE + "priorities_hold_across_routes",
        'key=lambda job: job["priority"])', 'key=lambda job: (job["agent"] or "", job["priority"]))',
    ),
    "jobs for others keep nobody's back": (
        _BROKER, _QUEUE + "jobs_for_others_keep_nobodys_back",
        _JOBS, _JOBS.replace("self.store.jobs.values()",
        "sorted(self.store.jobs.values(), key=lambda job: -job['priority'])[:50]"),
    ),
    "a released job has its place among its equals": (
        _BROKER, _QUEUE + "a_released_job_has_its_old_place_among_its_equals",
        'self.store.write(job, **QUEUED, attempts=job["attempts"] - 1)',
        'self.store.jobs.pop(job["id"])\n        self.store.write(job, **QUEUED, attempts=job["attempts"] - 1)',
    ),
    "priorities are checked": (
        _BROKER, "malformed::a_field_of_another_kind_is_named",
        'reading.integer(values, "priority", -100, 100, 400)', 'values.get("priority")',
    ),
    "a job for later waits": (
        _BROKER, _QUEUE + "a_job_for_later_is_nobodys_until_then",
        '"not_before": when if (when or 0) > time.time() else None', '"not_before": None',
    ),
    "a past time means now": (
        _BROKER, _QUEUE + "a_past_time_means_now", "and 0 <= when <= 2**37", "and time.time() <= when <= 2**37",
    ),
    "times to begin are checked": (
        _BROKER, "malformed::a_field_of_another_kind_is_named",
        "require(when is None or", "require(True or when is None or",
    ),
    # Cancel, and dead letters
    "a queued job can be cancelled": (
        _NATIVE, _QUEUE + "a_cancelled_job_is_never_handed_out",
        'if job["outcome"] is None:', 'if job["status"] == "running":',
    ),
    "a running job can be cancelled": (
        _NATIVE, _QUEUE + "a_running_job_that_is_cancelled_has_ended_and_its_worker_is_refused[heartbeat]",
        'if job["outcome"] is None:', 'if job["status"] == "queued":',
    ),
    "what has ended is not cancelled": (
        _NATIVE, _QUEUE + "a_job_that_has_ended_stays_as_it_ended", 'if job["outcome"] is None:', "if True:",
    ),
    "a late cancel is told so": (
        _NATIVE, _QUEUE + "a_job_that_has_ended_stays_as_it_ended", '{"note": "already ended; cancel ignored"}', "{}",
    ),
    "a cancel may be repeated": (
        _NATIVE, _QUEUE + "a_cancel_may_be_repeated",
        'note = {} if job["outcome"] == "cancelled"', 'note = {} if job["error"] == reason',
    ),
    "a cancelled job is told apart": (
        _NATIVE, _QUEUE + "a_cancelled_job_is_never_handed_out", '"outcome": "cancelled", "error"',
        '"outcome": "failed", "error"',
    ),
    "a cancelled job says why": (
        _NATIVE, _QUEUE + "a_cancelled_job_is_never_handed_out", '"error": reason', '"error": "cancelled"',
    ),
    "a cancelled job has no lease": (
        _NATIVE, _QUEUE + "a_running_job_that_is_cancelled_has_ended_and_its_worker_is_refused[heartbeat]",
        "finished_at=time.time(), lease_until=None)", "finished_at=time.time())",
    ),
    "who waits hears of a cancel": (
        _NATIVE, _QUEUE + "who_waits_for_a_job_hears_of_its_cancelling",
        "        job = broker.store.write(job, **ended, f",
        '        broker.store.jobs[job_id] = job = job | {"outcome": "cancelled"}\n        dict(job, **ended, f',
    ),
    "dead letters are listed": (
        _BROKER, _QUEUE + "dead_letters_are_listed_and_queued_again", 'outcome not in (None, job["outcome"])', "False",
    ),
    "a listed outcome is checked": (
        _BROKER, "malformed::a_query_that_cannot_be_understood", "require(outcome in", "require(True or outcome in",
    ),
    "a listed outcome is one of the status": (
        _BROKER, "malformed::a_query_that_cannot_be_understood",
        "require(outcome is None or fits", "require(True or outcome is None or fits",
    ),
    "only dead letters are queued again": (
        _NATIVE, _QUEUE + "dead_letters_are_listed_and_queued_again",
        'require(job["outcome"] == "dead"', 'require(True or job["outcome"] == "dead"',
    ),
    "a dead letter begins anew": (
        _NATIVE, _QUEUE + "dead_letters_are_listed_and_queued_again", "finished_at=None, attempts=0)",
        "finished_at=None)",
    ),
    # The queue
    "what is ready is counted": (
        _NATIVE, _QUEUE + "the_queue_is_counted", '{"ready": len(ready)', '{"ready": 0',
    ),
    "what is put off is counted": (
        _NATIVE, _QUEUE + "the_queue_is_counted", '"delayed": len(queued) - len(ready)', '"delayed": 0',
    ),
    "dead letters are counted": (
        _NATIVE, _QUEUE + "the_queue_is_counted", 'sum(job["outcome"] == "dead" for job in jobs)', "0",
    ),
    "a paused queue hands out nothing": (
        _BROKER, _QUEUE + "a_paused_queue_hands_out_nothing_and_takes_what_comes",
        "if not fitting or self.store.paused:", "if not fitting:",
    ),
    "a paused queue takes what comes": (
        _BROKER, _QUEUE + "a_paused_queue_hands_out_nothing_and_takes_what_comes", "        require(asked <= min",
        '        require(not self.store.paused, 429, "paused", {"retry-after": "2"})\n        require(asked <= min',
    ),
    "what runs goes on in a pause": (
        _BROKER, _QUEUE + "a_paused_queue_hands_out_nothing_and_takes_what_comes",
        '        job = self.leased("heartbeat"',
        '        require(not self.store.paused, 409, "paused")\n        job = self.leased("heartbeat"',
    ),
    "a pause says why": (
        _NATIVE, _QUEUE + "a_paused_queue_hands_out_nothing_and_takes_what_comes",
        '"reason": reason_of(body)}', '"reason": ""}',
    ),
    "a pause says since when": (
        _NATIVE, _QUEUE + "a_paused_queue_hands_out_nothing_and_takes_what_comes",
        '{"since": int(time.time())', '{"since": 0',
    ),
    "the end of a pause wakes who waits": (
        "store", _QUEUE + "a_paused_queue_hands_out_nothing_and_takes_what_comes",
        "        self.paused = pause\n        self.wake()\n", "        self.paused = pause\n",
    ),
    "a pause outlives a restart": (
        "store", _QUEUE + "a_pause_outlives_a_restart", '"SELECT pause FROM pauses"',
        '"SELECT pause FROM pauses WHERE 0"',
    ),
    # Retention
    "jobs are not kept for ever": (
        _BROKER, _QUEUE + "jobs_are_kept_for_a_while_after_their_end", 'self.store.drop(job["id"])', "pass",
    ),
    "what has not ended is kept": (
        _BROKER, _QUEUE + "jobs_are_kept_for_a_while_after_their_end",
        'job["finished_at"] and job["finished_at"] <', '(job["finished_at"] or job["created_at"]) <',
    ),
    "a job is kept for its time": (
        _BROKER, _QUEUE + "a_job_is_kept_until_then", "time.time() - self.kept_seconds", "time.time()",
    ),
    "a job is kept for a month": (
        _BROKER, _QUEUE + "a_job_is_kept_until_then", "str(30 * 86400)", '"2"',
    ),
    "0 keeps for ever": (
        _BROKER, _QUEUE + "a_job_is_kept_until_then", "if self.kept_seconds and job", "if job",
    ),
    # Reports
    "events are read from one on": (
        _NATIVE, _EVENTS + "reports_are_read_from_any_event_on", 'event["id"] > number', 'event["id"] >= number',
    ),
    "events come in pages": (
        _NATIVE, _EVENTS + "reports_are_read_from_any_event_on", "(job_id, after)[:limit]", "(job_id, after)",
    ),
    "a page says where the next begins": (
        _NATIVE, _EVENTS + "reports_are_read_from_any_event_on", 'after = found[-1]["id"] if found else after', "pass",
    ),
    "a report may be repeated": (
        _NATIVE, _EVENTS + "a_report_may_be_repeated", "if place in self.texts or", "if",
    ),
    "each lease has its own offsets": (
        _NATIVE, _EVENTS + "a_report_may_be_repeated", 'place = (job["id"], job["lease_epoch"],',
        'place = (job["id"], 0,',
    ),
    "a report may say two things": (
        _NATIVE, _EVENTS + "a_report_is_as_many_events_as_it_says_things",
        "    if percent is not None or note", "    if not text and (percent is not None) or note",
    ),
    "an empty text is none": (
        _NATIVE, _EVENTS + "a_report_is_as_many_events_as_it_says_things", "    if text:", "    if text is not None:",
    ),
    "a report of nothing is no event": (
        _NATIVE, _EVENTS + "a_report_is_as_many_events_as_it_says_things",
        "    if percent is not None or note is not None:", "    if not text or percent is not None:",
    ),
    "a job shows how far it is": (
        _NATIVE, _EVENTS + "a_job_shows_how_far_it_is", "(job, progress=progress,", '(job, progress=job["progress"],',
    ),
    "a note stays until there is another": (
        _NATIVE, _EVENTS + "a_job_shows_how_far_it_is", 'progress_note=job["progress_note"] if note is None else note',
        "progress_note=note",
    ),
    "a delivery begins without progress": (
        _BROKER, _EVENTS + "a_job_shows_how_far_it_is", "            progress=None,\n", "",
    ),
    "what one job reports is bounded": (
        _NATIVE, _EVENTS + "what_one_job_reports_is_bounded", ' or self.sizes[job["id"]] + size > MOST_REPORTED', "",
    ),
    "reported texts are bounded": (
        _NATIVE, _EVENTS + "a_report_that_cannot_be_understood_is_none",
        'require(len((text or "")', 'require(True or len((text or "")',
    ),
    "reported notes are bounded": (
        _NATIVE, _EVENTS + "a_report_that_cannot_be_understood_is_none",
        'require(len((note or "")', 'require(True or len((note or "")',
    ),
    "offsets are checked": (
        _NATIVE, _EVENTS + "a_report_that_cannot_be_understood_is_none",
        'reading.integer(values, "offset", 0, 2**53, 422)', 'values.get("offset")',
    ),
    "progress is checked": (
        _NATIVE, _EVENTS + "a_report_that_cannot_be_understood_is_none",
        'reading.integer(values, "progress", 0, 100, 422)', 'values.get("progress")',
    ),
    # Followers
    "a follower waits": (
        _NATIVE, _EVENTS + "a_follower_waits_for_news", "or not await broker.changed(deadline, request):", "or True:",
    ),
    "a follower waits for news of its own": (
        _NATIVE, _EVENTS + "a_follower_waits_for_news",
        "or not await broker.changed(deadline, request):", "or await broker.changed(deadline, request) or True:",
    ),
    "a follower hears of another status": (
        _NATIVE, _EVENTS + "a_follower_waits_for_news", 'or job["status"] != status or', "or",
    ),
    "a follower hears of reports": (
        _NATIVE, _EVENTS + "a_follower_waits_for_news", _NEWS, _NEWS.replace("found or ", ""),
    ),
    "a follower's wait ends in time": (
        _NATIVE, _EVENTS + "a_followers_wait_ends", 'reading.seconds(request.query.get("wait"))',
        'reading.seconds(request.query.get("wait")) + 5',
    ),
    "streamed events have their number": (
        _NATIVE, _EVENTS + "a_stream_has_every_event_under_its_number_and_ends_with_the_job",
        'f"id: {after}\\nevent', 'f"event',
    ),
    "streamed events have their type": (
        _NATIVE, _EVENTS + "a_stream_has_every_event_under_its_number_and_ends_with_the_job",
        "event: {event['type']}", "event: message",
    ),
    "a stream begins with the state": (
        _NATIVE, _EVENTS + "a_stream_has_every_event_under_its_number_and_ends_with_the_job",
        "if state != told:", "if told and state != told:",
    ),
    "a state is told once": (
        _NATIVE, _EVENTS + "a_stream_has_every_event_under_its_number_and_ends_with_the_job", "if state != told:",
        "if True:",
    ),
    "a stream ends with its job": (
        _NATIVE, _EVENTS + "a_stream_has_every_event_under_its_number_and_ends_with_the_job",
        'if job["outcome"] or broker.stopping:', "if broker.stopping:",
    ),
    "a stream goes on after an event": (
        _NATIVE, _EVENTS + "a_stream_goes_on_after_the_last_event",
        "return stream(broker, request, job_id, after)", "return stream(broker, request, job_id, 0)",
    ),
    "a stream knows Last-Event-ID": (
        _NATIVE, _EVENTS + "a_stream_goes_on_after_the_last_event", 'request.headers.get("last-event-id")', "None",
    ),
    "Last-Event-ID goes before after": (
        _NATIVE, _EVENTS + "a_stream_goes_on_after_the_last_event",
        'request.headers.get("last-event-id")', 'None if after else request.headers.get("last-event-id")',
    ),
    "a stream has all events": (
        _NATIVE, _EVENTS + "a_stream_of_many_events_has_them_all",
        "for event in broker.reports.after(job_id, after):", "for event in broker.reports.after(job_id, after)[:200]:",
    ),
    "a revoked token ends a stream": (
        _NATIVE, _EVENTS + "a_revoked_token_ends_a_stream",
        '            broker.admit(request, "GET /jobs/{id}/events")\n', "            pass\n",
    ),
}
