from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from plugins.module_utils import agents

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES = Path(__file__).resolve().parents[3] / "plugins" / "modules"
OWNER = pwd.getpwuid(os.geteuid()).pw_name
GROUP = grp.getgrgid(os.getegid()).gr_name

# Ansible sends modules what they share under this name.
sys.modules["ansible.module_utils.agents"] = agents
_AS_ANSIBLE_DOES = """
import ansible.module_utils, runpy, sys
ansible.module_utils.__path__.append(sys.argv.pop(1))
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.fixture
def run_module(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run one of our modules as Ansible would on a host, in a process of its own."""

    def run(module: str, /, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        parameters = {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}
        file = tmp_path / "arguments.json"
        file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": parameters}))
        argv = [sys.executable, "-c", _AS_ANSIBLE_DOES, str(MODULES.with_name("module_utils"))]
        argv += [str(MODULES / f"{module}.py"), str(file)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    return run


@pytest.fixture
def mine() -> dict[str, str]:
    """Owner and group of files that this process may make."""
    return {"owner": OWNER, "group": GROUP}
