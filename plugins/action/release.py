"""Find or build an app's artefact on the controller, and copy it to a host that lacks the release."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

PLUGINS = Path(__file__).resolve().parent.parent


def _load(name: str) -> Any:
    """Import a module beside this folder; Ansible's loader puts neither of them on the path."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, PLUGINS / f"{name}.py")
        if spec is None or spec.loader is None:
            raise AnsibleActionFail(f"{PLUGINS / name}.py is missing.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


class ActionModule(ActionBase):
    """Ask the host first; copy only when it says that the release is missing."""

    # The folder for the artefact is made only where it is needed.
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Provide the artefact, then install it.

        Raises:
            AnsibleActionFail: It cannot be built, or facts about the host are missing.
        """
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        built = self._artefact(task_vars)
        arguments = {**self._task.args, "name": built.release, "sha256": built.sha256}
        result = self._module(arguments, task_vars)
        if not result.get("missing") or self._task.check_mode:
            return result
        remote = self._connection._shell.join_path(self._make_tmp_path(), built.path.name)
        self._transfer_file(str(built.path), remote)
        self._fixup_perms2([self._connection._shell.tmpdir, remote])
        try:
            return self._module({**arguments, "src": remote}, task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="ansible.legacy.release", module_args=arguments, task_vars=task_vars
        )
        return result

    def _artefact(self, task_vars: dict[str, Any]) -> Any:
        facts = task_vars.get("ansible_facts", {})
        if "python" not in facts or "architecture" not in facts:
            raise AnsibleActionFail("the host's facts are missing; gather them first (gather_facts: true).")
        artefact = _load("artefact")
        version = facts["python"]["version"]
        target = artefact.Target(f"{version['major']}.{version['minor']}", facts["architecture"])
        cache = Path(self._task.args.get("cache") or "~/.cache/openclaw-fleet/artefacts").expanduser()
        try:
            return artefact.provide(PLUGINS.parent, self._task.args["app"], target, cache)
        except (OSError, artefact.ArtefactError) as error:
            raise AnsibleActionFail(f"artefact of {self._task.args['app']}: {error}") from error
