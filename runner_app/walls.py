"""What a job sees: bubblewrap's arguments. Pure, save that it looks at how the host's own root is laid out.

A job starts from an empty, read-only root and gets what is named here: no home, no /run, no other process. bubblewrap
does this alike on every systemd, in the user namespace of its own that the job is left in without any capability and
from which it cannot make another.

systemd tells every process of the unit to end, of which only the job's own may heed it: a shell waits, and then ends as
it was told, so that systemd records a stop as such. When the job's main process has ended, bubblewrap ends, and what is
left behind the walls is killed: the end is recorded when nothing of the job is alive. The job has a session of its
own, so that what it sends to its process group does not reach the shell, whose end by a signal is systemd's word alone.
"""

import os
import shlex
from pathlib import Path

from runner_app import progress
from runner_app.execution import stdin
from runner_app.job import Command
from runner_app.settings import Settings

_PROGRAM = "/usr/bin/bwrap"
_HEEDING = ("/usr/bin/env", "--default-signal=TERM")
# What Debian's programs, and not services, have in /var/lib.
_TOOLS = (
    *("apt", "aspell", "dictionaries-common", "dpkg", "emacsen-common", "gems", "ghc", "ispell", "mecab", "sgml-base"),
    *("texmf", "xml-core"),
)
_SHOWN = ("/usr", "/etc", "/opt", "/sys", *(f"/var/lib/{tool}" for tool in _TOOLS), "/var/cache")
_RESOLVERS = ("/run/systemd/resolve", "/run/resolvconf")  # where /etc/resolv.conf may lead
_MASKED = ("/etc/openclaw",)
_TMP = ("/tmp", "--symlink", "../tmp", "/var/tmp")  # noqa: S108 - the job's own, on the workspace's disk
PROGRESS = "job-progress"  # in the job's /tmp
_SHORTHANDS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


# wait returns early when the trap is taken; the process is there then, and gone when its end was collected.
_SCRIPT = """\
trap stopped=1 TERM
(trap '' TERM; exec {enclosed} {stdin}
) &
while wait $!; code=$?; [ $code -gt 128 ] && kill -0 $! 2>/dev/null; do :; done
[ -z "$stopped" ] || {{ trap - TERM; kill -TERM $$; }}
exit $code
"""


def script(command: Command, settings: Settings, tmp: Path | None) -> str:
    """Return what a shell reads to run a command behind walls, with ``tmp`` as its /tmp, or else one in memory."""
    return _SCRIPT.format(enclosed=shlex.join(_enclosed(command, settings, tmp)), stdin=stdin(command))


def _enclosed(command: Command, settings: Settings, tmp: Path | None) -> list[str]:
    workspace = str(settings.workspace)
    masked = [path for path in (*_MASKED, str(settings.state_dir)) if Path(path).is_dir() and _is_shown(path)]
    others = str(settings.tmp_dir)
    argv = [_PROGRAM, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--disable-userns", "--die-with-parent"]
    argv += ["--new-session"]
    for path in (*_SHOWN, *_RESOLVERS):
        argv += ["--ro-bind-try", path, path]
    argv += _shorthands()
    for path in masked:
        argv += ["--tmpfs", path]
    argv += ["--dev", "/dev", "--proc", "/proc"]
    argv += [*(["--bind", str(tmp)] if tmp else ["--tmpfs"]), *_TMP, "--symlink", "../run", "/var/run"]
    argv += ["--bind", workspace, workspace, "--tmpfs", others]
    # Last, since bubblewrap makes the mount points above in them.
    for path in (others, *masked, "/"):
        argv += ["--remount-ro", path]
    argv += ["--setenv", progress.VARIABLE, f"{_TMP[0]}/{PROGRESS}"]
    return [*argv, "--chdir", command.cwd, "--", *_HEEDING, *command.argv]


def _is_shown(path: str) -> bool:
    return any(Path(path).is_relative_to(shown) for shown in _SHOWN)


def _shorthands() -> list[str]:
    """Return arguments for /bin and its like, which are links into /usr on a merged system."""
    argv = []
    for path in _SHORTHANDS:
        if Path(path).is_symlink():
            argv += ["--symlink", str(Path(path).readlink()), path]
        elif Path(path).is_dir():
            argv += ["--ro-bind", path, path]
    return argv


def hidden(settings: Settings) -> list[str]:
    """Return paths that a job must not see, whatever the host: the runner's own and the ways to its user's manager."""
    paths = [
        str(settings.jobs_dir),
        str(settings.plans_dir),
        "/etc/openclaw/agents",
        "/run/dbus",
        "/run/systemd/private",
    ]
    own = (os.environ.get("CREDENTIALS_DIRECTORY"), os.environ.get("XDG_RUNTIME_DIR"))
    return [*paths, *(path for path in own if path)]
