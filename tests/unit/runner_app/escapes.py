"""Ways out of the workspace, as data: what is planted, what is asked for, and what stands against it.

In texts, OUT is a directory outside with a program in it, WORK the workspace, and URL the remote that ``WORK/repo`` was
cloned from and is one commit behind. Whoever writes or runs something outside, reads the secret in there, or waits for
ever, got through.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Escape:
    """One try: ``plant`` is a shell script in the workspace; one that is not ``refused`` is done, without harm."""

    against: str
    task: str
    fields: dict[str, str | bool]
    plant: str = ":"
    refused: bool = True


def _read(against: str, path: str, plant: str = ":") -> Escape:
    return Escape(against, "file:read", {"filePath": path}, plant)


def _write(against: str, path: str, plant: str = ":", *, dirs: bool = False) -> Escape:
    return Escape(against, "file:write", {"filePath": path, "content": "written", "createDirs": dirs}, plant)


def _clone(against: str, repo: str, destination: str = "new", branch: str = "", plant: str = ":") -> Escape:
    return Escape(against, "git:clone", {"repo": repo, "destination": destination, "branch": branch}, plant)


def _pull(against: str, path: str = "repo", plant: str = ":", *, refused: bool = True) -> Escape:
    return Escape(against, "git:pull", {"repoPath": path}, plant, refused)


def _push(
    against: str,
    path: str = "repo",
    plant: str = ":",
    remote: str = "origin",
    branch: str = "main",
    *,
    refused: bool = True,
) -> Escape:
    return Escape(against, "git:push", {"repoPath": path, "remote": remote, "branch": branch}, plant, refused)


def _setting(key: str, value: str) -> Escape:
    return _pull("settings", plant=f"git -C repo config '{key}' '{value}'")


_HOOK = (
    "mkdir -p repo/.git/hooks; "
    "printf '#!/bin/sh\\ntouch OUT/ran\\n' > repo/.git/hooks/{0}; chmod +x repo/.git/hooks/{0}"
)
_COMMIT = "git -C repo checkout -q -b more; git -C repo commit -q --allow-empty -m more"

ESCAPES = {
    # Up.
    "read above": _read("up", "../outside/secret"),
    "read above by a detour": _read("up", "folder/../../outside/secret"),
    "read above, absolute": _read("up", "WORK/../outside/secret"),
    "write above": _write("up", "../outside/new"),
    "write above, making folders": _write("up", "folder/../../outside/a/new", dirs=True),
    "clone to above": _clone("up", "URL", "../outside/clone"),
    "pull above": _pull("up", "../outside/repo"),
    "push above": _push("up", "folder/../../outside/repo"),
    # Elsewhere.
    "read elsewhere": _read("elsewhere", "OUT/secret"),
    "read elsewhere, two slashes": _read("elsewhere", "//OUT/secret"),
    "read next door, by a name that begins alike": _read("elsewhere", "WORK-2/secret"),
    "read through a process's root": _read("elsewhere", "/proc/self/root/OUT/secret"),
    "write elsewhere": _write("elsewhere", "OUT/new"),
    "write over what is there": _write("elsewhere", "OUT/secret"),
    "clone to elsewhere": _clone("elsewhere", "URL", "OUT/clone"),
    "clone to an empty folder elsewhere": _clone("elsewhere", "URL", "OUT/empty"),
    "pull elsewhere": _pull("elsewhere", "OUT/repo"),
    "push elsewhere": _push("elsewhere", "OUT/repo"),
    # Links on the way.
    "read through a linked folder": _read("links on the way", "link/secret", "ln -s OUT link"),
    "read through a link that is relative": _read(
        "links on the way", "folder/link/secret", "ln -s ../../outside folder/link"
    ),
    "read through two links": _read("links on the way", "second/secret", "ln -s OUT first; ln -s first second"),
    "read through a link and up again": _read("links on the way", "link/../outside/secret", "ln -s OUT/empty link"),
    "read through a link to a process's root": _read(
        "links on the way", "link/OUT/secret", "ln -s /proc/self/root link"
    ),
    "write through a linked folder": _write("links on the way", "link/new", "ln -s OUT link"),
    "make folders through a linked folder": _write("links on the way", "link/a/new", "ln -s OUT link", dirs=True),
    "clone through a linked folder": _clone("links on the way", "URL", "link/clone", plant="ln -s OUT link"),
    "clone to a link to an empty folder": _clone("links on the way", "URL", "link", plant="ln -s OUT/empty link"),
    "pull through a link": _pull("links on the way", "link", "ln -s OUT/repo link"),
    "push through a linked folder": _push("links on the way", "link/repo", "ln -s OUT link"),
    # Links at the end.
    "read a link": _read("links at the end", "link", "ln -s OUT/secret link"),
    "read a link to a link": _read("links at the end", "second", "ln -s OUT/secret first; ln -s first second"),
    "read a link in a repository": _read("links at the end", "repo/link", "ln -s OUT/secret repo/link"),
    "write to a link": _write("writing beside", "link", "ln -s OUT/secret link"),
    "write to a link to nothing": _write("writing beside", "link", "ln -s OUT/new link"),
    # What is no file.
    "read a pipe": _read("not waiting", "pipe", "mkfifo pipe"),
    "read a pipe's nothing": _read("files only", "pipe", "mkfifo pipe"),
    "write over a pipe": _write("files only", "pipe", "mkfifo pipe"),
    "write over a link to a pipe": _write("files only", "link", "mkfifo pipe; ln -s pipe link"),
    # Where from and where to.
    "clone a repository elsewhere": _clone("transports", "OUT/repo"),
    "clone a repository elsewhere, by URL": _clone("transports", "file://OUT/repo"),
    "clone a repository above": _clone("transports", "../../outside/repo"),
    "clone a bundle": _clone("transports", "OUT/bundle"),
    "clone by a command": _clone("transports", "ext::sh -c touch% OUT/ran"),
    "clone by a descriptor": _clone("transports", "fd::0"),
    "pull from elsewhere": _pull("transports", plant="git -C repo remote set-url origin OUT/repo"),
    "push to elsewhere": _push(
        "transports", plant=f"git -C repo remote set-url --push origin OUT/bare; {_COMMIT}", branch="more"
    ),
    # Options.
    "clone an option": _clone("options", "--upload-pack=touch OUT/ran"),
    "clone a short option": _clone("options", "-utouch OUT/ran"),
    "clone an option for a branch": _clone("options", "URL", branch="--upload-pack=touch OUT/ran"),
    "clone from a host that is an option": _clone("options", "ssh://-oProxyCommand=touch OUT/ran/x"),
    "push an option": _push("options", branch="--receive-pack=touch OUT/ran"),
    "push to an option": _push(
        "options",
        remote="--receive-pack=touch OUT/ran;",
        plant="git -C repo config 'remote.--receive-pack=touch OUT/ran;.url' URL; "
        "git init -q --bare repo/refs/heads/main:refs/heads/main",
    ),
    "push all branches for one": _push("branches", branch="*", plant=f"git -C repo pull -q; {_COMMIT}"),
    "push over another branch": _push("branches", branch="main:refs/heads/other"),
    # Programs of the repository.
    "hook after a pull": _pull("hooks", plant=_HOOK.format("post-merge"), refused=False),
    "hook on each reference": _pull("hooks", plant=_HOOK.format("reference-transaction"), refused=False),
    "hook before a push": _push("hooks", plant=f"{_COMMIT}; {_HOOK.format('pre-push')}", branch="more", refused=False),
    "monitor of files": _setting("core.fsmonitor", "touch OUT/ran; false"),
    "proxy": _setting("core.gitProxy", "OUT/program"),
    "folder of hooks": _setting("core.hooksPath", "OUT/hooks"),
    "ssh of its own": _setting("core.sshCommand", "touch OUT/ran"),
    "filter": _pull(
        "settings",
        plant="git -C repo config filter.f.smudge 'touch OUT/ran; cat'; "
        "mkdir -p repo/.git/info; echo '* filter=f' > repo/.git/info/attributes",
    ),
    "settings elsewhere": _setting("include.path", "OUT/gitconfig"),
    "settings elsewhere on a condition": _setting("includeIf.gitdir:/.path", "OUT/gitconfig"),
    "work tree elsewhere": _setting("core.worktree", "OUT/tree"),
    "another program there": _setting("remote.origin.uploadpack", "touch OUT/ran"),
    "another address": _setting("url.ext::sh -c touch% OUT/ran .insteadOf", "git:"),
    "helper of its own": _setting("remote.origin.vcs", "ext"),
    "transports of its own": _setting("protocol.ext.allow", "always"),
    "settings in HOME": _pull("home", plant="cp OUT/gitconfig .gitconfig", refused=False),
    "settings in HOME's folder": _pull(
        "home", plant="mkdir -p .config/git; cp OUT/gitconfig .config/git/config", refused=False
    ),
    "settings of a submodule": _pull(
        "submodules",
        plant="cd repo/sub; git init -q; git config core.gitProxy 'OUT/program'; "
        "git remote add origin URL; git -c user.name=n -c user.email=e commit -q --allow-empty -m sub",
        refused=False,
    ),
    # Parts of the repository elsewhere.
    "the folder is a link": _pull("its own folder", plant="rm -r repo/.git; ln -s OUT/repo/.git repo/.git"),
    "the folder is a file": _pull("its own folder", plant="rm -r repo/.git; echo gitdir: OUT/repo/.git > repo/.git"),
    "objects elsewhere": _pull(
        "its own entries", plant="mv repo/.git/objects OUT/moved; ln -s OUT/moved repo/.git/objects"
    ),
    "references elsewhere": _pull(
        "its own entries", plant="mv repo/.git/refs OUT/moved; ln -s OUT/moved repo/.git/refs"
    ),
    "configuration elsewhere": _pull("its own entries", plant="ln -sf OUT/harmless repo/.git/config"),
    "a pipe in the folder": _pull("its own entries", plant="rm repo/.git/index; mkfifo repo/.git/index"),
    "the common folder elsewhere": _pull("no other folder", plant="echo OUT/repo/.git > repo/.git/commondir"),
    "more objects elsewhere": _pull(
        "no other folder", plant="echo OUT/repo/.git/objects > repo/.git/objects/info/alternates"
    ),
    "the repository around the workspace": _pull(
        "no folder further up",
        "repo/plain",
        "git init -q ..; git -C .. pull -q OUT/repo; git -C .. remote add -t main -m main origin URL;"
        "git -C .. config branch.main.remote origin; git -C .. config branch.main.merge refs/heads/main;"
        "mkdir -p repo/plain/.git; touch repo/plain/.git/config",
    ),
}


@dataclass(frozen=True)
class Fault:
    """A protection taken away: pieces of ``runner_app/tasks`` and what stands in their place."""

    pieces: list[tuple[str, str, str]] = field(default_factory=list)


_NO_TRANSPORTS = ("git.py", '            "GIT_ALLOW_PROTOCOL": _TRANSPORTS,\n', "")

FAULTS = {
    "up": Fault([("paths.py", ' or ".." in pure.parts', "")]),
    "elsewhere": Fault([("paths.py", "pure.is_absolute() or ", "")]),
    "links on the way": Fault([("paths.py", "os.O_DIRECTORY | os.O_NOFOLLOW", "os.O_DIRECTORY")]),
    "links at the end": Fault([("files.py", "os.O_RDONLY | os.O_NOFOLLOW", "os.O_RDONLY")]),
    "writing beside": Fault(
        [
            ("files.py", "        mode = _present_mode(folder, name, path)\n", "        mode = None\n"),
            ("files.py", 'f".{secrets.token_hex(8)}.draft"', "name"),
            ("files.py", "os.O_CREAT | os.O_EXCL", "os.O_CREAT"),
        ]
    ),
    "not waiting": Fault([("files.py", " | os.O_NONBLOCK", "")]),
    "files only": Fault([("files.py", "if not stat.S_ISREG(mode):", "if False:")]),
    "transports": Fault([_NO_TRANSPORTS]),
    "options": Fault(
        [
            _NO_TRANSPORTS,
            ("repository.py", '"--no-recurse-submodules", "--", remote', '"--no-recurse-submodules", remote'),
        ]
    ),
    "branches": Fault([("repository.py", ' or git.ask("check-ref-format", name) is None', "")]),
    "hooks": Fault([("git.py", '"-c", "core.hooksPath=/dev/null", ', "")]),
    "settings": Fault([("vetting.py", "if not _HARMLESS.fullmatch(key)", "if False")]),
    "home": Fault([("git.py", '            "GIT_CONFIG_GLOBAL": os.devnull,\n', "")]),
    "submodules": Fault([("repository.py", '"--ff-only", "--no-recurse-submodules"', '"--ff-only"')]),
    "its own folder": Fault([("vetting.py", "if not stat.S_ISDIR(os.lstat(_FOLDER).st_mode):", "if False:")]),
    "its own entries": Fault([("vetting.py", "    _require_plain_entries(path)\n", "")]),
    "no other folder": Fault([("vetting.py", "if os.path.lexists(name)", "if False")]),
    "no folder further up": Fault([("git.py", '({"GIT_DIR": ".git"} if repository else {})', "{}")]),
}
