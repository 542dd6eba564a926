"""exec with sudo. Rights are for real hosts; here, a sudo that only puts the program out of reach of our signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner_app import elevated
from tests.unit.runner_app.conftest import SECONDS, until

if TYPE_CHECKING:
    from tests.unit.runner_app.conftest import Broker, Runner

_SUDO = '#!/bin/sh\n[ "$1 $2" = "-n --" ] || exit 99\nshift 2\nexec setsid --wait env -i PATH="$PATH" AS=root "$@"\n'


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which sudo is ours."""
    sudo = tmp_path / "bin/sudo"
    sudo.parent.mkdir()
    sudo.write_text(_SUDO)
    sudo.chmod(0o755)
    return f"{sudo.parent}:{os.environ['PATH']}"


def run(path: str, *argv: str) -> subprocess.CompletedProcess[str]:
    command = elevated.command("run", argv)
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_a_program_runs_as_root_and_its_exit_code_is_ours(path: str) -> None:
    done = run(path, "sh", "-c", 'echo "$AS $1"; cat; exit 7', "sh", "a b")
    assert (done.returncode, done.stdout) == (7, "root a b\n")
    assert run(path, "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
    done = run(path, "/no/such/program")
    assert (done.returncode, done.stderr) == (127, "exec: /no/such/program: No such file or directory\n")


def test_a_host_without_sudo_is_said(tmp_path: Path) -> None:
    done = run(str(tmp_path), "true")
    assert (done.returncode, done.stderr) == (127, "exec: sudo is not installed on this agent's host\n")


def test_root_runs_nothing_that_lies_about(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ctypes", "select", "runner_app"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    done = run(path, "true")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_ends_with_its_job(number: signal.Signals, path: str, tmp_path: Path) -> None:
    line = 'trap "" TERM; setsid sleep 600 & echo $! > daemon; sleep 600 & echo $! > child; echo $$ > self; wait; wait'
    job = subprocess.Popen(elevated.command("run", ("sh", "-c", line)), env={"PATH": path}, cwd=tmp_path)
    files = [tmp_path / name for name in ("daemon", "child", "self")]
    pids = until(
        lambda: all(file.exists() and file.read_text() for file in files) and [int(f.read_text()) for f in files]
    )
    job.send_signal(number)
    job.wait(SECONDS)
    until(lambda: not any(_alive(pid) for pid in pids))


def test_what_a_program_leaves_behind_ends(path: str, tmp_path: Path) -> None:
    assert run(path, "sh", "-c", f"setsid sleep 600 >/dev/null 2>&1 & echo $! > {tmp_path}/daemon").returncode == 0
    assert not _alive(int((tmp_path / "daemon").read_text()))


def test_as_a_job(broker: Broker, runner: Runner, path: str) -> None:
    runner.environment |= {"RUNNER_SUDO": "yes", "PATH": path}
    runner.start("run")
    job = broker.finished(broker.submit("exec", {"command": "echo $AS", "sudo": True}))
    assert json.loads(job["result"])["stdout"] == "root\n"
    job = broker.finished(broker.submit("exec", {"command": "sleep 600", "sudo": True, "timeout": 1000}))
    assert job["error"].startswith("timed out after")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
