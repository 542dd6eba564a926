"""Hand Tailscale's archive over to a host that lacks its version."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Ask the host first; look at the archive and copy it only when the host says that it lacks the version."""

    # The folder for the archive is made only where it is needed.
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check and copy the archive where it is needed, and install it.

        Raises:
            AnsibleActionFail: The archive is not there, or is another.
        """
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        result = self._module(self._task.args, task_vars)
        if not result.get("missing"):
            return result
        archive = self._checked()
        if self._task.check_mode:
            return result
        remote = self._connection._shell.join_path(self._make_tmp_path(), archive.name)
        self._transfer_file(str(archive), remote)
        self._fixup_perms2([self._connection._shell.tmpdir, remote])
        try:
            return self._module({**self._task.args, "src": remote}, task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="ansible.legacy.tailscale_archive", module_args=arguments, task_vars=task_vars
        )
        return result

    def _checked(self) -> Path:
        archive, wanted = Path(self._task.args["archive"]).expanduser(), self._task.args["sha256"]
        try:
            found = hashlib.sha256(archive.read_bytes()).hexdigest()
        except OSError as error:
            raise AnsibleActionFail(f"tailscale_archive: {error}; it must be on the controller.") from error
        if found != wanted:
            raise AnsibleActionFail(
                f"tailscale_archive: {archive} has the checksum {found}, and tailscale_archive_checksum says {wanted}."
                " Fetch it anew, and compare with the checksum that Tailscale publishes."
            )
        return archive
