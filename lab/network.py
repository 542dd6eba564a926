"""Network namespaces: a lab is one bridge without a way out, and each host a namespace on it.

A cloud host has one more between the two, which is its firewall (lab/firewall.py).

Namespaces are kept as files in the lab's own folder (unshare(1), nsenter(1)), not under /run/netns, whose mount would
outlive the lab.
"""

from __future__ import annotations

import ctypes
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import CommandFailedError, LabError
from lab.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def create(namespace: Path) -> None:
    """Make an empty network namespace and keep it at this path."""
    namespace.parent.mkdir(parents=True, exist_ok=True)
    namespace.touch()
    # A machine with containers forwards packets, and each new namespace does as it does.
    run(["unshare", f"--net={namespace}", "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"])
    ip(namespace, "link set lo up")


def delete(namespace: Path) -> None:
    """Forget a namespace; with its last process gone, its links go too."""
    if exists(namespace):
        run(["umount", str(namespace)])
    namespace.unlink(missing_ok=True)


def identity(namespace: Path) -> int:
    """Return the number by which the kernel tells this namespace from others.

    Raises:
        FileNotFoundError: nothing is at the path.
    """
    return namespace.stat().st_ino


def ip(namespace: Path, *commands: str) -> None:
    """Configure links, addresses and routes inside a namespace, a command of the ip program a line."""
    run(["nsenter", f"--net={namespace}", "ip", "-batch", "-"], stdin="\n".join(commands) + "\n")


def block(namespace: Path, port: str, hook: str) -> None:
    """Drop what a link brings into a namespace (hook `ingress`) or takes out of it (`egress`)."""
    chain = f"chain {hook} {{ type filter hook {hook} device {port} priority 0; policy drop; }}\n"
    nft(namespace, f"table netdev {port} {{\n{chain}}}\n")


def unblock(namespace: Path, port: str) -> None:
    """Let everything pass over a link again."""
    nft(namespace, f"table netdev {port} {{\n}}\ndelete table netdev {port}\n")


def nft(namespace: Path, script: str) -> None:
    """Apply an nftables script inside a namespace, all of it or nothing."""
    run(["nsenter", f"--net={namespace}", "nft", "--file", "-"], stdin=script)


def create_bridge(namespace: Path, *, address: str | None = None) -> None:
    """Make a namespace with a bridge that has this address (CIDR form), or none."""
    create(namespace)
    ip(namespace, "link add name br0 type bridge", "link set br0 up")
    if address:
        ip(namespace, f"address add {address} dev br0")


def filter_bridged(namespace: Path) -> None:
    """Show what a bridge forwards to the tables of IP and IPv6, which can follow connections; its own cannot.

    Raises:
        LabError: the kernel cannot; it lacks br_netfilter.
    """
    settings = Path("/proc/sys/net/bridge")
    if not settings.exists():
        with suppress(CommandFailedError):
            run(["modprobe", "br_netfilter"])
    if not settings.exists():
        raise LabError("a cloud firewall needs the kernel's module br_netfilter: modprobe br_netfilter")
    calls = "; ".join(f"echo 1 > {settings}/bridge-nf-call-{tables}" for tables in ("iptables", "ip6tables"))
    # The bridge itself has no address, and shall not give itself one.
    run(["nsenter", f"--net={namespace}", "sh", "-ec", f"{calls}; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"])


def join_bridges(one: Path, other: Path, *, port: str, peer: str) -> None:
    """Lay a cable from one namespace's bridge to another's: `port` in the first, `peer` in the other."""
    _unplug(one, port)
    ip(one, f"link add {port} type veth peer name {peer} netns {other}", f"link set {port} master br0 up")
    ip(other, f"link set {peer} master br0 up")


def plug(lab: Path, host: Path, *, port: str, mac: str, address: str, gateway: str) -> None:
    """Give a host's new namespace an `eth0` on the bridge of another.

    The MAC address is fixed because a new one at each start leaves neighbours with a stale entry for half a minute.
    """
    create(host)
    _unplug(lab, port)
    ip(lab, f"link add {port} type veth peer name eth0 netns {host}", f"link set {port} master br0 up")
    ip(
        host,
        f"link set eth0 address {mac} up",
        f"address add {address} dev eth0",
        f"route add default via {gateway}",
    )


def _unplug(namespace: Path, port: str) -> None:
    # The link to a host's last network may still be there: the kernel takes it down some time after the host.
    with suppress(CommandFailedError):
        ip(namespace, f"link delete {port}")


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """Let this thread open sockets in a namespace; a socket stays where it was opened (setns(2))."""
    with Path("/proc/thread-self/ns/net").open("rb") as home, namespace.open("rb") as away:
        _setns(away.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def tcp_socket(namespace: Path) -> socket.socket:
    """Return a TCP socket that belongs to a namespace."""
    with inside(namespace):
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def exists(path: Path) -> bool:
    """Say whether a namespace is mounted at the path: a file whose device is not its folder's."""
    return path.exists() and path.stat().st_dev != path.parent.stat().st_dev
