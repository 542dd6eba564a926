from __future__ import annotations

from typing import Any

import pytest

from infra import config
from infra.errors import ConfigurationError
from infra.settings import Archive, Settings
from tests.support.infra import NODES, SSH_KEY, values

HASH = "0" * 64


def read(nodes: dict[str, Any] | None = None, **changed: Any) -> Settings:
    return config.read(values(nodes, **changed), {})


def problems(nodes: dict[str, Any] | None = None, **changed: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        read(nodes, **changed)
    return raised.value.problems


def test_a_short_configuration_has_defaults() -> None:
    settings = read()
    broker, agent, other, gateway = settings.nodes
    assert (broker.name, broker.role, broker.protect, broker.generation) == ("broker-1", "broker", True, 1)
    assert broker.volume
    assert (broker.volume.size, broker.volume.keep, broker.volume.adopt) == (20, True, None)
    assert (agent.role, agent.protect, agent.volume, agent.location) == ("runner", False, None, "fsn1")
    assert (agent.image, other.image, gateway.role) == ("debian-12", "debian-13", "gateway")
    assert settings.network.zone == "eu-central"
    assert settings.rescue_cidr is None
    assert (settings.tailnet.policy, settings.tailnet.udp, settings.tailnet.archive) == ("print", False, None)
    assert settings.hetzner.url == "https://api.hetzner.cloud/v1"
    assert settings.tailscale.url == "https://api.tailscale.com"


def test_everything_can_be_said() -> None:
    settings = read(
        nodes={
            "queue": {
                "role": "broker",
                "type": "cax11",
                "image": "debian-13",
                "location": "hil",
                "generation": 3,
                "placement": 2,
                "protect": False,
                "renamedFrom": "broker-1",
                "volume": {"size": 50, "adopt": "123", "keep": False},
            }
        },
        fleet__network={"cidr": "172.16.0.0/16", "subnet": "172.16.4.0/24", "zone": "us-west"},
        fleet__rescueCidr="203.0.113.7/32",
        tailnet__policy="manage",
        tailnet__install="archive",
        tailnet__archive={"url": "http://10.0.0.1:80/tailscale.tgz", "sha256": HASH},
        tailnet__loginServer="https://headscale.fleet.lab",
        tailnet__udp="true",
        tailnet__admins=["you@example.com", "group:ops"],
        tailnet__brokerPorts=[8001, 8000],
        tailnet__gatewayPorts=[],
        hcloud__endpoint="http://127.0.0.1:1/v1",
        tailscale__baseUrl="http://127.0.0.1:2",
        tailscale__tailnet="example.com",
    )
    (node,) = settings.nodes
    assert (node.server_type, node.image, node.location, node.generation, node.placement) == (
        "cax11",
        "debian-13",
        "hil",
        3,
        2,
    )
    assert node.renamed_from == "broker-1"
    assert not node.protect
    assert node.volume
    assert (node.volume.adopt, node.volume.keep) == ("123", False)
    tailnet = settings.tailnet
    assert tailnet.archive == Archive(url="http://10.0.0.1:80/tailscale.tgz", sha256=HASH)
    assert tailnet.broker_ports == (8000, 8001)
    assert (tailnet.udp, tailnet.gateway_ports, tailnet.admins) == (True, (), ("you@example.com", "group:ops"))
    assert (settings.hetzner.url, settings.tailscale.url, settings.tailscale.tailnet) == (
        "http://127.0.0.1:1/v1",
        "http://127.0.0.1:2",
        "example.com",
    )


def test_credentials_may_come_from_the_environment_as_the_providers_read_them() -> None:
    given = values(hcloud__token=None, tailscale__oauthClientId=None, tailscale__oauthClientSecret=None)
    settings = config.read(given, {"HCLOUD_TOKEN": "a", "TAILSCALE_API_KEY": "b"})
    assert (settings.hetzner.token, settings.tailscale.api_key) == ("a", "b")


def test_secrets_are_not_shown() -> None:
    settings = read()
    assert "hcloud-secret" not in repr(settings)
    assert "tskey-client-secret" not in repr(settings)


def node(**fields: Any) -> dict[str, Any]:
    return {**NODES, "agents-1": {"role": "runner", **fields}}


def broker(volume: dict[str, Any]) -> dict[str, Any]:
    return {**NODES, "broker-1": {"role": "broker", "volume": volume}}


def named(name: str) -> dict[str, Any]:
    return {**NODES, name: {"role": "runner"}}


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("no nodes", {"fleet__nodes": None}, "fleet:nodes", "give at least a broker"),
    ("nodes are a list", {"fleet__nodes": ["a"]}, "fleet:nodes", "give a mapping"),
    ("no broker", {"nodes": {"a": {"role": "runner"}}}, "fleet:nodes", "give exactly one"),
    ("two brokers", {"nodes": {**NODES, "b": {"role": "broker"}}}, "fleet:nodes", "give exactly one"),
    ("unknown key", {"fleet__locaton": "fsn1"}, "fleet:locaton", "did you mean location?"),
    ("unknown tailnet key", {"tailnet__funnel": "true"}, "tailnet:funnel", "remove it"),
    ("unknown node key", {"nodes": node(typ="cx23")}, "fleet:nodes.agents-1.typ", "did you mean type?"),
    ("unknown volume key", {"nodes": broker({"gb": 10})}, "fleet:nodes.broker-1.volume.gb", "remove it"),
    ("unknown network key", {"fleet__network": {"vlan": 1}}, "fleet:network.vlan", "remove it"),
    ("upper case name", {"nodes": named("Agent")}, "fleet:nodes.Agent", "a-z, 0-9 and -"),
    ("underscore", {"nodes": named("a_b")}, "fleet:nodes.a_b", "a-z, 0-9 and -"),
    ("dash at the end", {"nodes": named("a-")}, "fleet:nodes.a-", "a-z, 0-9 and -"),
    ("64 letters", {"nodes": named("a" * 64)}, f"fleet:nodes.{'a' * 64}", "up to 63"),
    ("a group's name", {"nodes": named("runners")}, "fleet:nodes.runners", "choose another"),
    ("nothing said of a node", {"nodes": {**NODES, "a": None}}, "fleet:nodes.a.role", "broker, runner or gateway"),
    ("unknown role", {"nodes": node(role="agent")}, "fleet:nodes.agents-1.role", "broker, runner or gateway"),
    ("type with a space", {"nodes": node(type="cx 23")}, "fleet:nodes.agents-1.type", "cx23"),
    ("image of a number", {"nodes": node(image=12)}, "fleet:nodes.agents-1.image", "debian-12"),
    ("generation 0", {"nodes": node(generation=0)}, "fleet:nodes.agents-1.generation", "from 1"),
    ("generation true", {"nodes": node(generation=True)}, "fleet:nodes.agents-1.generation", "from 1"),
    ("placement -1", {"nodes": node(placement=-1)}, "fleet:nodes.agents-1.placement", "from 0"),
    ("protect yes", {"nodes": node(protect="yes")}, "fleet:nodes.agents-1.protect", "true or false"),
    ("small volume", {"nodes": broker({"size": 9})}, "fleet:nodes.broker-1.volume.size", "from 10"),
    ("volume by name", {"nodes": broker({"adopt": "data"})}, "fleet:nodes.broker-1.volume.adopt", "number"),
    ("keep maybe", {"nodes": broker({"keep": "maybe"})}, "fleet:nodes.broker-1.volume.keep", "true or false"),
    ("a runner's volume", {"nodes": node(volume={"size": 10})}, "fleet:nodes.agents-1.volume", "remove it"),
    (
        "renamed into another ten",
        {"nodes": {**NODES, "agents-12": {"role": "runner", "renamedFrom": "agents-3"}}},
        "fleet:nodes.agents-12.placement",
        "give 0",
    ),
    (
        "renamed from a node that is there",
        {"nodes": node(renamedFrom="agents-2")},
        "fleet:nodes.agents-1.renamedFrom",
        "is a node here",
    ),
    (
        "two renamed from one",
        {"nodes": {**node(renamedFrom="old"), "agents-2": {"role": "runner", "renamedFrom": "old"}}},
        "fleet:nodes.agents-2.renamedFrom",
        "give it once",
    ),
    (
        "public network",
        {"fleet__network": {"cidr": "8.8.0.0/16", "subnet": "8.8.1.0/24"}},
        "fleet:network.cidr",
        "10.0.0.0/8",
    ),
    ("host bits", {"fleet__network": {"cidr": "10.0.0.1/16"}}, "fleet:network.cidr", "give an IPv4 range"),
    ("subnet outside", {"fleet__network": {"subnet": "10.99.0.0/24"}}, "fleet:network.subnet", "choose a part of it"),
    ("unknown zone", {"fleet__network": {"zone": "moon"}}, "fleet:network.zone", "choose"),
    (
        "a location of no known zone",
        {"nodes": {"b": {"role": "broker", "location": "xyz1"}}},
        "fleet:network.zone",
        "or us",
    ),
    ("two zones", {"nodes": node(location="ash")}, "fleet:network.zone", "one zone only"),
    ("no SSH key", {"fleet__sshKeys": None}, "fleet:sshKeys", "id_ed25519.pub"),
    ("no SSH keys", {"fleet__sshKeys": []}, "fleet:sshKeys", "id_ed25519.pub"),
    ("private key", {"fleet__sshKeys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "fleet:sshKeys", "public keys"),
    ("key of two lines", {"fleet__sshKeys": [f"{SSH_KEY}\nroot"]}, "fleet:sshKeys", "public keys"),
    ("half a key", {"fleet__sshKeys": [SSH_KEY.replace("A me@", " me@")]}, "fleet:sshKeys", "public keys"),
    ("the same key twice", {"fleet__sshKeys": [SSH_KEY, SSH_KEY]}, "fleet:sshKeys", "give each once"),
    (
        "the same key with two comments",
        {"fleet__sshKeys": [SSH_KEY, f"{SSH_KEY}2"]},
        "fleet:sshKeys",
        "give each once",
    ),
    ("rescue for all", {"fleet__rescueCidr": "0.0.0.0/0"}, "fleet:rescueCidr", "at least /24"),
    ("rescue for /23", {"fleet__rescueCidr": "203.0.112.0/23"}, "fleet:rescueCidr", "at least /24"),
    ("rescue for IPv6 /63", {"fleet__rescueCidr": "2001:db8::/63"}, "fleet:rescueCidr", "at least /64"),
    ("rescue with host bits", {"fleet__rescueCidr": "203.0.113.7/24"}, "fleet:rescueCidr", "203.0.113.7/32"),
    ("rescue in words", {"fleet__rescueCidr": "home"}, "fleet:rescueCidr", "203.0.113.7/32"),
    ("no domain", {"tailnet__domain": None}, "tailnet:domain", "tail1234.ts.net"),
    ("domain of one word", {"tailnet__domain": "lab"}, "tailnet:domain", "tail1234.ts.net"),
    ("policy overwrite", {"tailnet__policy": "overwrite"}, "tailnet:policy", "print or manage"),
    ("install by curl", {"tailnet__install": "curl"}, "tailnet:install", "package or archive"),
    ("no archive", {"tailnet__install": "archive"}, "tailnet:archive", "url and sha256"),
    (
        "archive without a hash",
        {"tailnet__install": "archive", "tailnet__archive": {"url": "https://a.b/c.tgz"}},
        "tailnet:archive.sha256",
        "64 hexadecimal",
    ),
    (
        "archive with a command in its URL",
        {"tailnet__install": "archive", "tailnet__archive": {"url": "https://a.b/$(id)", "sha256": HASH}},
        "tailnet:archive.url",
        "http(s)",
    ),
    (
        "archive without its method",
        {"tailnet__archive": {"url": "https://a.b/c.tgz", "sha256": HASH}},
        "tailnet:archive",
        "tailnet:install",
    ),
    ("version latest", {"tailnet__version": "latest"}, "tailnet:version", "1.102.5"),
    ("login over http", {"tailnet__loginServer": "http://a.b"}, "tailnet:loginServer", "https://"),
    ("login with a command", {"tailnet__loginServer": "https://a.b;id"}, "tailnet:loginServer", "https://"),
    ("udp 41641", {"tailnet__udp": "41641"}, "tailnet:udp", "true or false"),
    ("admins everybody", {"tailnet__admins": ["*"]}, "tailnet:admins", "you@example.com"),
    ("port 0", {"tailnet__brokerPorts": [0]}, "tailnet:brokerPorts", "from 1 to 65535"),
    ("no broker port", {"tailnet__brokerPorts": []}, "tailnet:brokerPorts", "at least one"),
    ("a port as text", {"tailnet__gatewayPorts": ["all"]}, "tailnet:gatewayPorts", "from 1 to 65535"),
    ("no Hetzner token", {"hcloud__token": None}, "hcloud:token", "pulumi config set --secret hcloud:token"),
    ("no client", {"tailscale__oauthClientId": None}, "tailscale:oauthClientId", "pulumi config set --secret"),
    ("no secret", {"tailscale__oauthClientSecret": None}, "tailscale:oauthClientSecret", "pulumi config set --secret"),
    ("endpoint without a scheme", {"hcloud__endpoint": "api.hetzner.cloud/v1"}, "hcloud:endpoint", "https://"),
    ("endpoint over http", {"hcloud__endpoint": "http://192.0.2.1/v1"}, "hcloud:endpoint", "https://"),
    ("base URL with a space", {"tailscale__baseUrl": "https://a b"}, "tailscale:baseUrl", "https://"),
    ("both ways in", {"tailscale__apiKey": "tskey-api-x"}, "tailscale:apiKey", "remove one of them"),
]


@pytest.mark.parametrize(("changed", "key", "remedy"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_mistake_is_refused_with_its_key_and_the_remedy(changed: dict[str, Any], key: str, remedy: str) -> None:
    (problem,) = problems(**changed)
    assert problem.startswith(f"{key}: ")
    assert remedy in problem


@pytest.mark.parametrize("key", ["hcloud:token", "tailscale:oauthClientSecret"])
def test_a_secret_in_plain_is_refused_with_the_command_that_hides_it(key: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        config.read(values(), {}, plain=["fleet:nodes", key])
    (problem,) = raised.value.problems
    assert problem.startswith(f"{key}: is written in plain; set it with `pulumi config set --secret {key}`")
    assert values()[key] not in problem


def test_all_mistakes_are_told_at_once() -> None:
    told = problems(node(role="x", generation=0), fleet__rescueCidr="0.0.0.0/0", tailnet__domain=None)
    assert [problem.partition(": ")[0] for problem in told] == [
        "fleet:nodes.agents-1.role",
        "fleet:nodes.agents-1.generation",
        "fleet:rescueCidr",
        "tailnet:domain",
    ]


def many(count: int) -> dict[str, Any]:
    return {"broker-1": {"role": "broker"}} | {f"agents-{number}": {"role": "runner"} for number in range(1, count + 1)}


def test_a_node_stays_in_its_spread_group_whoever_comes_or_goes() -> None:
    placed = {node.name: node.placement for node in read(many(25)).nodes}
    assert [placed[f"agents-{number}"] for number in (1, 10, 11, 20, 21, 25)] == [0, 0, 1, 1, 2, 2]
    fewer = {name: fields for name, fields in many(25).items() if name not in ("agents-3", "agents-11")}
    assert all(
        placed[node.name] == node.placement
        for node in read({"agents-99": {"role": "runner"}} | fewer).nodes
        if node.name != "agents-99"
    )


def test_a_spread_group_takes_ten() -> None:
    names = {f"worker-{letter}": {"role": "runner"} for letter in "abcdefghijk"}
    broker = {"broker-1": {"role": "broker"}}
    assert len(read(broker | dict(list(names.items())[:10])).nodes) == 11
    assert problems(broker | names) == [
        "fleet:nodes.worker-k.placement: is one too many in group 0 of the runners; give another number, "
        "a spread group takes 10"
    ]
    assert read(broker | names | {"worker-k": {"role": "runner", "placement": 1}})
