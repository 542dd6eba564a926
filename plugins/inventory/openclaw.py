"""The nodes of a Pulumi stack as an Ansible inventory: what `pulumi stack output --json` says of them."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any, NoReturn

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = r"""
name: openclaw
short_description: The nodes of a Pulumi stack
description:
  - Reads the output C(inventory) of the stack that is selected in this project, by C(pulumi stack output --json), or
    from a file that holds what this command printed.
  - Nodes are reached by their names in the tailnet. They are in the group of their role (C(brokers), C(runners),
    C(gateways)) and in the group C(tailnet).
  - What Ansible and the stack must do alike has the stack's values. C(tailnet) has C(tailscale_login_server),
    C(tailscale_install) with C(tailscale_version) or C(tailscale_archive_checksum), and C(tailnet_udp). Each node has
    C(broker_port), which so counts more than that in C(group_vars/all.yml).
  - Where Pulumi is not installed, or no stack is selected, there are no nodes, and that is no error. To be logged out
    is one where C(infra) has the configuration of a stack.
options:
  plugin:
    description: Has to be V(openclaw).
    required: true
    choices: [openclaw]
  outputs:
    description:
      - A file that holds what C(pulumi stack output --json) printed; the stack itself is not asked then.
      - An empty one, such as V(/dev/null), has no nodes.
    type: path
    env:
      - name: OPENCLAW_OUTPUTS
  tailscale:
    description:
      - The C(tailscale) command through which ssh connects (C(tailscale nc)), with its options. Only the tailnet
        carries a connection then, so that nobody else can answer in a node's place when its host key is learnt.
      - With V(none), or an empty one, ssh connects by itself, by the system's names and routes. Whoever rules these is
        believed at the first connection.
    type: string
    default: tailscale
    env:
      - name: OPENCLAW_TAILSCALE
  timeout:
    description: Seconds to wait for pulumi's answer.
    type: float
    default: 60
    env:
      - name: OPENCLAW_PULUMI_SECONDS
"""

EXAMPLES = r"""
plugin: openclaw
"""

VERSION = 1
GROUPS = {"broker": "brokers", "runner": "runners", "gateway": "gateways"}
TAILNET = "tailnet"
USER = "deploy"
PLAIN_SSH = ("", "none")
PROJECT = Path(__file__).resolve().parents[2]
# What pulumi says where it has nothing to say of this project, and what helps where it cannot tell.
_NO_STACK = "no stack selected"
_LOGGED_OUT = "PULUMI_ACCESS_TOKEN must be set for login"
_NO_STACKS_OF_YOURS = {"Pulumi.example.yaml", "Pulumi.lab.yaml"}
_REMEDIES = (
    (_LOGGED_OUT, "`pulumi login`, to where the state of this project's stack is"),
    ("PULUMI_CONFIG_PASSPHRASE", "set PULUMI_CONFIG_PASSPHRASE, or PULUMI_CONFIG_PASSPHRASE_FILE, as for `pulumi up`"),
    ("incorrect passphrase", "PULUMI_CONFIG_PASSPHRASE is not the one that this stack was made with"),
    ("no stack named", "`pulumi stack ls` lists those there are, `pulumi stack select` takes one"),
)


class InventoryModule(BaseInventoryPlugin):
    """Adds each node of the stack with what it takes to reach it."""

    NAME = "openclaw"

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add hosts and groups.

        Raises:
            AnsibleParserError: There is a stack, and its nodes cannot be told.
        """
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        for group in (*GROUPS.values(), TAILNET):
            inventory.add_group(group)
        saved = self.get_option("outputs")
        outputs = _saved(Path(saved)) if saved else self._asked()
        if outputs is not None:
            self._add(inventory, _stack(outputs))

    def _asked(self) -> dict[str, Any] | None:
        try:
            return _asked(self.get_option("timeout"))
        except NoStackError as none:
            self.display.v(f"openclaw: no nodes of a Pulumi stack: {none}")
            return None

    def _add(self, inventory: Any, stack: dict[str, Any]) -> None:
        known_hosts = _known_hosts(stack["stack"])
        tailscale = self.get_option("tailscale")
        for key, value in _shared(stack["settings"]).items():
            inventory.set_variable(TAILNET, key, value)
        for node in stack["hosts"]:
            name = node["name"]
            inventory.add_host(name, group=GROUPS[node["role"]])
            inventory.add_host(name, group=TAILNET)
            for key, value in _variables(node, stack["domain"], known_hosts, tailscale).items():
                inventory.set_variable(name, key, value)
            inventory.set_variable(name, "broker_port", stack["settings"]["broker_port"])


class NoStackError(Exception):
    """There is no Pulumi here, or no stack of this project is selected."""


def _saved(file: Path) -> dict[str, Any] | None:
    try:
        text = file.read_text()
    except OSError as error:
        raise AnsibleParserError(f"the saved outputs (OPENCLAW_OUTPUTS) cannot be read: {error}") from error
    return _object(text, str(file)) if text.strip() else None


