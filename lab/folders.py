"""Where the lab keeps things: a cache that stays, and a folder per lab that `down` removes."""

from __future__ import annotations

import os
from pathlib import Path

LABS = Path("/var/lib/openclaw-lab")


def cache() -> Path:
    """Return the folder of what is costly to make again: images, downloaded packages, built releases."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "openclaw-fleet"
