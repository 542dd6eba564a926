"""``script``: a text for Node.js or Python.

The payload is ``{"script": "console.log('Hello')"}`` with optional ``args``, ``language`` (``node`` or ``python``),
``cwd`` (inside the workspace) and ``timeout`` (milliseconds). The script has its arguments where a file's would be
(``process.argv.slice(2)``, ``sys.argv[1:]``), and an empty standard input.
"""

from runner_app.handlers.payload import TIMEOUT, Payload
from runner_app.job import Command
from runner_app.settings import Settings

_INTERPRETERS = {"node": "node", "python": "python3"}
# Asked for where the script runs, which may see other programs than the runner.
_LOOK = 'command -v "$0" >/dev/null || { echo "script: $0 is not installed on this agent\'s host" >&2; exit 127; }'
_START = f'{_LOOK}; exec "$0" - "$@"'


def parse(task: str, text: str, settings: Settings) -> Command:
    """Read a payload.

    Raises:
        JobFailedError: A field is unknown or unusable; the text names it.
    """
    payload = Payload(task, text, ("script", "args", "language", "cwd", TIMEOUT))
    interpreter = _INTERPRETERS[payload.choice("language", _INTERPRETERS, "node")]
    return Command(
        argv=("/bin/sh", "-c", _START, interpreter, *payload.arguments("args")),
        cwd=payload.cwd(settings),
        timeout_ms=payload.timeout_ms(settings.max_timeout_ms),
        stdin=payload.text("script"),
    )
