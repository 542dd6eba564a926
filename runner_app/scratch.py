"""What a job may write beside its workspace: its /tmp and its output, on its agent's disk and so within its size.

Jobs see an empty folder in place of the one around all this, so none can have changed another's. The claim's directory
has links to the output: whoever reads it there finds it, also that of a job which an older release started.
"""

import asyncio
import ctypes
import os
from asyncio.subprocess import DEVNULL
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path

from runner_app import progress, walls
from runner_app.execution import StartError
from runner_app.handlers.output import STDERR, STDOUT
from runner_app.journal import Claim
from runner_app.settings import Settings

_KEPT_BYTES = 64 * 1024  # of room for each stream, so that a job which fills the disk can say so
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
# By programs that no depth of folders stops; what resists is tried again when tidying.
_REMOVE = 'for path; do test ! -d "$path" || { chmod -R u+rwx -- "$path"; rm -rf -- "$path"; }; done'


class Scratch:
    """The folders of all jobs: on the agent's disk, and in memory for those that found it full."""

    def __init__(self, settings: Settings) -> None:
        self._disk = settings.tmp_dir
        self._memory = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"), "openclaw-jobs")

    def make(self, claim: Claim) -> Path | None:
        """Make a job's folder, and return its /tmp; None on a full disk: the job may be there to clean it.

        Raises:
            StartError: It cannot be made.
            OSError: There is no room for its output in memory either.
        """
        try:
            self._disk.mkdir(mode=0o700, exist_ok=True)
            if self._disk.is_symlink():
                message = f"could not be started: {self._disk} is a link: remove it"
                raise StartError(message)
            folder = self._disk / claim.name
            _make_output(folder, claim)
            (folder / "tmp").mkdir(mode=0o700, exist_ok=True)
            _link(claim.directory / progress.FILE, folder / "tmp" / walls.PROGRESS)
        except OSError as error:
            if error.errno == ENOSPC and self._disk.is_dir():
                _make_output(self._memory / claim.name, claim)
                return None
            message = f"could not be started: no /tmp for it: {error.strerror}"
            raise StartError(message) from error
        return folder / "tmp"

    async def remove(self, *names: str) -> None:
        """Remove what jobs left."""
        paths = [str(root / name) for root in (self._disk, self._memory) for name in names]
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", _REMOVE, "remove", *paths, stderr=DEVNULL)
        await process.wait()

    async def tidy(self, is_open: Callable[[str], bool]) -> None:
        """Remove what is left of attempts whose claims are closed."""
        for root in (self._disk, self._memory):
            for folder in root.glob("job-*"):
                if not is_open(folder.name):
                    await self.remove(folder.name)


def _make_output(folder: Path, claim: Claim) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (STDOUT, STDERR):
        _reserve(folder / name)
        _link(claim.directory / name, folder / name)


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _reserve(path: Path) -> None:
    """Make a file with room that nobody else can take; a file system that keeps none is as good as it can be."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if libc.fallocate(handle, _KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(_KEPT_BYTES)) and (
            ctypes.get_errno() == ENOSPC
        ):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
    finally:
        os.close(handle)
