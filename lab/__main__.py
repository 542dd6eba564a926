"""The lab's own command line: `python -m lab --lab NAME COMMAND …`; `fleet up --lab` is the usual way in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Annotated

import typer

from lab import rehearsal, tools
from lab.errors import LabError
from lab.lab import Lab, default_name
from lab.machines import Direction, Machine
from lab.tailnet import SERVER, Tailnet

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Real Debian hosts on this machine.",
)
Hosts = Annotated[list[str], typer.Argument(help="Names of hosts.")]


@app.callback()
def _main(
    context: typer.Context,
    lab: Annotated[str, typer.Option(help="The lab's name; by default one of this checkout's own.")] = "",
) -> None:
    # What we lay into a host is its own system's to read, however little of our files others may.
    os.umask(0o022)
    context.obj = Lab(lab or default_name())


@app.command()
def create(
    context: typer.Context, hosts: Annotated[list[str], typer.Argument(metavar="HOST[:IMAGE[:GROUP]]…")]
) -> None:
    """Make hosts, boot them, and wait until each is ready; IMAGE is debian-12 (the default) or debian-13."""
    wanted = [(*host.split(":", 2), "", "")[:3] for host in hosts]
    with context.obj.change():
        context.obj.create([(name, base or "debian-12", group) for name, base, group in wanted])


@app.command()
def start(context: typer.Context, hosts: Hosts) -> None:
    """Boot hosts and wait until each is ready."""
    machines = _machines(context.obj, hosts)
    with context.obj.change():
        Lab.each(Machine.start, machines)
        Lab.each(Machine.wait, machines)


@app.command()
def stop(context: typer.Context, hosts: Hosts) -> None:
    """Power hosts off in good order."""
    Lab.each(Machine.stop, _machines(context.obj, hosts))


@app.command()
def crash(context: typer.Context, hosts: Hosts) -> None:
    """Kill every process of hosts at once."""
    Lab.each(Machine.crash, _machines(context.obj, hosts))


@app.command()
def reboot(context: typer.Context, hosts: Hosts) -> None:
    """Reboot hosts in good order and wait until each is ready again."""
    Lab.each(Machine.reboot, _machines(context.obj, hosts))


@app.command()
def cut(
    context: typer.Context,
    hosts: Hosts,
    direction: Annotated[Direction, typer.Option(help="Which packets are lost, seen from the host.")] = Direction.BOTH,
) -> None:
    """Pull the network cable of hosts, or lose what comes in or what goes out only."""
    Lab.each(lambda machine: machine.cut(direction), _machines(context.obj, hosts))


@app.command()
def heal(context: typer.Context, hosts: Hosts) -> None:
    """Put the network cable of hosts back."""
    Lab.each(Machine.heal, _machines(context.obj, hosts))


@app.command()
def hang(
    context: typer.Context,
    host: str,
    process: Annotated[int | None, typer.Option(help="Only this one, by its id on the host.")] = None,
) -> None:
    """Stop every process of a host, as if time stood still for it."""
    context.obj.machine(host).hang(process)


@app.command()
def resume(context: typer.Context, hosts: Hosts) -> None:
    """Let hosts go on that hang."""
    Lab.each(Machine.resume, _machines(context.obj, hosts))


@app.command()
def snapshot(context: typer.Context, host: str, name: str) -> None:
    """Keep a copy of a host's disk under a name."""
    context.obj.machine(host).snapshot(name)


@app.command()
def restore(context: typer.Context, host: str, name: str) -> None:
    """Put a kept copy of a host's disk back, and boot the host if it ran."""
    machine = context.obj.machine(host)
    with context.obj.change():
        machine.restore(name)


@app.command()
def destroy(context: typer.Context, hosts: Hosts) -> None:
    """Remove hosts, with their disks and snapshots."""
    Lab.each(Machine.destroy, _machines(context.obj, hosts))
    context.obj.write_address_book()


@app.command(name="list")
def list_hosts(context: typer.Context) -> None:
    """Print each host with its image, address and state."""
    for machine in context.obj.machines():
        state = "running" if machine.is_running else "off"
        typer.echo(f"{machine.name:<16} {machine.spec.image:<10} {machine.address:<14} {state}")


@app.command(name="inventory")
def print_inventory(context: typer.Context, path: Annotated[bool, typer.Option("--path")] = False) -> None:
    """Print the hosts as an Ansible inventory, or the path of the file that holds it."""
    file = context.obj.inventory
    if not file.exists():
        raise LabError(f"lab {context.obj.name} is not up; say make up")
    typer.echo(file if path else file.read_text().rstrip())


@app.command()
def tailnet(context: typer.Context) -> None:
    """Start the lab's tailnet, and print what a host needs to join it, as JSON; the key is good for many hosts."""
    with context.obj.change():
        net = Tailnet(context.obj)
        net.start()
        archive = tools.tailscale_archive()
        digest = archive.with_name(f"{archive.name}.sha256").read_text().split()[0]
        way_in = {
            "login_server": net.login_server,
            "domain": net.domain,
            "hosts_line": f"{context.obj.gateway} {SERVER}",
            "certificate": net.ca.read_text(),
            "key": net.key(reusable=True, seconds=7200),
            "archive": str(archive),
            "checksum": digest,
        }
        typer.echo(json.dumps(way_in))


@app.command()
def up(context: typer.Context) -> None:
    """Make the hosts of the rehearsal, deploy the fleet to them, and show it."""
    with context.obj.change():
        status = rehearsal.up(context.obj)
    raise typer.Exit(status)


@app.command()
def down(context: typer.Context) -> None:
    """Destroy the rehearsal's stack, and remove the lab and all it left, also after a crash."""
    rehearsal.down(context.obj)


@app.command()
def environment(context: typer.Context) -> None:
    """Print, as JSON, the variables with which the lab's nodes are the fleet; null for what must not be set."""
    typer.echo(json.dumps({**dict.fromkeys(rehearsal.foreign()), **rehearsal.settings(context.obj)}))


def _machines(lab: Lab, names: list[str]) -> list[Machine]:
    return [lab.machine(name) for name in names]


def main() -> None:
    """Run the command line; what the person can mend ends in one line and status 1."""
    try:
        if os.geteuid() != 0:
            raise LabError("namespaces and mounts need root; say it with sudo")
        app()
    except (LabError, OSError, subprocess.SubprocessError) as error:
        typer.echo(f"lab: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
