"""The trail of what changed something."""

from __future__ import annotations

import asyncio
import json
import syslog
from typing import TYPE_CHECKING

from broker_app.__main__ import main
from broker_app.audit import FILES, Audit

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_says_when_and_what_is_known(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "b.db")
    audit.note(1.5, who="a", what="x" * 1000, job=None)
    audit.note(2, who="b\n{")
    assert lines(audit.path) == [
        {"when": "1970-01-01T00:00:01.500+00:00", "who": "a", "what": "x" * 256},
        {"when": "1970-01-01T00:00:02.000+00:00", "who": "b\n{"},
    ]
    assert audit.path.stat().st_mode & 0o777 == 0o600


def test_full_files_are_set_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "b.db", most=200)
    for n in range(101):
        audit.note(n, who=str(n))
    files = sorted(tmp_path.iterdir())
    assert len(files) == FILES
    assert all(file.stat().st_size < 300 for file in files)
    found = [int(line["who"]) for file in reversed(files) for line in lines(file)]
    assert found == list(range(101 - len(found), 101))


def test_it_is_only_ever_appended_to_and_follows_no_link(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "other").write_text("mine")
    (tmp_path / "b.db.audit.jsonl").symlink_to(tmp_path / "other")
    Audit(tmp_path / "b.db").note(1, who="a")
    assert (tmp_path / "other").read_text() == "mine"
    assert "cannot write" in caplog.text


def test_what_cannot_be_written_fails_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Audit(tmp_path / "nowhere" / "b.db").note(1, who="a")
    assert "cannot write" in caplog.text


def test_it_is_in_the_journal_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        Audit(tmp_path / "b.db").note(1, who="somebody")
    assert '"who": "somebody"' in caplog.text


def test_tokens_of_the_command_line_are_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    monkeypatch.setattr(syslog, "syslog", told.append)
    monkeypatch.setenv("BROKER_DB", str(tmp_path / "b.db"))
    monkeypatch.setenv("SUDO_USER", "alice")
    commands = [["mint", "a", "--role", "admin"], ["revoke", "a"], ["revoke", "a"]]
    assert [main(["token", *command]) for command in commands] == [0, 0, 1]
    token = capsys.readouterr().out.splitlines()[0]
    text = Audit(tmp_path / "b.db").path.read_text()
    assert token not in text
    found = [
        (entry["who"], entry["what"], entry["agent"], entry["outcome"].partition(":")[0])
        for entry in map(json.loads, text.splitlines())
    ]
    who = "user alice"
    assert found == [(who, "mint", "a", "done"), (who, "revoke", "a", "done"), (who, "revoke", "a", "refused")]
    assert told == text.splitlines()  # the journal's


def test_what_one_moment_notes_is_written_at_once_and_before_anybody_goes_on(tmp_path: Path) -> None:
    told: list[str] = []
    audit = Audit(tmp_path / "b.db", tell=told.append)

    async def note(who: str) -> str:
        await audit.note_with_others(1, who=who)
        return audit.path.read_text()

    async def work() -> list[str]:
        first = await asyncio.gather(*(note(str(n)) for n in range(5)))
        return [*first, await note("later")]

    texts = asyncio.run(work())
    assert [len(text.splitlines()) for text in texts] == [5, 5, 5, 5, 5, 6]
    assert [text.count("\n") for text in told] == [4, 0]
    assert [line["who"] for line in lines(audit.path)] == ["0", "1", "2", "3", "4", "later"]


def test_a_line_is_written_although_its_caller_is_stopped_and_others_go_on(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "b.db")

    async def work() -> None:
        stopped, other = (asyncio.create_task(audit.note_with_others(1, who=who)) for who in ("stopped", "other"))
        await asyncio.sleep(0)
        stopped.cancel()
        await other

    asyncio.run(work())
    assert [line["who"] for line in lines(audit.path)] == ["stopped", "other"]


def test_nobody_waits_for_what_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(Audit(tmp_path / "nowhere" / "b.db").note_with_others(1, who="a"))
    assert "cannot write" in caplog.text
