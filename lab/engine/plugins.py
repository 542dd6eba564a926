"""The provider plugins that the kit's program needs, and which version of each its SDK wants."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

# A plugin's name, and the package of its SDK.
NAMES = {"hcloud": "pulumi_hcloud", "tailscale": "pulumi_tailscale"}


def version(name: str) -> str:
    """Return the version that the installed SDK of a plugin wants, exactly."""
    spec = find_spec(NAMES[name])  # which does not load it, as that takes a second
    folders = (spec and spec.submodule_search_locations) or []
    return str(json.loads((Path(folders[0]) / "pulumi-plugin.json").read_text())["version"])
