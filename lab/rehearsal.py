"""`make up`: what stands for the cloud and the tailnet, and then the product's own commands, as for real servers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab import cgroups, image, relay, tools
from lab.errors import LabError
from lab.process import PROJECT, wait_until
from lab.stack import LabStack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.lab import Lab

# Of the nodes in infra/Pulumi.lab.yaml.
_IMAGES = ("debian-12", "debian-13")
_BROKER = "broker-1"
_BROKER_PORT = 8000
_DESTROY_SECONDS = 60
# What a person has set for fleets of their own. It must not be the lab's too: PULUMI_CONFIG_PASSPHRASE, for one, counts
# more than the file that the lab names.
_OF_OTHER_FLEETS = ("HCLOUD_", "OPENCLAW_OUTPUTS", "PULUMI_", "TAILSCALE_")
# Says where the real plugins may be.
_SHARED = "PULUMI_HOME"


def up(lab: Lab) -> int:
    """Prepare the lab and deploy the fleet; return the exit status of `fleet up`."""
    if lacking := tools.missing():
        raise LabError(lacking)
    for name in foreign():
        del os.environ[name]
    with _step("tools", "cached" if all(map(tools.is_cached, tools.NAMES)) else "built"):
        tools.ensure()
    for base in _IMAGES:
        with _step("image", f"{base} {'cached' if image.is_cached(base) else 'built'}"):
            image.ensure(base, builder=lab.name)
    stack = LabStack(lab)
    with _step("tailnet", "headscale, and this machine in it"):
        lab.prepare()
        stack.tailnet.start()
        stack.tailnet.join_controller()
    with _step("cloud", "stand-ins for Hetzner and Tailscale"):
        stack.start()
    with _step("pulumi", "configuration and secrets"):
        stack.configure()
        lab.write_address_book()
    port = _relay(lab)
    deploy = [sys.executable, "-m", "fleet", "up", "--yes"]
    deployed = subprocess.run(deploy, env=environment(lab), cwd=PROJECT, check=False)
    if deployed.returncode == 0:
        print(
            f"\nbroker   http://127.0.0.1:{port}   stop: make down   look around: make status, make shell HOST=agents-1"
        )
    return deployed.returncode


def down(lab: Lab) -> None:
    """Destroy the stack as one would at Hetzner, where it can be, and remove the lab in any case."""
    # Whoever is changing the lab ends here.
    cgroups.kill(f"{lab.cgroup}/controller")
    if LabStack(lab).is_up:
        _destroy(lab)
    lab.down()


def _destroy(lab: Lab) -> None:
    destroy = ["fleet", "destroy", "--yes"]
    try:
        # In the lab's own group: if we are killed, the next `down` ends it.
        ended = lab.within("controller", *destroy, env=environment(lab), timeout=_DESTROY_SECONDS)
    except subprocess.TimeoutExpired:
        ended = None
    if ended:
        print("the stack could not be destroyed in good order; the lab is removed as it is", file=sys.stderr)


def environment(lab: Lab) -> dict[str, str]:
    """Return an environment in which the lab's nodes are the fleet, for `fleet`, `pulumi` and `ansible-playbook`."""
    others = foreign()
    return {**{name: value for name, value in os.environ.items() if name not in others}, **settings(lab)}


def foreign() -> list[str]:
    """Return the names of this process's variables that are about other fleets, and must not be set for the lab's."""
    return [name for name in os.environ if name.startswith(_OF_OTHER_FLEETS) and name != _SHARED]


def settings(lab: Lab) -> dict[str, str]:
    """Return what `environment` adds. Programs then keep their files inside the lab, which `down` removes.

    Raises:
        LabError: the lab is not up.
    """
    if not lab.inventory.exists():
        raise LabError(f"lab {lab.name} is not up; say make up")
    scratch = lab.folder / "tmp"
    scratch.mkdir(exist_ok=True)
    stack = LabStack(lab)
    return {
        **stack.settings(),
        "ANSIBLE_HOME": str(lab.folder / "ansible"),
        "ANSIBLE_INVENTORY": ",".join(map(str, (PROJECT / "inventory", lab.inventory, stack.variables))),
        "TMPDIR": str(scratch),
        "XDG_STATE_HOME": str(lab.folder / "state"),
    }


def _relay(lab: Lab) -> int:
    """Start the relay to the broker where it does not run, and return its port on loopback."""
    noted = lab.folder / "relay.port"
    if lab.is_serving("relay"):
        return int(noted.read_text())
    port = relay.free_port(_BROKER_PORT)
    noted.write_text(str(port))
    lab.service("relay", "lab.relay", str(port), str(lab.folder / "netns" / _BROKER), str(_BROKER_PORT))
    wait_until(lambda: relay.answers(port), what=f"the relay (log: {lab.folder / 'relay.log'})", timeout=30)
    return port


@contextmanager
def _step(what: str, detail: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{what:<14} {detail:<48} {time.monotonic() - started:6.1f} s", flush=True)
