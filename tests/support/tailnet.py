"""A lab's tailnet as its members see it: who reaches whom, told by the caller and by what arrives at the other end."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab import cgroups, network, tools
from lab.process import run, wait_until
from lab.tailnet import Tailnet

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Iterator, Mapping
    from pathlib import Path

    from lab.lab import Lab

INTERFACE = "tailscale0"
# A way in: the protocol and the port.
Way = tuple[str, int]
# As long as a first handshake may take on a busy machine.
_PATIENCE = 30.0
# What has not come by then, after all that was awaited, is lost: a caller tries again after one second.
_SILENCE = 3.0
_JOIN_SECONDS = 30.0


@dataclass(frozen=True)
class Member:
    """A node of the tailnet. Its namespace is where its sockets are; one with `dial` calls by that command instead."""

    name: str
    tag: str
    address: str
    namespace: Path
    dial: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class Call:
    """An attempt to reach one member from another."""

    source: str
    target: str
    way: Way


@dataclass(frozen=True)
class Outcome:
    """What came of a call: what the caller was told, and whether a packet of it came out of the target's tailnet."""

    said: str
    arrived: bool


OPEN = Outcome("answered", arrived=True)
CLOSED = Outcome("silence", arrived=False)


class Guest:
    """A member without a host: a tailscaled in a network namespace on the lab's bridge, as light as can be."""

    def __init__(self, lab: Lab, name: str, tag: str, number: int) -> None:
        self.name = name
        self._lab = lab
        self._tag = tag
        self._number = number
        self._tailnet = Tailnet(lab)
        self._service = f"guest-{name}"
        self._namespace = lab.folder / "netns" / self._service
        self._folder = lab.folder / "tailnet" / name
        self._socket = lab.folder / "tailnet" / f"{name}.sock"

    def join(self) -> Member:
        lab = self._lab
        self._folder.mkdir(mode=0o700)
        mac = f"02:fb:ff:00:00:{self._number:02x}"
        own = {"mac": mac, "address": f"{lab.prefix}.{self._number}/24", "gateway": lab.gateway}
        network.plug(lab.namespace, self._namespace, port=f"g{self._number}", **own)
        # Like the controller's, it must find headscale and shall change nothing of the machine.
        files = ((lab.folder / "tailnet" / file, f"/etc/{file}") for file in ("hosts", "resolv.conf"))
        script = "".join(f"mount --bind {ours} {theirs} && " for ours, theirs in files) + 'exec "$@"'
        enter = ["nsenter", f"--net={self._namespace}", "unshare", "--mount", "--propagation=slave"]
        lab.service(self._service, "lab.execute", *enter, "sh", "-c", script, "sh", *self._tailscaled())
        wait_until(lambda: self._socket.exists() or None, what=f"guest {self.name}", timeout=_JOIN_SECONDS)
        key = self._folder / "key"
        key.write_text(self._tailnet.key(self._tag))
        up = ["up", f"--login-server={self._tailnet.login_server}", f"--auth-key=file:{key}", f"--hostname={self.name}"]
        quiet = ["--accept-dns=false", "--netfilter-mode=off", f"--timeout={_JOIN_SECONDS:g}s"]
        tailscale = [str(tools.path("tailscale")), f"--socket={self._socket}"]
        run([*tailscale, *up, *quiet], timeout=_JOIN_SECONDS + 5)
        address = run([*tailscale, "ip", "-4"]).strip()
        return Member(self.name, self._tag, address, self._namespace)

    def _tailscaled(self) -> list[str]:
        where = [f"--tun={INTERFACE}", f"--statedir={self._folder}", f"--socket={self._socket}"]
        trust = f"SSL_CERT_FILE={self._tailnet.ca}"
        return ["env", trust, str(tools.path("tailscaled")), *where, "--port=41641", "--no-logs-no-support"]

    def leave(self) -> None:
        """End it and have the tailnet forget it; nothing of it is left, however far it came."""
        group = f"{self._lab.cgroup}/{self._service}"
        cgroups.kill(group)
        cgroups.remove(group)
        for node in self._tailnet.nodes():
            if node.hostname == self.name:
                self._tailnet.headscale("nodes", "delete", "--identifier", str(node.id), "--force")
        network.delete(self._namespace)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._socket.unlink(missing_ok=True)
        (self._lab.folder / f"{self._service}.log").unlink(missing_ok=True)


