"""Ways into the workspace that do not lead out of it, whatever its folders and links are made into meanwhile.

A path is walked step by step, from one open directory into the next and never through a link, so that what a name means
is settled once. Nothing is looked up by its whole path.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ELOOP, ENOTDIR
from pathlib import PurePosixPath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class RefusedError(Exception):
    """The task is not done; the text names the field and the reason."""


@contextmanager
def naming(field: str, path: str) -> Iterator[None]:
    """Turn what the system says about a path into a refusal that names the field."""
    try:
        yield
    except OSError as error:
        why = "goes through a link or a file" if error.errno in {ELOOP, ENOTDIR} else error.strerror
        message = f"{field} {path!r}: {why}"
        raise RefusedError(message) from error


class Workspace:
    """The one directory that tasks work in. Paths are relative to it, or absolute and inside it."""

    def __init__(self, root: PurePosixPath) -> None:
        self.root = root

    @contextmanager
    def folder(self, field: str, path: str) -> Iterator[int]:
        """Open a directory.

        Raises:
            RefusedError: There is none, or it is not inside.
        """
        with naming(field, path):
            folder = self._walk(self._parts(field, path), create=False)
        try:
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def parent(self, field: str, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Open the directory that a path's last name is in, and give the name; ``create`` makes those on the way.

        Raises:
            RefusedError: There is none, or it is not inside.
        """
        *way, name = self._parts(field, path) or [""]
        if not name:
            message = f"{field} {path!r}: is the workspace itself"
            raise RefusedError(message)
        with naming(field, path):
            folder = self._walk(way, create=create)
        try:
            yield folder, name
        finally:
            os.close(folder)

    def _parts(self, field: str, path: str) -> list[str]:
        pure = PurePosixPath(path)
        if pure.is_relative_to(self.root):
            pure = pure.relative_to(self.root)
        if pure.is_absolute() or ".." in pure.parts:
            message = f"{field} {path!r}: leads out of the workspace, or may"
            raise RefusedError(message)
        return list(pure.parts)

    def _walk(self, parts: list[str], *, create: bool) -> int:
        here = os.open(self.root, _FOLDER)
        for part in parts:
            try:
                if create:
                    make(here, part)
                there = os.open(part, _FOLDER, dir_fd=here)
            finally:
                os.close(here)
            here = there
        return here


def make(folder: int, name: str) -> bool:
    """Make a directory; False where there is something of that name."""
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        return False
    os.fsync(folder)
    return True
