"""The texts that the program hands over: a server's user data, and the tailnet's policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infra.policy import Rule
    from infra.settings import Tailnet

# Of Tailscale's noarmor.gpg, the same file for every distribution.
KEYRING_SHA256 = "3e03dacf222698c60b8e2f990b809ca1b3e104de127767864284e6c228f1fb39"

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent.parent / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  shell and YAML, not HTML; every value was matched against a pattern before
)


def cloud_init(name: str, join_key: str, ssh_keys: Sequence[str], tailnet: Tailnet) -> str:
    """Return the user data of a server that joins the tailnet under `name`."""
    join_script = _TEMPLATES.get_template("openclaw-join.sh.j2").render(
        name=name,
        archive=tailnet.archive,
        version=tailnet.version,
        keyring_sha256=KEYRING_SHA256,
        login_server=tailnet.login_server,
    )
    return _TEMPLATES.get_template("cloud-init.yml.j2").render(
        name=name, join_key=join_key, ssh_keys=ssh_keys, join_script=join_script
    )


def tailnet_policy(owners: Mapping[str, Sequence[str]], rules: Sequence[Rule]) -> str:
    """Return the policy as JSON."""
    return _TEMPLATES.get_template("tailnet-policy.json.j2").render(owners=owners, rules=rules)
