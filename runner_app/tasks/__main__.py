"""``python -m runner_app.tasks < ORDER``."""

import json
import sys
from collections.abc import Callable
from pathlib import PurePosixPath

from runner_app.tasks import files, repository
from runner_app.tasks.paths import RefusedError, Workspace

_TASKS: dict[str, Callable[..., dict[str, object]]] = {
    "file:read": files.read,
    "file:write": files.write,
    "git:clone": repository.clone,
    "git:pull": repository.pull,
    "git:push": repository.push,
}
_ARGUMENTS = {"filePath": "path", "repoPath": "path", "createDirs": "create_dirs"}


def main() -> int:
    """Do the task; the exit code is 0 for success and 1 for a failure."""
    order = json.load(sys.stdin)
    task, workspace = order.pop("task"), Workspace(PurePosixPath(order.pop("workspace")))
    arguments = {_ARGUMENTS.get(field, field): value for field, value in order.items()}
    try:
        result = _TASKS[task](workspace, **arguments)
    except RefusedError as error:
        sys.stderr.write(f"{task}: {error}\n")
        return 1
    sys.stdout.write(json.dumps(result, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
