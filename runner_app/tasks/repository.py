"""``git:clone``, ``git:pull`` and ``git:push``. Each result says where the repository stands then."""

import os
from contextlib import suppress
from pathlib import Path

from runner_app.tasks import vetting
from runner_app.tasks.git import Git
from runner_app.tasks.paths import RefusedError, Workspace, make, naming


def clone(workspace: Workspace, *, repo: str, destination: str, branch: str) -> dict[str, object]:
    """Clone into a directory that is made for it, or that is empty.

    Raises:
        RefusedError: It cannot be cloned.
    """
    git = Git(workspace.root)
    options = [f"--branch={branch}"] if branch else []
    with workspace.parent("destination", destination, create=True) as (folder, name):
        with naming("destination", destination):
            made = make(folder, name)
        try:
            _enter(workspace, "destination", destination)
            if any(Path.cwd().iterdir()):
                message = f"destination {destination!r}: is there already, and not empty"
                raise RefusedError(message)
            git.run("clone", "--quiet", "--no-recurse-submodules", *options, "--", repo, ".", repository=False)
        except RefusedError:
            if made:
                with suppress(OSError):
                    os.rmdir(name, dir_fd=folder)
            raise
    return {"repoPath": destination, **_position(git)}


def pull(workspace: Workspace, *, path: str) -> dict[str, object]:
    """Bring the current branch to where its upstream is, if nothing has to be merged.

    Raises:
        RefusedError: It cannot be pulled.
    """
    git, _ = _open(workspace, path)
    git.run("pull", "--quiet", "--ff-only", "--no-recurse-submodules")
    return {"repoPath": path, **_position(git)}


def push(workspace: Workspace, *, path: str, remote: str, branch: str) -> dict[str, object]:
    """Push one branch, by default the current one, to the branch of that name.

    Raises:
        RefusedError: It cannot be pushed.
    """
    git, settings = _open(workspace, path)
    if f"remote.{remote}.url" not in settings:
        message = f"remote {remote!r}: the repository has none of that name"
        raise RefusedError(message)
    name = f"refs/heads/{branch}" if branch else git.ask("symbolic-ref", "--quiet", "HEAD")
    if name is None or git.ask("check-ref-format", name) is None:
        message = f"branch {branch!r}: is no branch's name" if branch else "branch: the repository is on none: name one"
        raise RefusedError(message)
    git.run("push", "--quiet", "--no-recurse-submodules", "--", remote, f"{name}:{name}")
    pushed = {"branch": name.removeprefix("refs/heads/"), "commit": git.ask("rev-parse", name)}
    return {"repoPath": path, "remote": remote, **pushed}


def _open(workspace: Workspace, path: str) -> tuple[Git, set[str]]:
    """Enter a repository that may be worked with; also return the names of its settings."""
    _enter(workspace, "repoPath", path)
    git = Git(workspace.root)
    with naming("repoPath", path):
        return git, vetting.settings(git, path)


def _enter(workspace: Workspace, field: str, path: str) -> None:
    """Make a directory the current one, which stays what it is whatever becomes of its path."""
    with workspace.folder(field, path) as folder:
        os.fchdir(folder)


def _position(git: Git) -> dict[str, object]:
    branch = git.ask("symbolic-ref", "--quiet", "--short", "HEAD")
    return {"branch": branch, "commit": git.ask("rev-parse", "--quiet", "--verify", "HEAD")}
