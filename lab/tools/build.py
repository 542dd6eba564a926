"""Building a module's programs with the machine's own `go` client, as it is set up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.process import run
from lab.tools import archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.tools.modules import Module

_SECONDS_BETWEEN_LINES = 10.0
_LAST_LINES = 15


def ensure(module: Module) -> Path:
    """Return the folder with the module's programs, built where the cache has none.

    Raises:
        LabError: Go is not there or too old, or did not build it.
    """
    target = module.target
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.parent / f"{module.name}.lock"):
        if not target.is_dir():
            _build(module, target)
    return target


def go_version() -> tuple[int, ...]:
    """Return the version of `go` on PATH; it must be there."""
    said = run(["go", "env", "GOVERSION"])
    found = re.match(r"go([\d.]+)", said)
    return tuple(map(int, found[1].strip(".").split("."))) if found else ()


def _build(module: Module, target: Path) -> None:
    _check_go(module)
    # Under the lock only what an interrupted build left can be here.
    for left in target.parent.glob(f"{module.name}-*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{module.name}-", suffix=".partial", dir=target.parent))
    programs, scratch = partial / "programs", partial / "scratch"
    programs.mkdir()
    scratch.mkdir()
    try:
        _go_build(module, programs, scratch)
        for file in module.units:
            shutil.copy(_source(module) / file, programs)
        if module.units:
            archive.pack(programs, version=module.version)
        programs.rename(target)
    finally:
        shutil.rmtree(partial)


def _check_go(module: Module) -> None:
    if not shutil.which("go"):
        raise LabError(f"{module.name} must be built, and there is no go on PATH; install Go or the program itself")
    if go_version() < module.go:
        needed = ".".join(map(str, module.go))
        raise LabError(f"{module.name} {module.version} needs Go {needed} or later; this is {run(['go', 'version'])}")


def _go_build(module: Module, programs: Path, scratch: Path) -> None:
    # To inline is half of the compiler's work, and a lab's programs are fast enough without; no debugger looks at them.
    compiler, tags = "-gcflags=all=-l -dwarf=0", f"-tags={','.join(module.omitted)}"
    flags = ["-trimpath", "-buildvcs=false", compiler, tags, f"-ldflags={module.link_flags}"]
    with subprocess.Popen(
        ["go", "build", "-v", "-mod=readonly", *flags, "-o", f"{programs}/", *module.packages],
        cwd=module.folder,
        env=_environment(scratch),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as go:
        try:
            said = _follow(module, go)
        finally:
            go.kill()
    if go.returncode:
        raise LabError(f"go could not build {module.name} {module.version}:\n{said}")


def _follow(module: Module, go: subprocess.Popen[str]) -> str:
    """Say every ten seconds how far Go is, and return its last lines once it has ended."""
    started = shown = time.monotonic()
    downloaded = compiled = 0
    last: deque[str] = deque(maxlen=_LAST_LINES)
    _say(module, "building", started)
    for line in go.stdout or ():
        last.append(line)
        if line.startswith("go: downloading"):
            downloaded += 1
        else:
            compiled += 1
        if time.monotonic() - shown > _SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            _say(module, f"{downloaded} modules, {compiled} packages", started)
    if go.wait() == 0:
        _say(module, f"built: {downloaded} modules, {compiled} packages", started)
    return "".join(last)


def _say(module: Module, what: str, started: float) -> None:
    detail = f"{module.name} {module.version} {what}"
    print(f"{'tools':<14} {detail:<48} {time.monotonic() - started:6.1f} s", file=sys.stderr, flush=True)


def _source(module: Module) -> Path:
    said = run(["go", "-C", str(module.folder), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module.pin])
    return Path(said.strip())


def _environment(scratch: Path) -> dict[str, str]:
    """Return the user's environment, with a Go that fetches no other Go, and programs that need no libraries."""
    return {
        # To collect garbage is a quarter of the compiler's work, and not needed while a process is small.
        "GOGC": "off",
        "GOMEMLIMIT": "2GiB",
        **os.environ,
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
        "GOTMPDIR": str(scratch),
    }


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        flock(file, LOCK_EX)
        yield
