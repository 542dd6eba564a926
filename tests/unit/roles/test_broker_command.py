"""The command that the role installs for root: as the broker's user, with the service's settings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from jinja2 import Environment, StrictUndefined

TEMPLATE = Path(__file__).parents[3] / "roles/broker/templates/openclaw-broker.sh.j2"


@pytest.mark.parametrize(("environment", "who"), [({"SUDO_USER": "alice"}, "alice"), ({}, "root")])
def test_it_says_for_the_trail_who_ran_it(tmp_path: Path, environment: dict[str, str], who: str) -> None:
    for name, text in (("id", "echo 0"), ("setpriv", 'echo "$SUDO_USER $BROKER_PORT"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "env").write_text("BROKER_PORT=1\n")
    template = Environment(undefined=StrictUndefined, autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    script = template.render(
        broker_volume="", _broker_state=tmp_path, _broker_env_file=tmp_path / "env", _broker_user="b", _broker_home="/b"
    )
    environment = environment | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{who} 1\n"
