from __future__ import annotations

from typing import Any

from fleet.protection import protected

SERVER, VOLUME = "hcloud:index/server:Server", "hcloud:index/volume:Volume"


def resource(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    outputs = {"name": name, **fields.pop("outputs", {})}
    return {"urn": f"urn:pulumi:lab::fleet::{kind}::{name}-it", "type": kind, "outputs": outputs, **fields}


def exported(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"version": 3, "deployment": {"resources": list(resources)}}


def test_nothing_is_protected_in_an_empty_stack() -> None:
    assert protected({"version": 3, "deployment": {}}) == []
    assert protected(exported()) == []


def test_what_the_engine_protects_is_named() -> None:
    state = exported(
        resource(SERVER, "broker-1", protect=True),
        resource(VOLUME, "broker-1-data", protect=True, retainOnDelete=True),
        resource(SERVER, "agents-1"),
        {
            "urn": "urn:pulumi:lab::fleet::tailscale:index/acl:Acl::policy",
            "type": "tailscale:index/acl:Acl",
            "protect": True,
        },
    )
    assert protected(state) == ["server broker-1", "volume broker-1-data", "tailscale:index/acl:Acl policy"]


def test_what_hetzner_protects_is_named_unless_it_is_left_alone() -> None:
    kept = resource(VOLUME, "kept", retainOnDelete=True, outputs={"deleteProtection": True})
    server = resource(SERVER, "broker-1", outputs={"deleteProtection": True})
    assert protected(exported(kept, server)) == ["server broker-1"]
