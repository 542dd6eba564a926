"""hcloud.SshKey and PlacementGroup: as internal/sshkey and internal/placementgroup have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hcloud.placement_groups import PlacementGroup
from hcloud.ssh_keys import SSHKey

from lab.providers.hetzner.api import Api, found, without_missing
from lab.providers.kinds import Kind, Made

if TYPE_CHECKING:
    from lab.providers.values import Properties


class SshKeys(Kind):
    """SSH keys."""

    computed = ("fingerprint",)

    def __init__(self, api: Api) -> None:
        self._keys = api.client.ssh_keys

    def create(self, inputs: Properties, made: Made) -> None:
        """Make a key."""
        made(str(self._keys.create(inputs["name"], inputs["publicKey"], labels=inputs.get("labels")).id))

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state."""
        del known
        if not (key := found(self._keys.get_by_id, object_id)):
            return None
        return {"name": key.name, "publicKey": key.public_key, "labels": key.labels, "fingerprint": key.fingerprint}

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Change name and labels."""
        del news
        key = self._keys.get_by_id(int(object_id))
        key.update(name=changed.get("name"), labels=changed["labels"] or {} if "labels" in changed else None)

    def delete(self, object_id: str, state: Properties) -> None:
        """Delete a key; one that is gone is fine."""
        del state
        without_missing(lambda: self._keys.delete(SSHKey(id=int(object_id))))


class PlacementGroups(Kind):
    """Placement groups."""

    computed = ("servers",)

    def __init__(self, api: Api) -> None:
        self._api = api
        self._groups = api.client.placement_groups

    def create(self, inputs: Properties, made: Made) -> None:
        """Make a group."""
        response = self._groups.create(inputs["name"], inputs["type"], labels=inputs.get("labels"))
        made(str(response.placement_group.id))
        self._api.wait(response.action)

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state."""
        del known
        if not (group := found(self._groups.get_by_id, object_id)):
            return None
        return {"name": group.name, "labels": group.labels, "type": group.type, "servers": group.servers}

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Change name and labels."""
        del news
        group = self._groups.get_by_id(int(object_id))
        group.update(name=changed.get("name"), labels=changed["labels"] or {} if "labels" in changed else None)

    def delete(self, object_id: str, state: Properties) -> None:
        """Delete a group."""
        del state
        self._groups.delete(PlacementGroup(id=int(object_id)))
