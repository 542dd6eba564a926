"""Tools are built once, from what their go.mod and go.sum pin, and what was interrupted is never taken for one."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import tools
from lab.errors import LabError
from lab.process import PROJECT, wait_until
from lab.tools import archive, build, modules
from lab.tools.modules import MODULES, Module

if TYPE_CHECKING:
    from collections.abc import Callable

_HELLO = Module("hello", pin="example.lab/hello", programs=("hello",), version_variables=("main.version",))
_SOURCE = 'package main\n\nvar version = "none"\n\nfunc main() { println(version) }\n'
needs_go = pytest.mark.skipif(not shutil.which("go"), reason="there is no go on PATH")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Go's own cache of compiled packages stays the user's: XDG_CACHE_HOME would move it too.
    monkeypatch.setattr("lab.folders.cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(modules, "_FOLDER", tmp_path)
    tools._on_path.cache_clear()


@pytest.fixture
def hello(tmp_path: Path) -> Module:
    """A module that pins a small one, which is on this disk."""
    folder = tmp_path / "hello"
    (folder / "sources/cmd/hello").mkdir(parents=True)
    (folder / "go.mod").write_text(
        "module lab\n\ngo 1.24\n\ntool example.lab/hello/cmd/hello\n\n"
        "require example.lab/hello v1.2.3\n\nreplace example.lab/hello => ./sources\n"
    )
    (folder / "go.sum").touch()
    (folder / "sources/go.mod").write_text("module example.lab/hello\n\ngo 1.24\n")
    (folder / "sources/cmd/hello/main.go").write_text(_SOURCE)
    return _HELLO


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a shell script in front of all else on PATH."""

    def put(name: str, script: str) -> Path:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return put


def _leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.partial"))


# The real Go


@needs_go
def test_a_tool_is_built_once_and_knows_its_version(hello: Module, capfd: pytest.CaptureFixture[str]) -> None:
    program = build.ensure(hello) / "hello"
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    assert done.stderr == "v1.2.3\n"
    assert "hello v1.2.3 built" in capfd.readouterr().err
    assert build.ensure(hello) / "hello" == program
    assert "built" not in capfd.readouterr().err
    assert not _leftovers(hello.target.parent)


@needs_go
def test_other_pins_are_another_tool(hello: Module) -> None:
    before = build.ensure(hello)
    go_mod = hello.folder / "go.mod"
    go_mod.write_text(go_mod.read_text().replace("v1.2.3", "v1.2.4"))
    assert not hello.is_built
    assert build.ensure(hello) != before
    assert (before / "hello").exists()


@needs_go
def test_what_go_says_of_a_build_that_fails_is_shown(hello: Module) -> None:
    (hello.folder / "sources/cmd/hello/main.go").write_text("package main\n\nfunc main() { nothing() }\n")
    with pytest.raises(LabError, match="undefined: nothing"):
        build.ensure(hello)
    assert not hello.is_built
    assert not _leftovers(hello.target.parent)


@needs_go
@pytest.mark.parametrize(
    ("sums", "message"),
    [
        ("", "missing go.sum entry"),
        ("example.lab/hello v1.2.3 h1:{0}=\nexample.lab/hello v1.2.3/go.mod h1:{0}=\n", "SECURITY ERROR"),
    ],
)
def test_sources_that_go_sum_does_not_hold_are_refused(
    hello: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sums: str, message: str
) -> None:
    go_mod = hello.folder / "go.mod"
    go_mod.write_text(go_mod.read_text().partition("\nreplace")[0])
    (hello.folder / "go.sum").write_text(sums.format("A" * 43))
    _serve_by_proxy(tmp_path, monkeypatch)
    with pytest.raises(LabError, match=message):
        build.ensure(hello)
    assert not hello.is_built


