"""Programs that a lab needs and Debian does not bring: Pulumi's engine, Tailscale's two programs, and headscale.

One of the pinned version on PATH is used as it is. Else it is built from the Go module proxy, by the module of its own
in this folder, whose go.mod pins it and whose go.sum every source is held against, once into the lab's cache.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from lab.tools import archive, build
from lab.tools.modules import MODULES, Module, owner

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ensure", "is_cached", "missing", "path", "tailscale_archive"]

NAMES = tuple(name for module in MODULES for name in module.programs)
# A build takes what the machine has, and its memory too.
_BUILDS_AT_ONCE = 2


def path(name: str) -> Path:
    """Return a program of NAMES, built where it must be; that takes minutes, and says on stderr how far it is.

    Raises:
        LabError: it could not be built; the message holds what Go said.
    """
    module = owner(name)
    return _on_path(name) or build.ensure(module) / name


def ensure(names: Iterable[str] = NAMES) -> None:
    """Have several programs built, two modules at a time at the most; else as `path`."""
    modules = {owner(name) for name in names if not _on_path(name)}
    with ThreadPoolExecutor(max_workers=_BUILDS_AT_ONCE) as pool:
        list(pool.map(build.ensure, sorted(modules, key=lambda module: module.name)))


def is_cached(name: str) -> bool:
    """Say whether the program is there without a build."""
    return _on_path(name) is not None or owner(name).is_built


def tailscale_archive() -> Path:
    """Return `tailscale_<version>_<arch>.tgz`, laid out as Tailscale's static archive; its SHA-256 is beside it.

    Always of the module's own build: what a package put on PATH may need the libraries of this machine.
    """
    module = owner("tailscale")
    return archive.file(build.ensure(module), version=module.version)


def missing() -> str | None:
    """Return what this machine lacks for the programs that are not there yet, or None."""
    absent = [module for module in MODULES if not _is_there(module)]
    if not absent:
        return None
    needed = max(module.go for module in absent)
    wanted = f"{' and '.join(module.name for module in absent)} must be built with Go {_dotted(needed)} or later"
    if not shutil.which("go"):
        return f"{wanted}, and there is no go on PATH"
    have = build.go_version()
    return None if have >= needed else f"{wanted}, and this is Go {_dotted(have)}"


def _is_there(module: Module) -> bool:
    # The archive is made of the build, whatever is on PATH.
    return module.is_built or (module.name != "tailscale" and all(map(_on_path, module.programs)))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


@functools.cache
def _on_path(name: str) -> Path | None:
    """Return the program on PATH where it says that it is of the pinned version."""
    found = shutil.which(name)
    if not found:
        return None
    module = owner(name)
    said = subprocess.run(
        [found, *module.ask_version],
        env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    ).stdout
    pinned = re.escape(module.version.removeprefix("v"))
    return Path(found) if re.match(rf"(\S+ version )?v?{pinned}(\s|$)", said) else None
