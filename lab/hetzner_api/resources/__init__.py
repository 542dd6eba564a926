"""The calls of the API, a module for each kind of resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.hetzner_api import actions
from lab.hetzner_api.resources import (
    catalogs,
    firewalls,
    images,
    networks,
    placement_groups,
    primary_ips,
    server_actions,
    server_creation,
    servers,
    ssh_keys,
    volumes,
)

if TYPE_CHECKING:
    from lab.hetzner_api.calls import Routes

ROUTES: Routes = {
    **actions.ROUTES,
    **catalogs.ROUTES,
    **firewalls.ROUTES,
    **images.ROUTES,
    **networks.ROUTES,
    **placement_groups.ROUTES,
    **primary_ips.ROUTES,
    **server_actions.ROUTES,
    **server_creation.ROUTES,
    **servers.ROUTES,
    **ssh_keys.ROUTES,
    **volumes.ROUTES,
}
