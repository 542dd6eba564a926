"""The configuration's list of nodes."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from infra.settings import ROLES, Node, Role, Volume

if TYPE_CHECKING:
    from infra.fields import Fields

MOST_IN_A_SPREAD_GROUP = 10
_SERVER_TYPE = re.compile(r"[a-z]{2,4}\d{1,3}")
_WORD = re.compile(r"[a-z0-9][a-z0-9.-]*")
_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"\d+")
_TRAILING_NUMBER = re.compile(r"(\d{1,4})$")
_RESERVED = frozenset({"all", "ungrouped", "localhost", "tailnet", "brokers", "runners", "gateways"})


def read_nodes(fleet: Fields) -> tuple[Node, ...]:
    """Read `fleet:nodes`, and the defaults of its fields beside it. Mistakes are noted in the fields."""
    default = {
        "type": fleet.text("serverType", "cx23", matching=_SERVER_TYPE, remedy="give one such as cx23"),
        "image": fleet.text("image", "debian-12", matching=_WORD, remedy="give one such as debian-12"),
        "location": fleet.text("location", "fsn1", matching=_WORD, remedy="give one such as fsn1"),
    }
    listed = fleet.mapping("nodes")
    if not fleet.has("nodes"):
        fleet.refuse("nodes", "is missing; give at least a broker, as in infra/Pulumi.example.yaml")
    if listed is None:
        return ()
    nodes = tuple(_node(name, fields, listed, default) for name, fields in listed.children())
    if fleet.sound:
        _check_together(fleet, listed, nodes)
    return nodes


def _node(name: str, fields: Fields, listed: Fields, default: dict[str, str]) -> Node:
    if not _LABEL.fullmatch(name):
        listed.refuse(name, "is no host name; use up to 63 of a-z, 0-9 and -, with a letter first")
    if name in _RESERVED:
        listed.refuse(name, "is the name of a group; choose another")
    role: Role = fields.choice("role", ROLES)
    node = Node(
        name=name,
        role=role,
        server_type=fields.text("type", default["type"], matching=_SERVER_TYPE, remedy="give one such as cx23"),
        image=fields.text("image", default["image"], matching=_WORD, remedy="give one such as debian-12"),
        location=fields.text("location", default["location"], matching=_WORD, remedy="give one such as fsn1"),
        generation=fields.number("generation", 1, least=1, most=1_000_000),
        placement=fields.number("placement", _placement(name), least=0, most=1_000),
        protect=fields.flag("protect", default=role == "broker"),
        volume=_volume(fields.mapping("volume")),
        renamed_from=fields.optional("renamedFrom", matching=_LABEL, remedy="give the node's name before"),
    )
    if node.volume and role != "broker":
        fields.refuse("volume", f"is not used by a {role}; only the broker keeps data, remove it")
    _check_rename(fields, node)
    fields.end()
    return node


def _placement(name: str) -> int:
    """Return a spread group for a node that no other node's coming or going changes: by the number in its name."""
    number = _TRAILING_NUMBER.search(name)
    return max(int(number[1]) - 1, 0) // MOST_IN_A_SPREAD_GROUP if number else 0


def _check_rename(fields: Fields, node: Node) -> None:
    """See that a renamed node stays in its spread group, which a server that runs cannot leave."""
    if not node.renamed_from or fields.has("placement"):
        return
    before = _placement(node.renamed_from)
    if before != node.placement:
        fields.refuse("placement", f"is missing; give {before}, the group that the server is in as {node.renamed_from}")


def _volume(fields: Fields | None) -> Volume | None:
    if fields is None:
        return None
    volume = Volume(
        size=fields.number("size", 10, least=10, most=10_240),
        adopt=fields.optional("adopt", matching=_NUMBER, remedy="give the volume's number in quotes"),
        keep=fields.flag("keep", default=True),
    )
    fields.end()
    return volume


def _check_together(fleet: Fields, listed: Fields, nodes: tuple[Node, ...]) -> None:
    brokers = [node.name for node in nodes if node.role == "broker"]
    if len(brokers) != 1:
        fleet.refuse("nodes", f"has {len(brokers)} nodes with the role broker; give exactly one")
    names = {node.name for node in nodes}
    former: set[str | None] = {None}
    for node in nodes:
        if node.renamed_from in names:
            listed.refuse(f"{node.name}.renamedFrom", f"{node.renamed_from} is a node here; remove one of them")
        if node.renamed_from and node.renamed_from in former:
            listed.refuse(f"{node.name}.renamedFrom", f"{node.renamed_from} is another node's too; give it once")
        former.add(node.renamed_from)
    _check_placement(listed, nodes)


def _check_placement(listed: Fields, nodes: tuple[Node, ...]) -> None:
    seen: Counter[tuple[Role, int]] = Counter()
    for node in nodes:
        group = (node.role, node.placement)
        seen[group] += 1
        if seen[group] > MOST_IN_A_SPREAD_GROUP:
            trouble = f"is one too many in group {node.placement} of the {node.role}s; give another number"
            listed.refuse(f"{node.name}.placement", f"{trouble}, a spread group takes {MOST_IN_A_SPREAD_GROUP}")
