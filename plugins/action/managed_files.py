"""Render the templates of a managed_files task on the controller, then place everything in one module run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template


class ActionModule(ActionBase):
    """Turn `template` into `content`; everything else is the module's work."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Render and place.

        Raises:
            AnsibleActionFail: A template is missing or cannot be rendered.
        """
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        files = [self._rendered(entry, task_vars) for entry in self._task.args.get("files") or []]
        result: dict[str, Any] = self._execute_module(
            module_name="ansible.legacy.managed_files",
            module_args={**self._task.args, "files": files},
            task_vars=task_vars,
        )
        return result

    def _rendered(self, entry: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if not entry.get("template"):
            return entry
        rest = {key: value for key, value in entry.items() if key not in ("template", "vars")}
        return {**rest, "content": self._render(entry["template"], {**task_vars, **(entry.get("vars") or {})})}

    def _render(self, name: str, variables: dict[str, Any]) -> str:
        try:
            source = self._find_needle("templates", name)
        except AnsibleError as error:
            raise AnsibleActionFail(f"template {name} not found: {error}") from error
        templar = self._templar.copy_with_new_env(searchpath=[str(Path(source).parent)], available_variables=variables)
        text = trust_as_template(self._loader.get_text_file_contents(source))
        overrides = {"trim_blocks": True, "lstrip_blocks": True}
        return str(templar.template(text, escape_backslashes=False, overrides=overrides) or "")
