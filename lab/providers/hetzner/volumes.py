"""hcloud.Volume and VolumeAttachment: as internal/volume has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hcloud.locations import Location
from hcloud.servers import Server
from hcloud.volumes import Volume

from lab.providers.hetzner.api import Api, found, without_missing
from lab.providers.kinds import Kind, Made

if TYPE_CHECKING:
    from lab.providers.values import Properties


class Volumes(Kind):
    """Volumes, which a VolumeAttachment attaches."""

    computed = ("linuxDevice", "location", "serverId")

    def __init__(self, api: Api) -> None:
        self._api = api
        self._volumes = api.client.volumes

    def create(self, inputs: Properties, made: Made) -> None:
        """Make a volume, then protect it."""
        response = self._api.retry(
            lambda: self._volumes.create(
                inputs["size"],
                inputs["name"],
                labels=inputs.get("labels"),
                location=Location(name=inputs["location"]) if inputs.get("location") else None,
                format=inputs.get("format"),
            ),
            "locked",
        )
        made(str(response.volume.id))
        self._api.wait(response.action, *response.next_actions)
        if inputs.get("deleteProtection"):
            self._api.wait(response.volume.change_protection(delete=True))

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state; the format is as the program has it (the plugin does not read it)."""
        if not (volume := found(self._volumes.get_by_id, object_id)):
            return None
        return {
            **({"format": known["format"]} if "format" in known else {}),
            "name": volume.name,
            "size": volume.size,
            "location": volume.location.name,
            "labels": volume.labels,
            "linuxDevice": volume.linux_device,
            "deleteProtection": volume.protection["delete"],
            **({"serverId": volume.server.id} if volume.server else {}),
        }

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Change name, size, labels and protection."""
        del news
        volume = self._volumes.get_by_id(int(object_id))
        if "name" in changed:
            volume.update(name=changed["name"])
        if "size" in changed:
            self._api.wait(volume.resize(changed["size"]))
        if "labels" in changed:
            volume.update(labels=changed["labels"] or {})
        if "deleteProtection" in changed:
            self._api.wait(volume.change_protection(delete=changed["deleteProtection"]))

    def delete(self, object_id: str, state: Properties) -> None:
        """Detach a volume and delete it; one that is gone is fine."""
        del state
        volume = found(self._volumes.get_by_id, object_id)
        if volume is None:
            return
        if volume.server:
            self._api.retry(lambda: self._api.wait(volume.detach()), "locked", "conflict")
        without_missing(lambda: self._api.retry(volume.delete, "locked", "conflict"))


class Attachments(Kind):
    """A volume at a server; the id of one is its volume's."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._volumes = api.client.volumes

    def create(self, inputs: Properties, made: Made) -> None:
        """Attach a volume."""
        volume, server = Volume(id=int(inputs["volumeId"])), Server(id=int(inputs["serverId"]))
        automount = inputs.get("automount")
        action = self._api.retry(lambda: self._volumes.attach(volume, server, automount=automount), "locked")
        made(str(volume.id))
        self._api.wait(action)

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state."""
        volume = found(self._volumes.get_by_id, object_id)
        if not volume or not volume.server:
            return None
        kept = {"automount": known["automount"]} if "automount" in known else {}
        return {**kept, "volumeId": volume.id, "serverId": volume.server.id}

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Do nothing: the resource has no update."""

    def delete(self, object_id: str, state: Properties) -> None:
        """Detach a volume; one that is not attached is fine."""
        del state
        volume = found(self._volumes.get_by_id, object_id)
        if volume and volume.server:
            self._api.wait(self._api.retry(volume.detach, "locked"))
