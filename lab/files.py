"""Files that others read meanwhile, or after a crash."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace(file: Path, content: str | bytes, *, mode: int = 0o666) -> None:
    """Write a file anew: it is the old one until it is whole. Its mode (less the umask) is its own from the start."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")  # two processes may write the same file at once
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as opened:
        opened.write(content.encode() if isinstance(content, str) else content)
    partial.replace(file)
