"""git:clone, git:pull and git:push with a real git and a served repository. Ways out are in ``escapes``."""

from __future__ import annotations

import http.server
import json
import os
import pty
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from runner_app.handlers import inside
from tests.unit.runner_app.conftest import GIT, SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from runner_app.settings import Settings
    from tests.unit.runner_app.conftest import GitDaemon


@dataclass
class Scene:
    """A workspace, and a served repository with the branches main and other."""

    settings: Settings
    served: Path
    url: str

    @property
    def workspace(self) -> Path:
        return self.settings.workspace

    def run(self, task: str, fields: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
        command = inside.parse(task, json.dumps(fields), self.settings)
        return subprocess.run(
            command.argv,
            input=command.stdin,
            cwd=command.cwd,
            env={"PATH": os.environ["PATH"], **variables},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def do(self, task: str, **fields: str) -> dict[str, Any]:
        """Do a task that must end well."""
        done = self.run(task, fields)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def refusal(self, task: str, **fields: str) -> str:
        """Do a task that must fail, and return what it says."""
        done = self.run(task, fields)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    def git(self, folder: Path, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, env=GIT, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, folder: Path, name: str, content: str) -> str:
        (folder / name).write_text(content)
        self.git(folder, "add", name)
        self.git(folder, "commit", "-q", "-m", name)
        return self.git(folder, "rev-parse", "HEAD")


@pytest.fixture
def scene(git_daemon: GitDaemon, settings: Settings, tmp_path: Path) -> Scene:
    name = tmp_path.name
    scene = Scene(settings, git_daemon.root / name, f"{git_daemon.url}/{name}")
    source = tmp_path / "source"
    source.mkdir()
    scene.git(source, "init", "-q", "-b", "main")
    scene.commit(source, "file", "one\n")
    scene.git(source, "branch", "other")
    scene.commit(source, "file", "two\n")
    scene.git(source, "clone", "-q", "--bare", ".", str(scene.served))
    return scene


def test_clone(scene: Scene) -> None:
    head = scene.git(scene.served, "rev-parse", "main")
    result = scene.do("git:clone", repo=scene.url, destination="a/repo")
    assert result == {"repoPath": "a/repo", "branch": "main", "commit": head}
    assert (scene.workspace / "a/repo/file").read_text() == "two\n"


def test_clone_a_branch(scene: Scene) -> None:
    (scene.workspace / "repo").mkdir()
    path = str(scene.workspace / "repo")
    result = scene.do("git:clone", repo=scene.url, destination=path, branch="other")
    assert (result["repoPath"], result["branch"]) == (path, "other")
    assert (scene.workspace / "repo/file").read_text() == "one\n"


def test_clone_what_is_empty(scene: Scene, tmp_path: Path) -> None:
    empty = scene.served.with_name(f"{scene.served.name}-empty")
    scene.git(tmp_path, "init", "-q", "--bare", "-b", "main", str(empty))
    result = scene.do("git:clone", repo=f"{scene.url}-empty", destination="repo")
    assert result == {"repoPath": "repo", "branch": "main", "commit": None}


def test_a_clone_that_fails_leaves_nothing_new(scene: Scene) -> None:
    said = scene.refusal("git:clone", repo=f"{scene.url}-absent", destination="repo")
    assert said.endswith("git:clone: git clone ended with exit code 128\n")
    assert not (scene.workspace / "repo").exists()
    (scene.workspace / "empty").mkdir()
    assert "no-such" in scene.refusal("git:clone", repo=scene.url, destination="empty", branch="no-such")
    assert list((scene.workspace / "empty").iterdir()) == []


def test_a_clone_replaces_nothing(scene: Scene) -> None:
    (scene.workspace / "full").mkdir()
    (scene.workspace / "full/file").write_text("mine")
    (scene.workspace / "file").write_text("mine")
    said = scene.refusal("git:clone", repo=scene.url, destination="full")
    assert said == "git:clone: destination 'full': is there already, and not empty\n"
    assert "destination 'file': goes through a link or a file" in scene.refusal(
        "git:clone", repo=scene.url, destination="file"
    )
    assert "destination '.': is the workspace itself" in scene.refusal("git:clone", repo=scene.url, destination=".")
    assert (scene.workspace / "full/file").read_text() == (scene.workspace / "file").read_text() == "mine"


def test_pull(scene: Scene, tmp_path: Path) -> None:
    first = scene.do("git:clone", repo=scene.url, destination="repo")
    assert scene.do("git:pull", repoPath="repo") == first
    head = scene.commit(tmp_path / "source", "new", "three\n")
    scene.git(tmp_path / "source", "push", "-q", str(scene.served), "main")
    assert scene.do("git:pull", repoPath="repo") == {"repoPath": "repo", "branch": "main", "commit": head}
    assert (scene.workspace / "repo/new").read_text() == "three\n"


def test_a_pull_merges_nothing(scene: Scene, tmp_path: Path) -> None:
    scene.do("git:clone", repo=scene.url, destination="repo")
    scene.git(scene.workspace / "repo", "config", "pull.rebase", "true")
    mine = scene.commit(scene.workspace / "repo", "mine", "1")
    scene.commit(tmp_path / "source", "theirs", "2")
    scene.git(tmp_path / "source", "push", "-q", str(scene.served), "main")
    assert "Not possible to fast-forward" in scene.refusal("git:pull", repoPath="repo")
    assert scene.git(scene.workspace / "repo", "rev-parse", "HEAD") == mine


def test_push(scene: Scene) -> None:
    scene.do("git:clone", repo=scene.url, destination="repo")
    head = scene.commit(scene.workspace / "repo", "new", "three\n")
    result = scene.do("git:push", repoPath="repo")
    assert result == {"repoPath": "repo", "remote": "origin", "branch": "main", "commit": head}
    assert scene.git(scene.served, "rev-parse", "main") == head
    scene.git(scene.workspace / "repo", "branch", "more")
    result = scene.do("git:push", repoPath="repo", remote="origin", branch="more")
    assert (result["branch"], result["commit"]) == ("more", head)
    assert scene.git(scene.served, "rev-parse", "more") == head


def test_a_push_overwrites_nothing(scene: Scene, tmp_path: Path) -> None:
    scene.do("git:clone", repo=scene.url, destination="repo")
    scene.commit(scene.workspace / "repo", "mine", "1")
    theirs = scene.commit(tmp_path / "source", "theirs", "2")
    scene.git(tmp_path / "source", "push", "-q", str(scene.served), "main")
    assert "rejected" in scene.refusal("git:push", repoPath="repo", branch="main")
    assert scene.git(scene.served, "rev-parse", "main") == theirs


def test_what_a_push_lacks_is_named(scene: Scene) -> None:
    scene.do("git:clone", repo=scene.url, destination="repo")
    assert "remote 'up': the repository has none of that name" in scene.refusal(
        "git:push", repoPath="repo", remote="up"
    )
    assert "branch 'a b': is no branch's name" in scene.refusal("git:push", repoPath="repo", branch="a b")
    assert "absent" in scene.refusal("git:push", repoPath="repo", branch="absent")
    scene.git(scene.workspace / "repo", "checkout", "-q", "--detach")
    assert "branch: the repository is on none" in scene.refusal("git:push", repoPath="repo")
    (scene.workspace / "plain").mkdir()
    assert "repoPath 'plain': No such file" in scene.refusal("git:push", repoPath="plain")


def test_a_setting_that_could_do_more_is_named(scene: Scene) -> None:
    scene.do("git:clone", repo=scene.url, destination="repo")
    scene.git(scene.workspace / "repo", "config", "core.editor", "vi")
    said = scene.refusal("git:pull", repoPath="repo")
    assert "repoPath 'repo': its setting core.editor could run a program or lead elsewhere" in said


def test_a_host_without_git_is_said(scene: Scene, tmp_path: Path) -> None:
    said = scene.run("git:clone", {"repo": scene.url, "destination": "repo"}, PATH=str(tmp_path)).stderr
    assert said == "git:clone: git is not installed on this agent's host\n"


def test_ssh_has_its_key_from_the_workspace_and_asks_nobody(scene: Scene, tmp_path: Path) -> None:
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/said\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    fields = {"repo": f"ssh://host{scene.served}", "destination": "repo"}
    assert scene.run("git:clone", fields, PATH=f"{ssh.parent}:{os.environ['PATH']}").returncode == 0
    options = (tmp_path / "said").read_text().split("host\n")[0].split()
    folder = scene.workspace / ".ssh"
    assert options[:2] == ["-F", "none"]
    for option in ("BatchMode=yes", f"IdentityFile={folder}/id_ed25519", f"UserKnownHostsFile={folder}/known_hosts"):
        assert f"-o{option}" in options


class _Locked(http.server.BaseHTTPRequestHandler):
    """Answers everybody that a name and a password are wanted."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="locked"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_nobody_is_asked_for_a_password(scene: Scene) -> None:
    """Also where there is a terminal at which somebody could be."""
    server = http.server.HTTPServer(("127.0.0.1", 0), _Locked)
    threading.Thread(target=server.serve_forever).start()
    command = inside.parse(
        "git:clone",
        json.dumps({"repo": f"http://127.0.0.1:{server.server_port}/repo", "destination": "repo"}),
        scene.settings,
    )
    (scene.workspace / "order").write_text(command.stdin or "")
    leader, follower = pty.openpty()
    line = 'exec 3<> "$1"; shift; exec "$@" < order'
    try:
        done = subprocess.run(
            ["setsid", "--ctty", "--wait", "sh", "-c", line, "sh", os.ttyname(follower), *command.argv],
            stdin=follower,
            cwd=scene.workspace,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
        os.close(leader)
        os.close(follower)
    assert "terminal prompts disabled" in done.stderr
