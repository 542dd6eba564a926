"""hcloud.Network, NetworkSubnet and Firewall: as internal/network and internal/firewall have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hcloud import APIException
from hcloud.firewalls import Firewall, FirewallResource, FirewallRule
from hcloud.networks import Network, NetworkSubnet

from lab.providers.hetzner.api import Api, found, without_missing
from lab.providers.kinds import Kind, Made

if TYPE_CHECKING:
    from lab.providers.values import Properties


class Networks(Kind):
    """Private networks."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._networks = api.client.networks

    def create(self, inputs: Properties, made: Made) -> None:
        """Make a network, then protect it."""
        network = self._networks.create(inputs["name"], inputs["ipRange"], labels=inputs.get("labels"))
        made(str(network.id))
        if inputs.get("deleteProtection"):
            self._api.wait(network.change_protection(delete=True))

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state."""
        del known
        if not (network := found(self._networks.get_by_id, object_id)):
            return None
        return {
            "name": network.name,
            "ipRange": network.ip_range,
            "labels": network.labels,
            "deleteProtection": network.protection["delete"],
        }

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Change name, labels and protection."""
        del news
        network = self._networks.get_by_id(int(object_id))
        if "name" in changed:
            network.update(name=changed["name"])
        if "labels" in changed:
            network.update(labels=changed["labels"] or {})
        if "deleteProtection" in changed:
            self._api.wait(network.change_protection(delete=changed["deleteProtection"]))

    def delete(self, object_id: str, state: Properties) -> None:
        """Delete a network; one that is gone is fine."""
        del state
        without_missing(lambda: self._networks.delete(Network(id=int(object_id))))


class Subnets(Kind):
    """Subnets; the id of one is NETWORK-RANGE."""

    computed = ("gateway",)

    def __init__(self, api: Api) -> None:
        self._api = api
        self._networks = api.client.networks

    def create(self, inputs: Properties, made: Made) -> None:
        """Add a subnet to its network."""
        subnet = NetworkSubnet(inputs["ipRange"], inputs["type"], inputs["networkZone"])
        network = Network(id=int(inputs["networkId"]))
        action = self._api.retry(lambda: self._networks.add_subnet(network, subnet), "conflict")
        made(f"{network.id}-{inputs['ipRange']}")
        self._api.wait(action)

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state."""
        del known
        network_id, _, ip_range = object_id.partition("-")
        network = found(self._networks.get_by_id, network_id)
        for subnet in network.subnets if network else []:
            if subnet.ip_range == ip_range:
                return {
                    "networkId": int(network_id),
                    "type": subnet.type,
                    "networkZone": subnet.network_zone,
                    "ipRange": subnet.ip_range,
                    "gateway": subnet.gateway,
                }
        return None

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Do nothing: every change of a subnet replaces it."""

    def delete(self, object_id: str, state: Properties) -> None:
        """Delete a subnet; one that is gone is fine."""
        network_id, _, ip_range = object_id.partition("-")
        subnet = NetworkSubnet(ip_range, state["type"], state["networkZone"])
        network = Network(id=int(network_id))

        def delete() -> None:
            self._api.wait(self._networks.delete_subnet(network, subnet))

        without_missing(lambda: self._api.retry(delete, "conflict", "locked", "service_error"))


class Firewalls(Kind):
    """Firewalls with their rules; servers say themselves which they are behind."""

    computed = ("applyTos",)

    def __init__(self, api: Api) -> None:
        self._api = api
        self._firewalls = api.client.firewalls

    def create(self, inputs: Properties, made: Made) -> None:
        """Make a firewall."""
        rules = [_to_api(rule) for rule in inputs.get("rules", [])]
        response = self._firewalls.create(inputs["name"], rules=rules, labels=inputs.get("labels"))
        self._api.wait(*response.actions or [])
        made(str(response.firewall.id))

    def read(self, object_id: str, known: Properties) -> Properties | None:
        """Return the state."""
        del known
        if not (firewall := found(self._firewalls.get_by_id, object_id)):
            return None
        return {
            "name": firewall.name,
            "labels": firewall.labels,
            "rules": [_from_api(rule) for rule in firewall.rules],
            "applyTos": [{"server": target.server.id} for target in firewall.applied_to if target.server],
        }

    def update(self, object_id: str, changed: Properties, news: Properties) -> None:
        """Change name, labels and rules. Taking away the last rule changes nothing: see the table of decisions."""
        del news
        firewall = self._firewalls.get_by_id(int(object_id))
        if "name" in changed:
            firewall.update(name=changed["name"])
        if changed.get("rules"):
            self._api.wait(*firewall.set_rules([_to_api(rule) for rule in changed["rules"]]))
        if "labels" in changed:
            firewall.update(labels=changed["labels"] or {})

    def delete(self, object_id: str, state: Properties) -> None:
        """Take a firewall off what it is applied to, and delete it; one that is gone is fine."""
        del state
        firewall = found(self._firewalls.get_by_id, object_id)
        if firewall and firewall.applied_to:
            self._take_off(firewall)

        def delete() -> None:
            self._firewalls.delete(Firewall(id=int(object_id)))

        without_missing(lambda: self._api.retry(delete, "conflict", "resource_in_use"))

    def _take_off(self, firewall: Any) -> None:
        targets = [FirewallResource(type=target.type, server=target.server) for target in firewall.applied_to]
        try:
            self._api.wait(*firewall.remove_from_resources(targets))
        except APIException as error:
            if error.code not in {"firewall_resource_not_found", "not_found"}:
                raise


def _to_api(rule: Properties) -> FirewallRule:
    return FirewallRule(
        direction=rule["direction"],
        protocol=rule["protocol"],
        source_ips=rule.get("sourceIps", []),
        destination_ips=rule.get("destinationIps", []),
        port=rule.get("port") or None,
        description=rule.get("description") or None,
    )


def _from_api(rule: FirewallRule) -> Properties:
    given = {"port": rule.port, "description": rule.description}
    return {
        "direction": rule.direction,
        "protocol": rule.protocol,
        "sourceIps": rule.source_ips or [],
        "destinationIps": rule.destination_ips or [],
        **{key: value for key, value in given.items() if value},
    }
