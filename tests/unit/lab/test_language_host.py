"""The language host beside the engine, which calls it in tests/infra: how programs end, and which plugins they need."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import language_pb2

from lab.engine import program
from lab.engine.host import Host, packages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NO_CONTEXT: Any = None


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Host, str], language_pb2.RunResponse]:
    """Return what has a host run some Python in the place of what runs programs."""

    def run(host: Host, code: str) -> language_pb2.RunResponse:
        script = tmp_path / "program.py"
        script.write_text(code)
        monkeypatch.setattr(program, "__file__", str(script))
        request = language_pb2.RunRequest(pwd=str(tmp_path), config={"fleet:word": "Foolproof"})
        request.info.root_directory = str(tmp_path)
        request.info.options.update({"virtualenv": sys.prefix})
        return host.Run(request, NO_CONTEXT)

    return run


@pytest.mark.parametrize(
    ("status", "bail", "error"),
    [(0, False, ""), (program.TOLD, True, ""), (3, False, "the program ended with status 3")],
)
def test_how_a_program_ended_is_told(
    run: Callable[[Host, str], language_pb2.RunResponse], status: int, bail: bool, error: str
) -> None:
    told = run(Host(""), f"import json, sys\nassert json.load(sys.stdin)['config']\nsys.exit({status})")
    assert (told.bail, told.error) == (bail, error)


def test_a_program_does_not_find_the_modules_of_the_host_s_folder(
    run: Callable[[Host, str], language_pb2.RunResponse], tmp_path: Path
) -> None:
    (tmp_path / "beside.py").touch()
    assert run(Host(""), "import beside").error == "the program ended with status 1"


def test_a_program_that_runs_is_ended_at_a_cancel(
    run: Callable[[Host, str], language_pb2.RunResponse], tmp_path: Path
) -> None:
    host, started = Host(""), tmp_path / "started"
    with ThreadPoolExecutor() as thread:
        told = thread.submit(run, host, f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(20)")
        while not started.exists() and not told.done():
            time.sleep(0.01)
        host.Cancel(Empty(), NO_CONTEXT)
        assert told.result().error == "the program ended with status -15"


def test_only_sdks_that_have_a_plugin_need_one(tmp_path: Path) -> None:
    for name, resource in (("one", True), ("other", False)):
        file = tmp_path / f"lib/python3.11/site-packages/pulumi_{name}/pulumi-plugin.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"name": name, "version": "1.0.0", "resource": resource}))
    assert [package["name"] for package in packages(tmp_path)] == ["one"]