@contextmanager
def guests(lab: Lab, tags: dict[str, str]) -> Iterator[list[Member]]:
    """Have guests with these names and tags in the tailnet. Their addresses on the bridge are below any host's."""
    invited = [Guest(lab, name, tag, number) for number, (name, tag) in enumerate(tags.items(), start=2)]
    try:
        with ThreadPoolExecutor() as pool:
            joined = list(pool.map(Guest.join, invited))
        yield joined
    finally:
        for guest in invited:
            guest.leave()


def nodes(lab: Lab) -> list[Member]:
    """Return the lab's hosts that are in the tailnet, and the controller, which calls by its own `tailscale nc`."""
    tailnet = Tailnet(lab)
    hosts = {machine.name: machine.namespace for machine in lab.machines()}
    found = []
    for node in tailnet.nodes():
        if node.name in hosts:
            found.append(Member(node.name, node.tags[0], node.addresses[0], hosts[node.name]))
        elif node.name == "controller":
            # An address that is no peer's, nc dials by itself: here that must not lead into the machine's network.
            dial = ("nsenter", f"--net={lab.namespace}", *tailnet.command, "nc")
            found.append(Member(node.name, node.tags[0], node.addresses[0], lab.namespace, dial))
    return found


@contextmanager
def policy(lab: Lab, *rules: Mapping[str, object]) -> Iterator[None]:
    """Have the tailnet go by other rules for a while, and by its own again."""
    tailnet = Tailnet(lab)
    before = tailnet.headscale("policy", "get")
    assert before["acls"], before
    file = lab.folder / "tailnet/other-policy.json"
    try:
        file.write_text(json.dumps({**before, "acls": rules}))
        tailnet.headscale("policy", "set", "--file", str(file))
        yield
    finally:
        file.write_text(json.dumps(before))
        tailnet.headscale("policy", "set", "--file", str(file))
        file.unlink()


def pairs(members: list[Member], ways: Collection[Way]) -> dict[Call, tuple[Member, Member]]:
    """Return every call there can be, with its ends. Who calls by a command does so by TCP, and is not called."""
    return {
        Call(source.name, target.name, way): (source, target)
        for source in members
        for target in members
        for way in ways
        if source != target and not target.dial and (way[0] == "tcp" or not source.dial)
    }


def call(members: list[Member], ways: Collection[Way], awaited: Collection[Call]) -> dict[Call, Outcome]:
    """Have every member call every other by every way, all at once, and return what came of each call.

    Where nobody listens at the target, somebody does meanwhile. Calls that are awaited get all the time they need.
    """
    ends = pairs(members, ways)
    targets = {target.name: target for _, target in ends.values()}.values()
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(_recording(target))
        ears = [stack.enter_context(ear) for target in targets for way in ways if (ear := _ear(target, way))]
        said = asyncio.run(_call_all(ends, ears, awaited))
        arrived = {target.name: _arrived(target) for target in targets}
    return {
        each: Outcome(said[each], (source.address, *each.way) in arrived[each.target])
        for each, (source, _) in ends.items()
    }


def _ear(target: Member, way: Way) -> socket.socket | None:
    """Return a socket that listens at the target, None where a service of its own does."""
    protocol, port = way
    ear = _socket(target, protocol)
    try:
        ear.bind((target.address, port))
    except OSError:
        ear.close()
        return None
    if protocol == "tcp":
        ear.listen(128)
    return ear


def _socket(member: Member, protocol: str) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with network.inside(member.namespace):
        opened = socket.socket(socket.AF_INET, kind)
    opened.setblocking(False)
    return opened