def _serve_by_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Go take the module from a folder in the form of a module proxy (https://go.dev/ref/mod#goproxy-protocol)."""
    versions = tmp_path / "proxy/example.lab/hello/@v"
    versions.mkdir(parents=True)
    (versions / "v1.2.3.info").write_text('{"Version": "v1.2.3"}')
    (versions / "v1.2.3.mod").write_text("module example.lab/hello\n\ngo 1.24\n")
    with zipfile.ZipFile(versions / "v1.2.3.zip", "w") as packed:
        packed.writestr("example.lab/hello@v1.2.3/go.mod", "module example.lab/hello\n\ngo 1.24\n")
        packed.writestr("example.lab/hello@v1.2.3/cmd/hello/main.go", _SOURCE)
    monkeypatch.setenv("GOPROXY", f"file://{tmp_path / 'proxy'}")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("GOFLAGS", "-modcacherw")


# Builds that are slow, at once, or cut short: a script in the place of Go

_SLOW_GO = """
[ "$1" = env ] && echo go9.9.9 && exit
while [ "$1" != -o ]; do shift; done
echo + >> "$LOG"; sleep "${SECONDS_A_BUILD}"; echo - >> "$LOG"
: > "$2/hello"
"""


@pytest.fixture
def log(tmp_path: Path, on_path: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have builds be slow; the file has a + for each that began, and a - for each that ended."""
    on_path("go", _SLOW_GO)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("SECONDS_A_BUILD", "0.4")
    return tmp_path / "log"


def _pinned(tmp_path: Path, name: str) -> Module:
    (tmp_path / name).mkdir()
    (tmp_path / name / "go.mod").write_text(
        f"go 1.24\n\ntool example.lab/hello/cmd/{name}\n\nexample.lab/hello v1.2.3\n"
    )
    (tmp_path / name / "go.sum").touch()
    return Module(name, pin="example.lab/hello", programs=(name,), version_variables=())


def test_two_at_a_time_are_built_at_the_most(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_of_them = tuple(_pinned(tmp_path, f"tool-{number}") for number in range(4))
    monkeypatch.setattr(modules, "MODULES", all_of_them)
    tools.ensure(module.name for module in all_of_them)
    running = most = 0
    for line in log.read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert (running, most) == (0, 2)
    assert all(module.is_built for module in all_of_them)


def test_who_comes_while_it_is_built_waits_for_that_build(tmp_path: Path, log: Path) -> None:
    module = _pinned(tmp_path, "hello")
    with ThreadPoolExecutor() as pool:
        built = set(pool.map(build.ensure, [module] * 3))
    assert built == {module.target}
    assert log.read_text().split() == ["+", "-"]


_BUILD = """
import sys
from pathlib import Path
from lab import folders
from lab.tools import build, modules
from lab.tools.modules import Module
folder = Path(sys.argv[1])
folders.cache = lambda: folder / "cache"
modules._FOLDER = folder
build.ensure(Module("hello", pin="example.lab/hello", programs=("hello",), version_variables=()))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_cut_short_is_not_taken_for_a_tool(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    monkeypatch.setenv("SECONDS_A_BUILD", "3")
    module = _pinned(tmp_path, "hello")
    builder = subprocess.Popen([sys.executable, "-c", _BUILD, str(tmp_path)], cwd=PROJECT, stderr=subprocess.DEVNULL)
    wait_until(lambda: log.exists() or None, what="the build", timeout=20)
    builder.send_signal(how)
    builder.wait()
    assert not module.is_built
    assert bool(_leftovers(module.target.parent)) is (how is signal.SIGKILL)
    monkeypatch.setenv("SECONDS_A_BUILD", "0")
    assert (build.ensure(module) / "hello").exists()
    assert not _leftovers(module.target.parent)


# What is on PATH, and what is missing


@pytest.mark.parametrize(
    ("said", "taken"), [("v1.2.3", True), ("1.2.3", True), ("v1.2.30", False), ("v1.2.3-dev", False), ("", False)]
)
def test_a_program_on_path_is_taken_only_of_the_pinned_version(
    tmp_path: Path, on_path: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, said: str, taken: bool
) -> None:
    monkeypatch.setattr(modules, "MODULES", (_pinned(tmp_path, "hello"),))
    program = on_path("hello", f"echo '{said}'; echo v1.2.3")
    assert tools.is_cached("hello") is taken
    if taken:
        assert tools.path("hello") == program


def test_a_machine_without_go_is_told_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "MODULES", (module := _pinned(tmp_path, "hello"),))
    monkeypatch.setattr(modules, "MODULES", (module,))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.missing() == "hello must be built with Go 1.24 or later, and there is no go on PATH"
    with pytest.raises(LabError, match="no go on PATH"):
        tools.path("hello")


def test_a_machine_with_an_older_go_is_told_so(
    tmp_path: Path, on_path: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "MODULES", (module := _pinned(tmp_path, "hello"),))
    monkeypatch.setattr(modules, "MODULES", (module,))
    on_path("go", "echo go1.9.1")
    assert tools.missing() == "hello must be built with Go 1.24 or later, and this is Go 1.9.1"
    with pytest.raises(LabError, match=r"needs Go 1.24 or later"):
        tools.path("hello")
    on_path("go", "echo go1.24")
    assert tools.missing() is None


def test_an_unknown_tool_is_named_with_those_there_are() -> None:
    with pytest.raises(LabError, match="no tool 'kubectl'; there are: pulumi, tailscale, tailscaled, headscale"):
        tools.path("kubectl")


# What is checked in


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_each_module_pins_what_it_brings(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_FOLDER", Path(modules.__file__).parent)
    assert sorted(package.rpartition("/")[2] for package in module.packages) == sorted(module.programs)
    assert all(package.startswith(module.pin) for package in module.packages)
    sums = (module.folder / "go.sum").read_text()
    assert f"{module.pin} {module.version} h1:" in sums
    assert all(len(line.split()) == 3 and line.split()[2].startswith("h1:") for line in sums.splitlines())
    assert "://" not in sums + (module.folder / "go.mod").read_text()


def test_the_versions_are_those_the_lab_was_tried_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_FOLDER", Path(modules.__file__).parent)
    versions = {module.name: module.version for module in MODULES}
    assert versions == {"pulumi": "v3.250.0", "tailscale": "v1.102.5", "headscale": "v0.26.1"}


def test_the_archive_is_laid_out_as_tailscales_and_is_the_same_each_time(tmp_path: Path) -> None:
    names = ("tailscale", "tailscaled", "tailscaled.service", "tailscaled.defaults")
    archives: list[Path] = []
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
        os.utime(folder / "tailscale", (len(archives) * 1e6, 1e6))
        archive.pack(folder, version="v1.2.3")
        archives.append(archive.file(folder, version="v1.2.3"))
    content = archives[0].read_bytes()
    assert content == archives[1].read_bytes()
    top = archives[0].name.removesuffix(".tgz")
    assert top.startswith("tailscale_1.2.3_")
    with tarfile.open(archives[0]) as tar:
        assert {entry.name: oct(entry.mode) for entry in tar if entry.isfile()} == {
            f"{top}/tailscale": "0o755",
            f"{top}/tailscaled": "0o755",
            f"{top}/systemd/tailscaled.service": "0o644",
            f"{top}/systemd/tailscaled.defaults": "0o644",
        }
    noted = archives[0].with_name(f"{archives[0].name}.sha256").read_text()
    assert noted == f"{hashlib.sha256(content).hexdigest()}  {archives[0].name}\n"


@needs_go
def test_what_is_omitted_is_not_built_and_both_have_a_place_in_the_cache(hello: Module, tmp_path: Path) -> None:
    part = tmp_path / "hello/sources/cmd/hello/part.go"
    part.write_text('//go:build !omit_part\n\npackage main\n\nfunc init() { version += " with its part" }\n')
    built = [build.ensure(module) / "hello" for module in (hello, replace(hello, omitted=("omit_part",)))]
    said = [subprocess.run([program], capture_output=True, text=True, check=True).stderr for program in built]
    assert said == ["v1.2.3 with its part\n", "v1.2.3\n"]
