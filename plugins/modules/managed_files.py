#!/usr/bin/python
"""Place several files, directories and links in one module run."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: managed_files
short_description: Place several files, directories and links in one module run
description:
  - Brings a list of paths into the wanted state, in the order of the list, each atomically.
  - The directories above a path must belong to root, since links in them are followed.
options:
  files:
    description: What to place, in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path on the host.
        type: path
        required: true
      state:
        description:
          - The kind of thing that must stand there. V(absent) removes a directory with what is in it, V(vacated) only
            one that is empty.
        type: str
        choices: [file, directory, link, absent, vacated]
        default: file
      content:
        description: Text of a file. Without it and without I(template) only owner, group and mode are held.
        type: str
      template:
        description: Template of the role to render on the controller, instead of I(content).
        type: str
      vars:
        description: Variables for this template only.
        type: dict
      target:
        description: What a link points to.
        type: str
      owner:
        description: Owner of a file or directory.
        type: str
        default: root
      group:
        description: Group of a file or directory.
        type: str
        default: root
      mode:
        description: Octal mode; required for a file or directory.
        type: str
      validate:
        description: Command that must accept the new file, with C(%s) for its path, before it is put in place.
        type: str
author: openclaw-fleet
"""

RETURN = r"""
changed_paths:
  description: Paths that were (or in check mode would be) changed.
  returned: always
  type: list
"""

SUBOPTIONS: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["file", "directory", "link", "absent", "vacated"], "default": "file"},
    "content": {"type": "str"},
    "template": {"type": "str"},
    "vars": {"type": "dict"},
    "target": {"type": "str"},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str"},
    "validate": {"type": "str"},
}


class PlacementError(Exception):
    """A path cannot be brought into the wanted state; the message names it and the remedy."""


@dataclass(frozen=True)
class State:
    """What stands, or shall stand, at a path. Fields that a kind does not have are None."""

    kind: str
    content: str | None = None
    target: str | None = None
    owner: str | None = None
    group: str | None = None
    mode: str | None = None


def _name(lookup: Any, number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def read(path: Path) -> State:
    """Return what stands at the path now, without following a link."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return State("absent")
    if stat.S_ISLNK(status.st_mode):
        return State("link", target=str(path.readlink()))
    ownership = {
        "owner": _name(pwd.getpwuid, status.st_uid),
        "group": _name(grp.getgrgid, status.st_gid),
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
    }
    if stat.S_ISDIR(status.st_mode):
        return State("directory", **ownership)
    if not stat.S_ISREG(status.st_mode):
        return State("other")
    return State("file", content=path.read_text(errors="surrogateescape"), **ownership)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def wanted(entry: dict[str, Any], before: State) -> State:
    """Return what shall stand at the entry's path.

    Raises:
        PlacementError: The entry is incomplete, or something of another kind is in the way.
    """
    path, state = entry["path"], entry["state"]
    if state == "absent" or (state == "vacated" and _is_empty(Path(path))):
        return State("absent")
    if state == "vacated":
        return before
    if before.kind not in ("absent", state):
        raise PlacementError(f"{path}: there is a {before.kind} where a {state} belongs; move it away.")
    if state == "link":
        if not entry.get("target"):
            raise PlacementError(f"{path}: a link needs 'target'.")
        return State("link", target=entry["target"])
    if not entry.get("mode"):
        raise PlacementError(f"{path}: a {state} needs 'mode'.")
    content = None
    if state == "file":
        content = before.content if entry.get("content") is None else entry["content"]
    return State(
        state, content=content, owner=entry["owner"], group=entry["group"], mode=f"{int(entry['mode'], 8):04o}"
    )


def describe(path: str, before: State, after: State) -> dict[str, str]:
    """Return one entry of Ansible's diff: attributes first, then the text."""

    def text(state: State) -> str:
        if state.kind == "absent":
            return ""
        attributes = [state.kind, state.owner, state.group, state.mode, state.target]
        head = " ".join(part for part in attributes if part)
        same_attributes = (before.owner, before.group, before.mode) == (after.owner, after.group, after.mode)
        lines = [] if same_attributes and state.kind == "file" else [head]
        return "\n".join([*lines, _shown(state.content or "")])

    return {"before_header": path, "after_header": path, "before": text(before), "after": text(after)}


def _shown(content: str) -> str:
    """Return what a person can read, and Ansible's reader of results too: a program has bytes that are no text."""
    try:
        content.encode()
    except UnicodeEncodeError:
        return f"({len(content)} characters, not text)\n"
    return content


def _owner_ids(state: State) -> tuple[int, int]:
    try:
        return pwd.getpwnam(state.owner or "").pw_uid, grp.getgrnam(state.group or "").gr_gid
    except KeyError as error:
        raise PlacementError(f"owner {state.owner} or group {state.group} does not exist: {error}") from error


def _write(path: Path, state: State, validate: str | None) -> None:
    uid, gid = _owner_ids(state)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", errors="surrogateescape") as stream:
            stream.write(state.content or "")
            stream.flush()
            os.fchown(stream.fileno(), uid, gid)
            os.fchmod(stream.fileno(), int(state.mode or "", 8))
            os.fsync(stream.fileno())
        if validate:
            check(path, temporary, validate)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check(path: Path, candidate: Path, validate: str) -> None:
    """Let a command judge a candidate file.

    Raises:
        PlacementError: The command refused it; its output is in the message.
    """
    argv = [word.replace("%s", str(candidate)) for word in shlex.split(validate)]
    run = subprocess.run(argv, capture_output=True, text=True, check=False)
    if run.returncode:
        raise PlacementError(f"{path}: refused by '{validate}': {(run.stderr or run.stdout).strip()}")


def _remove(path: Path, before: State) -> None:
    if before.kind == "directory":
        shutil.rmtree(path)
        return
    path.unlink(missing_ok=True)


def _link(path: Path, target: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _set_attributes(path: Path, state: State) -> None:
    uid, gid = _owner_ids(state)
    os.chown(path, uid, gid, follow_symlinks=False)
    path.chmod(int(state.mode or "", 8))


def place(path: Path, before: State, after: State, validate: str | None = None) -> None:
    """Bring the path from one state into the other.

    Raises:
        PlacementError: Nothing was changed at this path.
    """
    if after.kind == "absent":
        _remove(path, before)
    elif after.kind == "link":
        _link(path, after.target or "")
    elif after.kind == "file" and before.content != after.content:
        _write(path, after, validate)
    elif before.kind == "absent" and after.content is None and after.kind == "file":
        raise PlacementError(f"{path}: does not exist, and no content is given.")
    else:
        if after.kind == "directory" and before.kind == "absent":
            path.mkdir(mode=0o700)
        _set_attributes(path, after)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True, "options": SUBOPTIONS},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    diffs: list[dict[str, str]] = []
    changed: list[str] = []
    try:
        for entry in module.params["files"]:
            path = Path(entry["path"])
            before = read(path)
            after = wanted(entry, before)
            if before == after:
                continue
            diffs.append(describe(entry["path"], before, after))
            if not module.check_mode:
                place(path, before, after, entry["validate"])
            changed.append(entry["path"])
    except (OSError, PlacementError) as error:
        module.fail_json(msg=str(error), changed=bool(changed), changed_paths=changed)
    module.exit_json(changed=bool(changed), changed_paths=changed, diff=diffs)


if __name__ == "__main__":
    main()
