"""Wake-ups when a record appears in a directory (inotify): no polling, and no D-Bus traffic."""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_CREATE = 0x100
_IN_MOVED_TO = 0x80
_EVENT = struct.Struct("iIII")


class Watcher:
    """Sets an event for each directory in which a file was created."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._check(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._events: dict[int, asyncio.Event] = {}
        asyncio.get_running_loop().add_reader(self._handle, self._read)

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)

    @contextmanager
    def watching(self, directory: Path) -> Iterator[asyncio.Event]:
        """Watch one directory; it must not be watched twice at once."""
        mask = _IN_CREATE | _IN_MOVED_TO
        watch = self._check(self._libc.inotify_add_watch(self._handle, os.fsencode(directory), mask))
        self._events[watch] = event = asyncio.Event()
        try:
            yield event
        finally:
            del self._events[watch]
            self._libc.inotify_rm_watch(self._handle, watch)

    def _read(self) -> None:
        data = os.read(self._handle, 64 * 1024)
        offset = 0
        while offset < len(data):
            watch, _, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            if event := self._events.get(watch):
                event.set()

    @staticmethod
    def _check(result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result
