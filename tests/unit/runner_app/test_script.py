"""script: payload → command, and the command run."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from runner_app import execution
from runner_app.handlers.script import parse
from runner_app.job import Command, JobFailedError

if TYPE_CHECKING:
    from runner_app.settings import Settings


def run(payload: dict[str, Any], settings: Settings, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script as the process backend does."""
    line = execution.becoming(parse("script", json.dumps(payload), settings))
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(["/bin/sh"], input=line, env=environment, capture_output=True, text=True, check=False)


def test_node_is_the_default(settings: Settings) -> None:
    done = run({"script": "console.log(JSON.stringify(process.argv.slice(2)))", "args": ["--a b", "$c", ""]}, settings)
    assert (done.returncode, done.stdout) == (0, '["--a b","$c",""]\n')


def test_python(settings: Settings) -> None:
    (settings.workspace / "there").mkdir()
    script = "import os, sys\nprint(sys.argv[1:], os.path.basename(os.getcwd()), sys.stdin.read())"
    done = run({"script": script, "language": "python", "args": ["-x"], "cwd": "there"}, settings)
    assert (done.returncode, done.stdout) == (0, "['-x'] there \n")


@pytest.mark.parametrize("text", ["é\u0081 'x' \"y\" $HOME `id` \\ \u2028", "a" * 200_000, "END-1\nEOF\n'"])
def test_a_script_arrives_as_it_was_sent(text: str, settings: Settings) -> None:
    done = run({"script": f"import sys\nsys.stdout.write({text!r})", "language": "python"}, settings)
    assert done.stdout == text


def test_no_line_of_a_script_is_its_end(settings: Settings) -> None:
    end = execution.stdin(Command(argv=(), cwd="", timeout_ms=1, stdin="another script")).splitlines()[-1]
    done = run({"script": f"_ = '''\n{end}\n'''\nprint('whole')", "language": "python"}, settings)
    assert done.stdout == "whole\n"


def test_a_script_that_fails(settings: Settings) -> None:
    assert run({"script": "process.exit(3)"}, settings).returncode == 3


def test_an_interpreter_that_is_not_there_is_said(settings: Settings) -> None:
    done = run({"script": "1"}, settings, PATH="/nowhere")
    assert (done.returncode, done.stderr) == (127, "script: node is not installed on this agent's host\n")


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        ("console.log(1)", "JSON object with script, args, language"),
        ({}, "script"),
        ({"script": " "}, "script"),
        ({"script": "a\0"}, "script"),
        ({"script": "\ud800"}, "script"),
        ({"script": "1", "args": "a"}, "args"),
        ({"script": "1", "args": ["a", 1]}, r"args\[1\]"),
        ({"script": "1", "args": ["\0"]}, r"args\[0\]"),
        ({"script": "1", "language": "perl"}, "language must be node or python"),
        ({"script": "1", "language": ["node"]}, "language"),
        ({"script": "1", "cwd": "/etc"}, "cwd"),
        ({"script": "1", "timeout": 0}, "timeout"),
        ({"script": "1", "file": "x"}, "unknown key 'file'"),
    ],
)
def test_refused(payload: Any, named: str, settings: Settings) -> None:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    with pytest.raises(JobFailedError, match=f"script: .*{named}"):
        parse("script", text, settings)
