"""Servers without machines join the stand-in of a tailnet as their user data says."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hcloud.images import Image
from hcloud.server_types import ServerType

from lab.hetzner_api.null import read_join

if TYPE_CHECKING:
    from tests.support.engine import Apis

JOIN = """#cloud-config
write_files:
  - path: /usr/local/sbin/openclaw-join
    content: |
      tailscale up --auth-key="file:$KEY" --hostname={hostname} --ssh=false
  - path: /run/openclaw-join.key
    content: {key}
"""


def mint(apis: Apis) -> str:
    create = {"reusable": False, "ephemeral": False, "preauthorized": True, "tags": ["tag:runner"]}
    body = {"capabilities": {"devices": {"create": create}}, "expirySeconds": 3600}
    return str(apis.tailnet("POST", "tailnet/-/keys", json=body).json()["key"])


@pytest.fixture(autouse=True)
def _policy(apis: Apis) -> None:
    policy = {"tagOwners": {"tag:runner": []}, "acls": []}
    apis.tailnet("POST", "tailnet/-/acl", content=json.dumps(policy))


def boot(apis: Apis, name: str, user_data: str) -> Any:
    created = apis.cloud.servers.create(name, ServerType(name="cx23"), Image(name="debian-12"), user_data=user_data)
    created.action.wait_until_finished()
    return created.server


def test_a_server_joins_under_its_hostname(apis: Apis) -> None:
    boot(apis, "one", JOIN.format(hostname="runner-1", key=mint(apis)))
    assert "runner-1" in apis.devices()


def test_a_spent_key_boots_a_machine_that_is_in_no_tailnet(apis: Apis) -> None:
    key = mint(apis)
    boot(apis, "two", JOIN.format(hostname="runner-2", key=key))
    server = boot(apis, "three", JOIN.format(hostname="runner-3", key=key))
    assert apis.cloud.servers.get_by_id(server.id).status in {"starting", "running"}
    assert {"runner-2", "runner-3"} & apis.devices().keys() == {"runner-2"}


def test_a_deleted_server_stays_in_the_tailnet(apis: Apis) -> None:
    server = boot(apis, "four", JOIN.format(hostname="runner-4", key=mint(apis)))
    time.sleep(0.5)  # its start is still under way
    server.delete().wait_until_finished()
    assert "runner-4" in apis.devices()


@pytest.mark.parametrize(
    ("user_data", "found"),
    [
        ("", ("", "web")),
        ("#!/bin/sh\necho key", ("", "web")),
        ("#cloud-config\n{}", ("", "web")),
        ("#cloud-config\nwrite_files: [{path: /run/x.key, content: k}]", ("k", "web")),
        (JOIN.format(hostname="other", key="k"), ("k", "other")),
    ],
)
def test_user_data_is_read(user_data: str, found: tuple[str, str]) -> None:
    assert read_join(user_data, "web") == found
