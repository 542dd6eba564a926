"""``exec``, ``build`` and ``test``: a program or a shell line of the submitter's.

The payload is ``{"argv": [...]}`` or ``{"command": "shell line"}`` with an optional ``cwd`` (inside the workspace) and
``timeout`` (milliseconds), or else a shell line as it stands. ``exec`` also takes ``sudo``: then root runs it,
outside of the walls, where the agent may have that.
"""

from runner_app import elevated
from runner_app.handlers.payload import TIMEOUT, Payload, shell_line_or_object
from runner_app.job import Command
from runner_app.settings import Settings

EXEC = "exec"
_KNOWN = ("argv", "command", "cwd", TIMEOUT)


def parse(task: str, text: str, settings: Settings) -> Command:
    """Read a payload.

    Raises:
        JobFailedError: A field is unknown or unusable; the text names it.
    """
    payload = Payload(task, shell_line_or_object(text), (*_KNOWN, "sudo") if task == EXEC else _KNOWN)
    sudo = payload.flag("sudo")
    if sudo and not settings.sudo:
        raise payload.refuse("sudo is not allowed to this agent: its runner has no RUNNER_SUDO=yes")
    argv = _argv(payload)
    return Command(
        argv=elevated.command("run", argv) if sudo else argv,
        cwd=payload.cwd(settings),
        timeout_ms=payload.timeout_ms(settings.max_timeout_ms),
        walled=not sudo,
    )


def _argv(payload: Payload) -> tuple[str, ...]:
    if ("argv" in payload) == ("command" in payload):
        raise payload.refuse("give either argv or command")
    if "command" in payload:
        return ("/bin/sh", "-c", payload.argument("command"))
    return payload.arguments("argv", first=" with the program first")
