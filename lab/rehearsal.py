"""`make up`: a fleet's nodes as lab hosts, and the product's own command to deploy to them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab import image, relay
from lab.process import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.lab import Lab

# The nodes that inventory/group_vars declares agents for, as (name, image, group).
NODES = (
    ("broker-1", "debian-12", "brokers"),
    ("agents-1", "debian-12", "runners"),
    ("agents-2", "debian-13", "runners"),
)
_BROKER_PORT = 8000


def up(lab: Lab) -> int:
    """Make the hosts and deploy the fleet; return the exit status of `fleet up`."""
    for base in sorted({base for _, base, _ in NODES}):
        with _step("image", f"{base} {'cached' if image.is_cached(base) else 'built'}"):
            image.ensure(base, builder=lab.name)
    with _step("hosts", " ".join(name for name, _, _ in NODES)):
        lab.create(NODES)
    port = _relay(lab)
    deployed = subprocess.run(
        [sys.executable, "-m", "fleet", "-i", str(lab.inventory), "up"], env=environment(lab), check=False
    )
    if deployed.returncode == 0:
        print(
            f"\nbroker   http://127.0.0.1:{port}   stop: make down   look around: make status, make shell HOST=agents-1"
        )
    return deployed.returncode


def environment(lab: Lab) -> dict[str, str]:
    """Return an environment in which programs keep their files inside the lab, which `down` removes."""
    scratch = lab.folder / "tmp"
    scratch.mkdir(exist_ok=True)
    return {**os.environ, "ANSIBLE_HOME": str(lab.folder / "ansible"), "TMPDIR": str(scratch)}


def _relay(lab: Lab) -> int:
    """Start the relay to the broker where it does not run, and return its port on loopback."""
    noted = lab.folder / "relay.port"
    if lab.is_serving("relay"):
        return int(noted.read_text())
    port = relay.free_port(_BROKER_PORT)
    noted.write_text(str(port))
    lab.service("relay", "lab.relay", str(port), str(lab.machine("broker-1").namespace), str(_BROKER_PORT))
    wait_until(lambda: relay.answers(port), what=f"the relay (log: {lab.folder / 'relay.log'})", timeout=10)
    return port


@contextmanager
def _step(what: str, detail: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{what:<14} {detail:<48} {time.monotonic() - started:6.1f} s", flush=True)
