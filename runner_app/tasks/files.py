"""``file:read`` and ``file:write``."""

import base64
import codecs
import json
import os
import secrets
import stat
from contextlib import suppress

from runner_app.tasks.paths import RefusedError, Workspace, naming

KEPT_BYTES = 128 * 1024  # of a file, from its start
RESULT_BYTES = 200_000  # as of any job
_BASE64 = "base64"
_FIELD = "filePath"


def read(workspace: Workspace, *, path: str, encoding: str) -> dict[str, object]:
    """Return the start of a file, as text or in base64.

    Raises:
        RefusedError: It cannot be read, or is no text.
    """
    # Not waiting is for a pipe that nobody writes to.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with (
        workspace.parent(_FIELD, path) as (folder, name),
        naming(_FIELD, path),
        os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file,
    ):
        status = os.fstat(file.fileno())
        _require_file(path, status.st_mode)
        data = file.read(KEPT_BYTES)
        more = bool(file.read(1))
    facts: dict[str, object] = {_FIELD: path, "encoding": encoding, "size": status.st_size}
    while True:
        content = _encode(data, encoding, more=more)
        facts |= {"content": content, "truncated": more}
        if len(json.dumps(facts, ensure_ascii=False).encode()) <= RESULT_BYTES:
            return facts
        data, more = data[: len(data) // 2], True  # what has to be escaped takes up to six times its size


def write(workspace: Workspace, *, path: str, content: str, encoding: str, create_dirs: bool) -> dict[str, object]:
    """Write a file: all of it or nothing, also after a crash. One that was there keeps its mode.

    Raises:
        RefusedError: It cannot be written.
    """
    data = _decode(content, encoding)
    with workspace.parent(_FIELD, path, create=create_dirs) as (folder, name), naming(_FIELD, path):
        mode = _present_mode(folder, name, path)
        draft = f".{secrets.token_hex(8)}.draft"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(draft, flags, 0o666, dir_fd=folder), "wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)
        os.fsync(folder)
    return {_FIELD: path, "size": len(data)}


def _present_mode(folder: int, name: str, path: str) -> int | None:
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    _require_file(path, mode)
    return mode


def _require_file(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "a directory" if stat.S_ISDIR(mode) else "no file with a content"
        message = f"{_FIELD} {path!r}: is {kind}"
        raise RefusedError(message)


def _encode(data: bytes, encoding: str, *, more: bool) -> str:
    if encoding == _BASE64:
        return base64.b64encode(data).decode("ascii")
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=not more)
    except UnicodeDecodeError:
        message = f"{_FIELD}: the file is not UTF-8: set encoding to base64"
        raise RefusedError(message) from None


def _decode(content: str, encoding: str) -> bytes:
    if encoding != _BASE64:
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except ValueError:
        message = "content: is not base64"
        raise RefusedError(message) from None