async def _call_all(
    ends: dict[Call, tuple[Member, Member]], ears: list[socket.socket], awaited: Collection[Call]
) -> dict[Call, str]:
    answers = [asyncio.create_task(_answer(ear)) for ear in ears]
    calls = {each: asyncio.create_task(_call(each.way, *both)) for each, both in ends.items()}
    if awaited:
        await asyncio.wait([calls[each] for each in awaited], timeout=_PATIENCE)
    await asyncio.wait(calls.values(), timeout=_SILENCE)
    said = {each: task.result() if task.done() else "silence" for each, task in calls.items()}
    for task in (*answers, *calls.values()):
        task.cancel()
    await asyncio.gather(*answers, *calls.values(), return_exceptions=True)
    return said


def _call(way: Way, source: Member, target: Member) -> Coroutine[None, None, str]:
    protocol, port = way
    if source.dial:
        return _dial([*source.dial, target.address, str(port)])
    return _connect(source, target, port) if protocol == "tcp" else _send(source, target, port)


async def _connect(source: Member, target: Member, port: int) -> str:
    with _socket(source, "tcp") as caller:
        try:
            await asyncio.get_running_loop().sock_connect(caller, (target.address, port))
        except OSError as error:
            return str(error.strerror)
    return "answered"


async def _send(source: Member, target: Member, port: int) -> str:
    """Send a datagram again and again, until one comes back."""
    loop = asyncio.get_running_loop()
    with _socket(source, "udp") as caller:
        caller.connect((target.address, port))
        while True:
            try:
                caller.send(b"hello")
                await asyncio.wait_for(loop.sock_recv(caller, 16), timeout=0.5)
            except TimeoutError:
                continue
            except OSError as error:
                return str(error.strerror)
            return "answered"


async def _dial(argv: list[str]) -> str:
    """Call by `tailscale nc`, whose status says nothing of whether it got through: a word from there does."""
    pipe, quiet = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    dialled = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=quiet)
    try:
        assert dialled.stdin
        assert dialled.stdout
        dialled.stdin.write(b"GET / HTTP/1.0\r\n\r\n")
        return "answered" if await dialled.stdout.read(1) else "silence"
    finally:
        with suppress(ProcessLookupError):
            dialled.kill()
        await dialled.communicate()


async def _answer(ear: socket.socket) -> None:
    """Have a word for everybody who calls."""
    loop = asyncio.get_running_loop()
    with ExitStack() as connections:
        while True:
            if ear.type == socket.SOCK_DGRAM:
                said, caller = await loop.sock_recvfrom(ear, 16)
                await loop.sock_sendto(ear, said, caller)
                continue
            connection, _ = await loop.sock_accept(ear)
            connections.enter_context(connection)
            with suppress(OSError):  # who called has gone
                connection.send(b"hello")


@contextmanager
def _recording(target: Member) -> Iterator[None]:
    """Note who calls by which way, as the packet comes out of the tailnet and before any firewall of the host."""
    arrived = "add @arrived { ip saddr . meta l4proto . th dport }"
    network.nft(
        target.namespace,
        f"""table ip record {{
        set arrived {{ type ipv4_addr . inet_proto . inet_service; flags dynamic; size 65535; }}
        chain incoming {{
            type filter hook prerouting priority raw; policy accept;
            iifname != "{INTERFACE}" return
            tcp flags & (syn | ack) == syn {arrived}
            meta l4proto udp {arrived}
        }}
        }}\n""",
    )
    try:
        yield
    finally:
        network.nft(target.namespace, "delete table ip record\n")


def _arrived(target: Member) -> set[tuple[str, str, int]]:
    enter = ["nsenter", f"--net={target.namespace}"]
    listed = json.loads(run([*enter, "nft", "--json", "list", "set", "ip", "record", "arrived"]))
    found = next(entry["set"] for entry in listed["nftables"] if "set" in entry).get("elem", [])
    return {tuple(each["concat"]) for each in found}
