"""No task on files or repositories leads out of the workspace; and each protection is needed for that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner_app.handlers import inside
from tests.unit.runner_app.conftest import GIT
from tests.unit.runner_app.escapes import ESCAPES, FAULTS, Escape, Fault

if TYPE_CHECKING:
    from runner_app.settings import Settings
    from tests.unit.runner_app.conftest import GitDaemon

_TASKS = Path(inside.__file__).parents[1] / "tasks"
_SECRET = "what nobody inside may know"
_SECONDS = 60  # what takes longer waits for ever; as it does where a protection is missing
_SECONDS_WITHOUT = 3
# A repository with two commits, of which the workspace has one, and another elsewhere that could be pulled to.
_WORLD = """
set -e
mkdir outside outside/empty outside/hooks outside/tree workspace workspace/folder workspace-2
echo "$SECRET" | tee outside/secret > workspace-2/secret
printf '#!/bin/sh\\ntouch ${0%%/*}/ran\\n' > outside/program; chmod +x outside/program
ln outside/program outside/hooks/post-merge
mkdir -p outside/repo; git init -q -b main outside/repo
cp outside/secret outside/repo/tracked; git -C outside/repo add .; git -C outside/repo commit -q -m first
git -C outside/repo bundle create -q ../bundle main
git init -q -b main source; cd source
echo one > tracked; git add .; git update-index --add --cacheinfo "160000,$(git hash-object tracked),sub"
printf '[submodule "sub"]\\npath = sub\\nurl = ./sub\\n' > .gitmodules; git add .gitmodules
git commit -q -m first; git clone -q --bare . ../served
git clone -q ../served ../workspace/repo; git clone -q --bare ../served ../outside/bare
cp -a ../workspace/repo/.git ../outside/copy
echo two > tracked; git update-index --add --cacheinfo "160000,$(git hash-object tracked -w),sub"
git add tracked; git commit -q -m second; git push -q ../served main
cd ..; rm -r source
"""


class World:
    """A workspace, what is around it, and a served repository."""

    def __init__(self, root: Path, url: str) -> None:
        self._root = root
        self._names = {"OUT": str(root / "outside"), "WORK": str(root / "workspace"), "URL": url}
        (root / "outside/gitconfig").write_text(f"[core]\ngitProxy = {root}/outside/program\n")
        for repo in ("workspace/repo", "outside/repo"):
            self._shell(f"git -C {repo} config remote.origin.url {url}")

    def try_out(self, escape: Escape, settings: Settings, packages: Path, seconds: float) -> str:
        """Return how somebody got through, or an empty text."""
        self._shell(f"cd workspace; {self._filled(escape.plant)}")
        before = self._outside()
        fields = {key: self._filled(value) if isinstance(value, str) else value for key, value in escape.fields.items()}
        command = inside.parse(escape.task, json.dumps(fields), replace(settings, workspace=self._root / "workspace"))
        try:
            done = subprocess.run(
                [argument if "PYTHONPATH=" not in argument else f"PYTHONPATH={packages}" for argument in command.argv],
                input=command.stdin,
                cwd="/",
                env={"PATH": os.environ["PATH"]},
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "it waits for ever"
        return self._harm(escape, done, before)

    def _harm(self, escape: Escape, done: subprocess.CompletedProcess[str], before: dict[str, bytes]) -> str:
        if changed := {name for name, _ in before.items() ^ self._outside().items()}:
            return f"outside there changed: {sorted(changed)[:3]}"
        if _SECRET in done.stdout or any(
            _SECRET.encode() in data for data in _files(self._root / "workspace").values()
        ):
            return "the secret is known"
        if (done.returncode == 0) == escape.refused:
            return f"it ended with {done.returncode}: {done.stdout or done.stderr}"
        return ""

    def _outside(self) -> dict[str, bytes]:
        return {
            name: data for name, data in _files(self._root).items() if not name.startswith(("workspace/", "served/"))
        }

    def _filled(self, text: str) -> str:
        for name, value in self._names.items():
            text = text.replace(name, value)
        return text

    def _shell(self, line: str) -> None:
        subprocess.run(["/bin/sh", "-e", "-c", line], cwd=self._root, env=GIT, check=True, capture_output=True)


def _files(root: Path) -> dict[str, bytes]:
    """Return all files with their content, and folders and the rest without any."""
    entries = (
        entry for folder, _, names in os.walk(root) for entry in [Path(folder), *(Path(folder, n) for n in names)]
    )
    return {
        str(entry.relative_to(root)): entry.read_bytes() if entry.is_file() and not entry.is_symlink() else b""
        for entry in entries
    }


@pytest.fixture(scope="module")
def worlds(git_daemon: GitDaemon) -> GitDaemon:
    """A folder of worlds with one to copy, and the address under which each's repository is served."""
    first = git_daemon.root / "first"
    first.mkdir()
    subprocess.run(["/bin/sh", "-c", _WORLD], cwd=first, env={**GIT, "SECRET": _SECRET}, check=True)
    return git_daemon


def _world(worlds: GitDaemon, name: str) -> World:
    root = worlds.root / name
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(["cp", "-a", worlds.root / "first", root], check=True)
    return World(root, f"{worlds.url}/{name}/served")


@pytest.mark.parametrize("name", ESCAPES)
def test_nobody_gets_through(name: str, worlds: GitDaemon, settings: Settings) -> None:
    harm = _world(worlds, "copy").try_out(ESCAPES[name], settings, _TASKS.parents[1], _SECONDS)
    assert not harm


@pytest.mark.parametrize("protection", FAULTS)
def test_each_protection_is_needed(protection: str, worlds: GitDaemon, settings: Settings, tmp_path: Path) -> None:
    _break(FAULTS[protection], tmp_path)
    for name, escape in ESCAPES.items():
        if escape.against == protection:
            harm = _world(worlds, "copy").try_out(escape, settings, tmp_path, _SECONDS_WITHOUT)
            sys.stdout.write(f"{name}: {harm or 'refused all the same'}\n")
            if harm:
                return
    pytest.fail(f"nobody gets through without {protection}")


def test_the_table_is_whole() -> None:
    assert {escape.against for escape in ESCAPES.values()} == set(FAULTS)


def _break(fault: Fault, packages: Path) -> None:
    copy = shutil.copytree(_TASKS, packages / "runner_app/tasks")
    shutil.copy(_TASKS.parent / "__init__.py", packages / "runner_app")
    for file, piece, instead in fault.pieces:
        text = (copy / file).read_text()
        assert text.count(piece) == 1, piece
        (copy / file).write_text(text.replace(piece, instead))