def _asked(seconds: float) -> dict[str, Any]:
    try:
        done = subprocess.run(
            ["pulumi", "stack", "output", "--json", "--non-interactive"],
            cwd=PROJECT,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise NoStackError("there is no pulumi on PATH") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AnsibleParserError(
            f"`pulumi stack output` did not answer: {error}; try it by hand, or give a saved output (OPENCLAW_OUTPUTS)"
        ) from error
    if done.returncode:
        _refuse(done.stderr.strip() or done.stdout.strip())
    return _object(done.stdout, "`pulumi stack output --json`")


def _refuse(said: str) -> NoReturn:
    if _NO_STACK in said or (_LOGGED_OUT in said and not _has_stack()):
        raise NoStackError(said)
    remedy = next((remedy for words, remedy in _REMEDIES if words in said), "try `pulumi stack output` by hand")
    raise AnsibleParserError(f"`pulumi stack output` failed: {said}\nRemedy: {remedy}.")


def _has_stack() -> bool:
    """Say whether this project was configured for a stack, selected or not."""
    found = {file.name for file in (PROJECT / "infra").glob("Pulumi.*.yaml")}
    return bool(found - _NO_STACKS_OF_YOURS)


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise AnsibleParserError(f"{source} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise AnsibleParserError(f"{source} holds no outputs of a stack: it has to be a JSON object")
    return value


def _stack(outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the output `inventory`, with nothing in it that would surprise further on."""
    stack = outputs.get("inventory")
    if not isinstance(stack, dict):
        raise AnsibleParserError(
            "the stack has no output `inventory`: it has no nodes yet, or its first `pulumi up` failed; say `pulumi up`"
        )
    if stack.get("version") != VERSION:
        raise AnsibleParserError(
            f"the stack's output `inventory` has version {stack.get('version')!r}, and this kit reads {VERSION}: "
            "say `pulumi up` with this version of the kit"
        )
    _check(stack, {"stack": (str,), "domain": (str,), "settings": (dict,), "hosts": (list,)})
    _check(stack["settings"], {"login_server": (str,), "version": (str,), "broker_port": (int,), "udp": (bool,)})
    for node in stack["hosts"]:
        _check(node, {"name": (str,), "role": (str,), "id": (int, str)})
    if unknown := {node["role"] for node in stack["hosts"]} - set(GROUPS):
        raise AnsibleParserError(f"nodes of the stack have roles this kit does not know: {', '.join(sorted(unknown))}")
    return stack


def _check(part: Any, needed: dict[str, tuple[type, ...]]) -> None:
    for key, kinds in needed.items():
        if not isinstance(part, dict) or not isinstance(part.get(key), kinds):
            kind = " or ".join(each.__name__ for each in kinds)
            raise AnsibleParserError(f"the stack's output `inventory` is damaged: `{key}` is no {kind} in {part!r}")


def _shared(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what all nodes have in common; where the archive itself is on this machine, the stack cannot say."""
    checksum = settings.get("archive_sha256")
    return {
        "tailscale_login_server": settings["login_server"],
        "tailscale_install": "archive" if checksum else "package",
        **({"tailscale_archive_checksum": checksum} if checksum else {"tailscale_version": settings["version"]}),
        "tailnet_udp": settings["udp"],
    }


def _variables(node: dict[str, Any], domain: str, known_hosts: Path, tailscale: str) -> dict[str, Any]:
    """Return what Ansible needs to know of one node.

    A rebuilt server has the name of the old one and another id: it is another host to ssh, with another host key and
    no connection left over from before. Nor is there one to another stack's node of that name and id, as two clouds, or
    two labs, may have them.
    """
    address = f"{node['name']}.{domain}"
    server = f"{node['name']}-{node['id']}"
    stack = hashlib.sha256(str(known_hosts).encode()).hexdigest()[:8]
    options = {
        "ConnectTimeout": "10",
        "UserKnownHostsFile": f'"{known_hosts}"',
        "StrictHostKeyChecking": "accept-new",
        "HostKeyAlias": server,
        **({"ProxyCommand": f"{tailscale} nc %h %p"} if tailscale not in PLAIN_SSH else {}),
    }
    arguments = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    return {
        "ansible_host": address,
        "ansible_user": USER,
        "ansible_ssh_common_args": shlex.join(arguments),
        "ansible_control_path": f"%(directory)s/{server}-{stack}",
        "server_id": str(node["id"]),
        "private_address": address,
        **({"broker_volume": node["volume_device"]} if node.get("volume_device") else {}),
    }


def _known_hosts(stack: str) -> Path:
    """Return the file of the stack's host keys; ssh makes it, but not its folder."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    folder = Path(state) / "openclaw-fleet" / stack.replace("/", "-")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / "known_hosts"
