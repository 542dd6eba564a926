"""From a stack's configuration to Settings: strict, and with every mistake reported at once."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from infra.errors import ConfigurationError
from infra.fields import Fields
from infra.nodes import read_nodes
from infra.settings import Archive, HetznerAccess, Network, Settings, Tailnet, TailscaleAccess

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

TAILSCALE_VERSION = "1.102.5"
_DEFAULT_CIDR = "10.20.0.0/16"
_DEFAULT_SUBNET = "10.20.1.0/24"
_WIDEST_RESCUE = {4: 24, 6: 64}
_ZONES = {
    "fsn1": "eu-central",
    "nbg1": "eu-central",
    "hel1": "eu-central",
    "ash": "us-east",
    "hil": "us-west",
    "sin": "ap-southeast",
}
_ANY = re.compile(r".+")
_DOMAIN = re.compile(r"(?=.{4,200}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_HTTPS = re.compile(r"https://[A-Za-z0-9.-]+(:\d+)?/?")
_ARCHIVE_URL = re.compile(r"https?://[A-Za-z0-9.:-]+/[A-Za-z0-9._~/%+-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SSH_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+|sk-[a-z0-9@.-]+) "
    r"([A-Za-z0-9+/]{4}){10,}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?( [ -!#-\[\]-~]*)?"
)
_OWNER = re.compile(r"(autogroup|group|tag):[a-z0-9-]+|[A-Za-z0-9._+-]+@[A-Za-z0-9.-]*")
_CREDENTIAL = "set it with `pulumi config set --secret"
# A token over plain HTTP would be read on its way; only this machine is near enough.
_API = re.compile(
    r"https://[A-Za-z0-9.-]+(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?|http://(127\.0\.0\.1|localhost)(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?"
)
_SECRETS = ("hcloud:token", "tailscale:apiKey", "tailscale:oauthClientSecret")


def read(values: Mapping[str, str], environment: Mapping[str, str], plain: Collection[str] = ()) -> Settings:
    """Read a stack's configuration.

    Args:
        values: Every key of the stack with its namespace, structured values as JSON.
        environment: Where the providers' own variables stand in for missing credentials.
        plain: The keys whose values are not encrypted.

    Raises:
        ConfigurationError: With every mistake there is.
    """
    problems: list[str] = []
    fleet = Fields("fleet:", _namespace(values, "fleet"), problems)
    network = fleet.mapping("network") or Fields("fleet:network.", {}, problems)
    nodes = read_nodes(fleet)
    settings = Settings(
        nodes=nodes,
        network=_network(network, {node.location for node in nodes}),
        ssh_keys=_ssh_keys(fleet),
        rescue_cidr=_rescue(fleet),
        tailnet=_tailnet(Fields("tailnet:", _namespace(values, "tailnet"), problems)),
        hetzner=_hetzner(values, environment, problems),
        tailscale=_tailscale(values, environment, problems),
    )
    fleet.end()
    problems += [
        f"{key}: is written in plain; {_CREDENTIAL} {key}`, which encrypts it, and make a new one if others saw this"
        for key in _SECRETS
        if key in plain and values.get(key)
    ]
    if problems:
        raise ConfigurationError(problems)
    return settings


def _namespace(values: Mapping[str, str], name: str) -> dict[str, str]:
    return {key.removeprefix(f"{name}:"): value for key, value in values.items() if key.startswith(f"{name}:")}


def _ssh_keys(fleet: Fields) -> tuple[str, ...]:
    keys = fleet.texts("sshKeys", matching=_SSH_KEY, remedy="give public keys as in ~/.ssh/id_ed25519.pub")
    # With another comment it is the same key, of which Hetzner takes one.
    if len({key.split()[1] for key in keys}) < len(set(keys)):
        fleet.refuse("sshKeys", "holds the same key twice, with different comments; give each once")
    return keys


def _api_url(key: str, given: str | None, default: str, problems: list[str]) -> str:
    url = given or default
    if not _API.fullmatch(url):
        problems.append(f"{key}: is {url!r}; give an https:// URL, or remove it")
    return url.removesuffix("/")


def _network(fields: Fields, locations: set[str]) -> Network:
    zones = {_ZONES[location] for location in locations if location in _ZONES}
    network = Network(
        cidr=fields.text("cidr", _DEFAULT_CIDR, matching=_ANY, remedy="give a private IPv4 range"),
        subnet=fields.text("subnet", _DEFAULT_SUBNET, matching=_ANY, remedy="give a range inside of cidr"),
        zone=fields.choice("zone", sorted(set(_ZONES.values())), _default_zone(locations)),
    )
    fields.end()
    for zone in sorted(zones - {network.zone}) if fields.sound else ():
        fields.refuse("zone", f"is {network.zone}, and there is a node in {zone}; a private network has one zone only")
    outer = _range(fields, "cidr", network.cidr)
    inner = _range(fields, "subnet", network.subnet)
    if outer and not outer.is_private:
        fields.refuse("cidr", f"{network.cidr} is not private; take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16")
    if outer and inner and not inner.subnet_of(outer):
        fields.refuse("subnet", f"{network.subnet} is not inside of {network.cidr}; choose a part of it")
    return network


def _default_zone(locations: set[str]) -> str | None:
    """Return the zone of the nodes, None where one must be given: for locations that are newer than this program."""
    zones = {_ZONES.get(location) for location in locations} or {"eu-central"}
    return min(zones - {None}, default=None, key=str)


def _range(fields: Fields, key: str, value: str) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(value)
    except ValueError as error:
        fields.refuse(key, f"{error}; give an IPv4 range such as {_DEFAULT_CIDR}")
        return None


def _rescue(fleet: Fields) -> str | None:
    value = fleet.optional("rescueCidr", matching=_ANY, remedy="give your own address, such as 203.0.113.7/32")
    if value is None:
        return None
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        fleet.refuse("rescueCidr", f"{error}; give your own address, such as 203.0.113.7/32")
        return None
    widest = _WIDEST_RESCUE[network.version]
    if network.prefixlen < widest:
        fleet.refuse("rescueCidr", f"{value} opens SSH to too many; give at least /{widest}, best your own address")
    return str(network)


def _tailnet(fields: Fields) -> Tailnet:
    tailnet = Tailnet(
        policy=fields.choice("policy", ("print", "manage"), "print"),
        archive=_archive(fields),
        version=fields.text("version", TAILSCALE_VERSION, matching=_VERSION, remedy="give one such as 1.102.5"),
        login_server=fields.text(
            "loginServer", "", matching=_HTTPS, remedy="give an https:// URL, or remove it"
        ).removesuffix("/"),
        domain=fields.text(
            "domain", matching=_DOMAIN, remedy="give the tailnet's MagicDNS name, such as tail1234.ts.net"
        ),
        udp=fields.flag("udp", default=False),
        admins=fields.texts(
            "admins",
            ("autogroup:admin",),
            matching=_OWNER,
            remedy="give users such as you@example.com, or groups such as autogroup:admin",
        ),
        broker_ports=_broker_ports(fields),
        gateway_ports=_ports(fields, "gatewayPorts", 18789),
    )
    fields.end()
    return tailnet


def _broker_ports(fields: Fields) -> tuple[int, ...]:
    ports = _ports(fields, "brokerPorts", 8000)
    if not ports:
        fields.refuse("brokerPorts", "is empty, so that no runner could work; give at least one port")
    return ports


def _ports(fields: Fields, key: str, default: int) -> tuple[int, ...]:
    return fields.numbers(key, (default,), least=1, most=65535)


def _archive(fields: Fields) -> Archive | None:
    install = fields.choice("install", ("package", "archive"), "package")
    given = fields.mapping("archive")
    if given is None:
        if install == "archive":
            fields.refuse("archive", "is missing; give url and sha256, or set tailnet:install to package")
        return None
    archive = Archive(
        url=given.text("url", matching=_ARCHIVE_URL, remedy="give an http(s):// URL"),
        sha256=given.text("sha256", matching=_SHA256, remedy="give 64 hexadecimal digits"),
    )
    given.end()
    if install != "archive":
        fields.refuse("archive", "is not used; set tailnet:install to archive, or remove it")
        return None
    return archive


def _hetzner(values: Mapping[str, str], environment: Mapping[str, str], problems: list[str]) -> HetznerAccess:
    token = values.get("hcloud:token") or environment.get("HCLOUD_TOKEN") or ""
    if not token:
        problems.append(f"hcloud:token: is missing; {_CREDENTIAL} hcloud:token`")
    given = values.get("hcloud:endpoint") or environment.get("HCLOUD_ENDPOINT")
    url = _api_url("hcloud:endpoint", given, "https://api.hetzner.cloud/v1", problems)
    return HetznerAccess(url=url, token=token)


def _tailscale(values: Mapping[str, str], environment: Mapping[str, str], problems: list[str]) -> TailscaleAccess:
    def given(key: str, variable: str) -> str | None:
        return values.get(f"tailscale:{key}") or environment.get(variable) or None

    access = TailscaleAccess(
        url=_api_url(
            "tailscale:baseUrl", given("baseUrl", "TAILSCALE_BASE_URL"), "https://api.tailscale.com", problems
        ),
        tailnet=given("tailnet", "TAILSCALE_TAILNET") or "-",
        api_key=given("apiKey", "TAILSCALE_API_KEY"),
        client_id=given("oauthClientId", "TAILSCALE_OAUTH_CLIENT_ID"),
        client_secret=given("oauthClientSecret", "TAILSCALE_OAUTH_CLIENT_SECRET"),
    )
    if access.api_key and access.client_secret:
        problems.append("tailscale:apiKey: is set, and an OAuth client too; remove one of them")
    if not access.api_key and not access.client_id:
        problems.append(f"tailscale:oauthClientId: is missing; {_CREDENTIAL} tailscale:oauthClientId`")
    if not access.api_key and not access.client_secret:
        problems.append(f"tailscale:oauthClientSecret: is missing; {_CREDENTIAL} tailscale:oauthClientSecret`")
    return access
