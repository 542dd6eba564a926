"""Real work: an agent clones a repository, builds and tests it as tasks, and pushes what it made back."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from lab import network
from lab.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.lab import Lab
    from tests.support.fleet import Submitter, TestFleet

_PORT = 9418
_SOURCES = {
    "greeting/__init__.py": "def greeting(name):\n    return f'Hello, {name}!'\n",
    "__main__.py": "import sys\nfrom greeting import greeting\nprint(greeting(sys.argv[1]))\n",
    "test_greeting.py": (
        "import unittest\nfrom greeting import greeting\n\n\nclass Test(unittest.TestCase):\n"
        "    def test_a_name_is_greeted(self):\n        self.assertEqual(greeting('you'), 'Hello, you!')\n"
    ),
}


def _git(folder: Path, *arguments: str) -> str:
    argv = ["git", "-c", "user.name=a person", "-c", "user.email=person@example.org", *arguments]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=True).stdout.strip()


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A bare repository with a small program on the branch `work`."""
    sources, bare = tmp_path / "sources", tmp_path / "served/greeting.git"
    for name, text in _SOURCES.items():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_text(text)
    _git(sources, "init", "--quiet", "--initial-branch=work")
    _git(sources, "add", ".")
    _git(sources, "commit", "--quiet", "--message=A greeting")
    _git(sources, "clone", "--quiet", "--bare", ".", str(bare))
    return bare


@pytest.fixture
def url(fleet: TestFleet, remote: Path) -> Iterator[str]:
    """A git server on the lab's network that serves it, and takes what is pushed."""
    lab = fleet.lab.lab
    serve = ["git", "daemon", f"--listen={lab.gateway}", f"--port={_PORT}", "--reuseaddr", "--export-all"]
    serve += ["--enable=receive-pack", f"--base-path={remote.parent}"]
    with subprocess.Popen(["nsenter", f"--net={lab.namespace}", *serve]) as daemon:
        wait_until(lambda: _answers(lab), what="the git server", timeout=10)
        yield f"git://{lab.gateway}:{_PORT}/{remote.name}"
        daemon.terminate()


def _answers(lab: Lab) -> bool | None:
    with network.tcp_socket(lab.namespace) as probe:
        return True if probe.connect_ex((lab.gateway, _PORT)) == 0 else None


class _Agent:
    """An agent that is given one task after the other."""

    def __init__(self, submitter: Submitter, name: str) -> None:
        self._submitter = submitter
        self._name = name

    def do(self, task: str, **fields: Any) -> dict[str, Any]:
        ended = self._submitter.job(self._submitter.submit(self._name, task, json.dumps(fields)), wait=25)
        assert ended["status"] == "done", f"{task}: {ended['error']}"
        result: dict[str, Any] = json.loads(ended["result"])
        return result


@pytest.mark.parametrize("name", ["agent1", "agent3"])
def test_a_repository_is_cloned_built_tested_and_pushed_to(
    submitter: Submitter, remote: Path, url: str, name: str
) -> None:
    agent = _Agent(submitter, name)
    agent.do("exec", command="rm -rf src")
    first = _git(remote, "rev-parse", "work")
    cloned = agent.do("git:clone", repo=url, destination="src/greeting", branch="work")
    assert (cloned["branch"], cloned["commit"]) == ("work", first)

    built = "python3 -m zipapp . --output=../greeting.pyz && python3 ../greeting.pyz you"
    assert agent.do("build", command=built, cwd="src/greeting")["stdout"] == "Hello, you!\n"
    tested = agent.do("test", command="python3 -m unittest", cwd="src/greeting")
    assert "Ran 1 test" in tested["stderr"]

    agent.do("file:write", filePath="src/greeting/AUTHORS", content=f"{name}\n")
    identity = f"-c user.name={name} -c user.email={name}@example.org"
    agent.do("exec", command=f"git add AUTHORS && git {identity} commit -qm Authors", cwd="src/greeting")
    pushed = agent.do("git:push", repoPath="src/greeting")

    assert _git(remote, "rev-parse", "work") == pushed["commit"] != first
    assert _git(remote, "show", "work:AUTHORS") == name
    assert _git(remote, "log", "-1", "--format=%an %s", "work") == f"{name} Authors"

    _git(remote, "update-ref", "refs/heads/work", first)
    agent.do("exec", command="rm -rf src")
