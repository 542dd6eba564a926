"""Whether git may work in a repository that any job may have written.

A repository's own settings can name programs to run and other places to read and write, in more ways than could be
listed; so those are listed that cannot. Its parts must lie in its own folder.
"""

import os
import re
import stat

from runner_app.tasks.git import Git
from runner_app.tasks.paths import RefusedError

_FOLDER = ".git"
_CONFIG = f"{_FOLDER}/config"
_ELSEWHERE = (f"{_FOLDER}/commondir", f"{_FOLDER}/objects/info/alternates")
_HARMLESS = re.compile(
    r"core\.(repositoryformatversion|filemode|bare|logallrefupdates|ignorecase|precomposeunicode|symlinks|autocrlf|eol)"
    r"|extensions\.(objectformat|refstorage)"
    r"|remote\..+\.(url|pushurl|fetch|tagopt|prune)"
    r"|branch\..+\.(remote|pushremote|merge|rebase|description)"
    r"|submodule\..+\.(url|active)"
    r"|user\.(name|email)"
    r"|pull\.(ff|rebase)"
    r"|push\.(default|autosetupremote)"
    r"|fetch\.prune",
    re.DOTALL,
)


def settings(git: Git, path: str) -> set[str]:
    """Return the names of all settings of the repository in the current directory.

    Raises:
        RefusedError: Something in it leads elsewhere, or could run something.
        OSError: It cannot be looked through.
    """
    if not stat.S_ISDIR(os.lstat(_FOLDER).st_mode):
        raise _refusal(path, f"its {_FOLDER} is not a directory")
    _require_plain_entries(path)
    if found := [name for name in _ELSEWHERE if os.path.lexists(name)]:
        raise _refusal(path, f"it has parts elsewhere ({found[0]})")
    names = git.ask("config", "--file", _CONFIG, "--list", "--name-only", "-z")
    if names is None:
        raise _refusal(path, f"its {_CONFIG} cannot be read")
    keys = set(filter(None, names.split("\0")))
    if strange := sorted(key for key in keys if not _HARMLESS.fullmatch(key)):
        raise _refusal(path, f"its setting {strange[0]} could run a program or lead elsewhere: remove it, or use exec")
    return keys


def _require_plain_entries(path: str) -> None:
    folders = [_FOLDER]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    raise _refusal(path, f"{entry.path} is a link, or no file with a content")


def _refusal(path: str, why: str) -> RefusedError:
    return RefusedError(f"repoPath {path!r}: {why}")
