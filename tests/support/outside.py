"""The internet, as a node sees it: an address on the lab's bridge that is no member of the tailnet."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab import network
from lab.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from lab.lab import Lab
    from lab.machines import Machine

PORTS = range(1, 65536)
_NUMBER = 9  # on the bridge, where hosts begin at 11
_FROM_PORT = 50000
_BUFFER = 1 << 24
_SO_RCVBUFFORCE = 33  # socket(7); Python has no name for it
# So many packets go out before answers are taken in.
_BURST = 64
# An answer takes less than a millisecond, but the machine may be busy.
_SILENCE = 1.5
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_UNREACHABLE = 3
# Something that no protocol knows, STUN's binding request, and the length of WireGuard's first message.
_DATAGRAMS = (b"hello\n", struct.pack("!HHI12x", 1, 0, 0x2112A442), b"\x01" + bytes(147))


@contextmanager
def outsider(lab: Lab) -> Iterator[Outsider]:
    """Have a network namespace on the bridge, beside the hosts."""
    namespace = lab.folder / "netns/outsider"
    address = f"{lab.prefix}.{_NUMBER}"
    own = {"mac": f"02:fb:ff:00:00:{_NUMBER:02x}", "address": f"{address}/24", "gateway": lab.gateway}
    network.plug(lab.namespace, namespace, port=f"g{_NUMBER}", **own)
    try:
        yield Outsider(namespace, address)
    finally:
        network.delete(namespace)


class Outsider:
    """Somebody with an address, who tries every door."""

    def __init__(self, namespace: Path, address: str) -> None:
        self._namespace = namespace
        self._address = address

    def scan(self, target: Machine, ports: Iterable[int] = PORTS) -> dict[int, str]:
        """Call TCP ports, a SYN each, and return what answered: "open", "refused", or "unreachable" by ICMP."""
        answers: dict[int, str] = {}
        with self._raw(socket.IPPROTO_TCP) as tcp, self._raw(socket.IPPROTO_ICMP) as icmp:
            header = _Syn(self._address, target.address)

            def listen() -> bool:
                heard = [*_packets(tcp, target.address, _tcp_answer), *_packets(icmp, target.address, _icmp_answer)]
                answers.update(heard)
                return bool(heard)

            # Both ends learn each other's hardware address by the first; what waits for that may be lost.
            tcp.sendto(header.to(1), (target.address, 0))
            time.sleep(0.3)
            for number, port in enumerate(ports):
                tcp.sendto(header.to(port), (target.address, 0))
                if number % _BURST == 0:
                    listen()
            until = time.monotonic() + _SILENCE
            while time.monotonic() < until:
                if listen():
                    until = time.monotonic() + _SILENCE
                time.sleep(0.01)
        return answers

    def knock(self, target: Machine, port: int) -> str:
        """Send datagrams to a UDP port and return what came of it: "answer", "refused" (by ICMP), or "silence"."""
        with network.inside(self._namespace):
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with opened:
            opened.connect((target.address, port))
            opened.settimeout(_SILENCE / len(_DATAGRAMS))
            for datagram in _DATAGRAMS:
                try:
                    opened.send(datagram)
                    opened.recv(2048)
                except TimeoutError:
                    continue
                except ConnectionRefusedError:
                    return "refused"
                return "answer"
        return "silence"

    def _raw(self, protocol: int) -> socket.socket:
        with network.inside(self._namespace):
            opened = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        return opened

    @contextmanager
    def counted(self, target: Machine) -> Iterator[Callable[[], int]]:
        """Count the outsider's packets as they come in at the target, before any firewall of its own."""
        network.nft(
            target.namespace,
            f"""table ip arrivals {{
            counter outsider {{ }}
            chain incoming {{
                type filter hook prerouting priority raw; policy accept;
                ip saddr {self._address} counter name outsider
            }}
            }}\n""",
        )
        try:
            yield lambda: _packets_in(target)
        finally:
            network.nft(target.namespace, "delete table ip arrivals\n")


def udp_ports(target: Machine) -> set[int]:
    """Return the UDP ports that something on a host listens on, for whomever."""
    listed = run(["nsenter", f"--net={target.namespace}", "ss", "-Hlun"])
    return {int(port) for port in re.findall(r"^\S+ +\d+ +\d+ +\S+:(\d+) ", listed, re.MULTILINE)}


def _packets_in(target: Machine) -> int:
    enter = ["nsenter", f"--net={target.namespace}"]
    listed = json.loads(run([*enter, "nft", "--json", "list", "counter", "ip", "arrivals", "outsider"]))
    return next(int(entry["counter"]["packets"]) for entry in listed["nftables"] if "counter" in entry)


class _Syn:
    """TCP's first packet (RFC 9293) from one address to another, to any port."""

    def __init__(self, source: str, target: str) -> None:
        ends = socket.inet_aton(source) + socket.inet_aton(target)
        pseudo_header = ends + struct.pack("!HH", socket.IPPROTO_TCP, 20)
        self._sum = sum(struct.unpack("!6H", pseudo_header)) + sum(struct.unpack("!10H", self._packet(0, 0)))

    def to(self, port: int) -> bytes:
        total = self._sum + port
        total = (total & 0xFFFF) + (total >> 16)
        return self._packet(port, ~(total + (total >> 16)) & 0xFFFF)

    @staticmethod
    def _packet(port: int, checksum: int) -> bytes:
        return struct.pack("!HHIIBBHHH", _FROM_PORT, port, 1, 0, 5 << 4, _SYN, 64240, checksum, 0)


def _packets(
    raw: socket.socket, source: str, read: Callable[[bytes], tuple[int, str] | None]
) -> Iterator[tuple[int, str]]:
    """Yield what is read from each packet of this source that is there; a raw socket shows the IP header first."""
    while True:
        try:
            packet, (address, _) = raw.recvfrom(2048)
        except BlockingIOError:
            return
        if address == source and (answer := read(packet[(packet[0] & 0xF) * 4 :])):
            yield answer


def _tcp_answer(segment: bytes) -> tuple[int, str] | None:
    port, own, flags = struct.unpack("!HH9xB", segment[:14])
    if own != _FROM_PORT:
        return None
    return port, "refused" if flags & _RST else "open" if flags & (_SYN | _ACK) else f"flags {flags}"


def _icmp_answer(message: bytes) -> tuple[int, str] | None:
    """Return the port that an error is about: the header of the packet in question follows the error's own."""
    if message[0] != _UNREACHABLE:
        return None
    about = message[8:]
    own, port = struct.unpack("!HH", about[(about[0] & 0xF) * 4 :][:4])
    return (port, "unreachable") if own == _FROM_PORT else None
