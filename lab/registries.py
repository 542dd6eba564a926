"""The package registries this machine is set up for, read from its own clients when asked.

Nothing here names one: a lab may reach what the machine's apt, pip and npm are configured to reach, and nothing else.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from lab.process import run


@dataclass(frozen=True)
class AptSource:
    """A Debian mirror as this machine's apt knows it; `label` is `Debian` or `Debian-Security`."""

    uri: str
    label: str


def debian_mirrors() -> list[AptSource]:
    """Return the Debian mirrors of this machine's apt, none on a machine that has others only."""
    if sources := _debian_sources():
        return sources
    # What a mirror is the mirror of stands in its index, which a new machine may not have fetched yet.
    run(["apt-get", "update", "-qq"], timeout=300)
    return _debian_sources()


def _debian_sources() -> list[AptSource]:
    lines = _output("apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages").splitlines()
    sources = {AptSource(*line.split(" ", 1)) for line in lines if " " in line}
    return sorted((s for s in sources if s.label in {"Debian", "Debian-Security"}), key=lambda s: s.label)


def apt_options() -> list[str]:
    """Return the machine's apt settings about stale indexes, which a mirror that is a snapshot needs."""
    dump = _output("apt-config", "dump").splitlines()
    return [line for line in dump if line.startswith(("Acquire::Check-Valid-Until ", "Acquire::Check-Date "))]


def allowed_hosts() -> set[str]:
    """Return the names of all hosts that this machine's apt, pip and npm fetch packages from."""
    apt = _output("apt-get", "indextargets", "--format", "$(REPO_URI)").split()
    npm = _output("npm", "--logs-max=0", "config", "get", "registry").split()
    hosts = {urlsplit(uri).hostname for uri in (*apt, *_pip_uris(), *npm)}
    return {host for host in hosts if host} | _pip_default_hosts()


def _pip_uris() -> list[str]:
    listed = _output(sys.executable, "-m", "pip", "config", "list").splitlines()
    pairs = (line.partition("=") for line in listed)
    return [
        word
        for name, _, value in pairs
        if name.endswith(("index-url", "find-links"))
        for word in value.strip("'\"").split()
    ]


def _pip_default_hosts() -> set[str]:
    code = "from pip._internal.models.index import PyPI as i; print(i.netloc, i.file_storage_domain)"
    return set(_output(sys.executable, "-c", code).split())


def _output(*argv: str) -> str:
    """Return what a client prints, or nothing where it is not installed or has nothing to say."""
    if shutil.which(argv[0]) is None:
        return ""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else ""
