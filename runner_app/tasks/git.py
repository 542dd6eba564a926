"""git, as a program that runs nothing but itself, and ssh."""

import os
import shlex
import subprocess
import sys
from pathlib import PurePosixPath

from runner_app.tasks.paths import RefusedError

# Hooks are nobody's; what would go on after the task is left out.
_CONFIG = ("-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "maintenance.auto=false")
_TRANSPORTS = "git:http:https:ssh"  # not the file system's, which leads out of the workspace, nor helpers


class Git:
    """Runs git in the current directory, which is not looked for any further up."""

    def __init__(self, workspace: PurePosixPath) -> None:
        self._workspace = workspace

    def run(self, *arguments: str, repository: bool = True) -> None:
        """Let git do something; what it says goes to standard error.

        Raises:
            RefusedError: It failed.
        """
        status = self._run(arguments, repository=repository, stdout=sys.stderr.fileno()).returncode
        if status:
            message = f"git {arguments[0]} ended with exit code {status}"
            raise RefusedError(message)

    def ask(self, *arguments: str) -> str | None:
        """Return what git prints, or None where it fails."""
        done = self._run(arguments, repository=True, stdout=subprocess.PIPE)
        return None if done.returncode else done.stdout.decode("utf-8", "replace").removesuffix("\n")

    def _run(self, arguments: tuple[str, ...], *, repository: bool, stdout: int) -> subprocess.CompletedProcess[bytes]:
        variables = self._variables() | ({"GIT_DIR": ".git"} if repository else {})
        try:
            return subprocess.run(
                ["git", *_CONFIG, *arguments], env=variables, stdin=subprocess.DEVNULL, stdout=stdout, check=False
            )
        except FileNotFoundError:
            message = "git is not installed on this agent's host"
            raise RefusedError(message) from None

    def _variables(self) -> dict[str, str]:
        """Return the whole environment: HOME is the workspace, and so no place for settings."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._workspace),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": _TRANSPORTS,
            "GIT_SSH_COMMAND": self._ssh(),
        }

    def _ssh(self) -> str:
        """Return an ssh that asks nothing, and has its key and the hosts it knows from the workspace."""
        key, hosts = (str(self._workspace / ".ssh" / name) for name in ("id_ed25519", "known_hosts"))
        options = ("BatchMode=yes", f"IdentityFile={key}", f"UserKnownHostsFile={hosts}")
        return shlex.join(["ssh", "-F", "none", *(f"-o{option}" for option in options)])
