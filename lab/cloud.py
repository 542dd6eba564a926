"""The machines of the lab's cloud: what its API's stand-in has for servers, firewalls and volumes.

The API runs for as long as the lab does and makes hosts while a command such as `python -m lab up` is changing the lab,
so nothing here takes the lab's own lock (`Lab.change`). What hosts share, which is their numbers and the address book,
has a lock that is held for a moment only; and of one host or volume the API never does two things at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.layer import Seed
from lab.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lab.hetzner_api.driver import Operation, Rule, ServerSpec
    from lab.lab import Lab


class MachineDriver:
    """Makes hosts of a lab for servers (it is a lab.hetzner_api.driver.Driver).

    `prepare` is given the base image and the layer of each new host, before its first boot, to add to the layer.
    """

    def __init__(self, lab: Lab, *, prepare: Callable[[Path, Path], None] | None = None) -> None:
        self._lab = lab
        self._prepare = prepare
        self._volumes = Volumes(lab)

    def create(self, server: ServerSpec) -> str:
        """Make a host, boot it with its user data, and return its address; it may still be booting then."""
        self._lab.prepare()
        existing = self._lab.find(server.name)
        if existing and existing.spec.server != server.id:
            existing.destroy()
        seed = Seed(server.id, server.user_data, server.ssh_keys)
        machine = self._lab.add(server.name, server.image, seed=seed, prepare=self._prepare)
        machine.start()
        return machine.address

    def delete(self, name: str) -> None:
        """Remove a host with its disk; its volumes stay."""
        if machine := self._lab.find(name):
            machine.destroy()
            self._lab.write_address_book()

    def power(self, name: str, operation: Operation) -> None:
        """Boot a host that is off, cut its power, or have it power off or reboot in good order."""
        machine = self._lab.machine(name)
        if operation == "shutdown":
            machine.stop()
        elif operation == "reboot" and machine.is_running:
            machine.restart()
        else:
            if operation in {"off", "reset"}:
                machine.crash()
            if operation != "off":
                machine.start()

    def filter(self, name: str, rules: tuple[Rule, ...] | None) -> None:
        """Have a host's firewall let through what these rules say, now and after each boot; None lets all through."""
        self._lab.machine(name).filter(rules)

    def create_volume(self, volume_id: int, gigabytes: int, filesystem: str | None) -> None:
        """Make a volume, formatted or raw."""
        self._volumes.create(volume_id, gigabytes, filesystem)

    def resize_volume(self, volume_id: int, gigabytes: int) -> None:
        """Make a volume larger; its file system stays as it is."""
        self._volumes.resize(volume_id, gigabytes)

    def delete_volume(self, volume_id: int) -> None:
        """Take a volume away."""
        self._volumes.delete(volume_id)

    def attach(self, volume_id: int, server: str) -> str:
        """Show a volume to a host and return its path there."""
        return self._volumes.attach(volume_id, self._lab.machine(server))

    def detach(self, volume_id: int) -> None:
        """Take a volume from its host."""
        self._volumes.detach(volume_id)
