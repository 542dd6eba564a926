"""What an auditor brings along: programs for the hosts, and a machine on the network that nobody has seen before."""

from __future__ import annotations

import json
import shlex
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

    from tests.support.fleet import TestFleet

PORT = 12345
_OUTPUT = "/run/audit-listener"

# Runs each command of a JSON object in a shell and prints what they said, as one.
BATCH = """
import json, subprocess, sys
def run(command):
    run = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return run.stdout.strip()
print(json.dumps({name: run(command) for name, command in json.loads(sys.argv[1]).items()}))
"""

_SYSCTLS = """
import glob, os, sys
lines = [line for line in open("/etc/sysctl.d/60-openclaw.conf") if line.startswith(tuple(sys.argv[1:]))]
for key, wanted in (line.strip().split(" = ") for line in lines):
    files = glob.glob("/proc/sys/" + key.replace(".", "/"))
    for file in (file for file in files if not os.statvfs(file).f_flag & os.ST_RDONLY):
        if open(file).read().strip() != wanted:
            print(file, "is not", wanted)
print(len(lines), "settings")
"""

UNKNOWN_SETUID = (
    "find / -xdev -perm /6000 -type f | while read file; do"
    ' dpkg -S "$file" > /dev/null 2>&1 || dpkg -S "${file#/usr}" > /dev/null 2>&1 || echo "$file"; done'
)

_LISTENER = """
import selectors, socket, sys
def bound(family, kind):
    listener = socket.socket(family, kind)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", int(sys.argv[1])))
    return listener
waiting = selectors.DefaultSelector()
for family in (socket.AF_INET, socket.AF_INET6):
    tcp = bound(family, socket.SOCK_STREAM)
    tcp.listen()
    waiting.register(tcp, selectors.EVENT_READ)
    waiting.register(bound(family, socket.SOCK_DGRAM), selectors.EVENT_READ)
print("listening", flush=True)
while True:
    for key, _ in waiting.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            key.fileobj.accept()[0].close()
        else:
            message, sender = key.fileobj.recvfrom(100)
            print("from", sender[0], flush=True)
            key.fileobj.sendto(message, sender)
"""

_REACH = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
port, v4, v6 = int(sys.argv[1]), sys.argv[2], sys.argv[3]
def reached(way):
    kind = socket.SOCK_STREAM if way.startswith("tcp") else socket.SOCK_DGRAM
    address = socket.getaddrinfo(v4 if way.endswith("4") else v6 + "%eth0", port, type=kind)[0]
    with socket.socket(address[0], kind) as client:
        client.settimeout(1.5)
        try:
            client.connect(address[4])
            if kind == socket.SOCK_DGRAM:
                client.send(b"audit")
                client.recv(10)
        except OSError:
            return False
    return True
ways = ("tcp4", "tcp6", "udp4", "udp6")
with ThreadPoolExecutor() as pool:
    print(*[way for way, is_reached in zip(ways, pool.map(reached, ways)) if is_reached])
"""

# A datagram that says it is from 127.0.0.1, put on the wire as it is.
_SPOOF = """
import socket, struct, sys
port, target, mac = int(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3].replace(":", ""))
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("eth0", 0))
datagram = struct.pack("!HHHH", 4000, port, 13, 0) + b"audit"
head = struct.pack("!BBHHHBBH4s4s", 69, 0, 33, 1, 0, 64, 17, 0, socket.inet_aton("127.0.0.1"), socket.inet_aton(target))
total = sum(struct.unpack("!10H", head))
total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
link.send(mac + link.getsockname()[4] + b"\\x08\\x00" + head[:10] + struct.pack("!H", total) + head[12:] + datagram)
"""

# A network behind the host that its kernel passes packets to.
INNER_NETWORK = """
unshare --net sleep 600 < /dev/null > /dev/null 2>&1 & echo $! > /run/audit-net.pid; disown; sleep 0.2
ip link add audit0 type veth peer name eth0 netns $(cat /run/audit-net.pid)
ip address add 198.51.100.1/24 dev audit0; ip link set audit0 up
into="nsenter --net=/proc/$(cat /run/audit-net.pid)/ns/net ip"
$into address add 198.51.100.2/24 dev eth0; $into link set eth0 up; $into route add default via 198.51.100.1
sysctl --quiet net.ipv4.ip_forward=1
"""

# Where providers have their metadata; the last one is on a link, here the host's loopback.
METADATA = ("169.254.169.254", "fd00:ec2::254", "fd00:c1::a9fe:a9fe", "fd20:ce::254", "fe80::a9fe:a9fe%lo")
_PROVIDER = f"""
import signal, socket
found = [socket.getaddrinfo(address, port)[0] for address in {METADATA} for port in (53, 80)]
listeners = [socket.create_server(address, family=family) for family, _, _, _, address in found]
print("listening", flush=True)
signal.pause()
"""

# Prints for each port of the provider's metadata whether it is open, or how the attempt failed.
ASK_PROVIDER = f"""
import socket
for address in {METADATA}:
    for port in (53, 80):
        try:
            socket.create_connection((address, port), 2).close()
            print(address, port, "open")
        except OSError as error:
            print(address, port, error.strerror or error)
"""

# How to log in, and what must be said to it.
LOGINS: dict[str, tuple[str, ...]] = {
    "an administrator with a key": ("deploy",),
    "root with a key": ("root",),
    "an agent with a key": ("AGENT",),
    "a password": ("deploy", "PubkeyAuthentication=no", "PreferredAuthentications=password,keyboard-interactive"),
    "a cipher in CBC mode": ("deploy", "Ciphers=aes128-cbc"),
    "a checksum by SHA-1": ("deploy", "Ciphers=aes128-ctr", "MACs=hmac-sha1"),
    "a key exchange by SHA-1": ("deploy", "KexAlgorithms=diffie-hellman-group14-sha1"),
    "a port that leads back": ("deploy", "RemoteForward=0 127.0.0.1:22", "ExitOnForwardFailure=yes"),
}
REFUSALS = {
    "root with a key": "Permission denied (publickey)",
    "an agent with a key": "Permission denied (publickey)",
    "a password": "Permission denied (publickey)",
    "a cipher in CBC mode": "no matching cipher found",
    "a checksum by SHA-1": "no matching MAC found",
    "a key exchange by SHA-1": "no matching key exchange method found",
    "a port that leads back": "remote port forwarding failed",
}


def python(program: str, *arguments: object) -> str:
    """Return a shell command that runs a program."""
    return shlex.join(["python3", "-c", program, *map(str, arguments)])


def sysctls(*prefixes: str) -> str:
    """Return a shell command that prints the kernel's settings that are not as the role's file says.

    Settings that the kernel shows read-only, as to a container, cannot be in force there and are left out.
    """
    return python(_SYSCTLS, *prefixes)


@contextmanager
def provider(host: Host) -> Iterator[None]:
    """Have a program answer on the host where a provider's metadata and name server would."""
    bits = {address.removesuffix("%lo"): 128 if ":" in address else 32 for address in METADATA}
    addresses = [f"{address}/{length}" for address, length in bits.items()]
    host.run_expect([0], "; ".join(f"ip address add {address} dev lo" for address in addresses))
    unit = f"systemd-run --quiet --collect --unit=audit-provider --property=StandardOutput=truncate:{_OUTPUT}"
    host.run_expect([0], f"{unit} {python(_PROVIDER)}")
    try:
        host.run_expect([0], f"timeout 20 sh -c 'until grep -q listening {_OUTPUT}; do sleep 0.05; done'")
        yield
    finally:
        taken = "; ".join(f"ip address delete {address} dev lo" for address in addresses)
        host.run_expect([0], f"systemctl stop audit-provider; rm {_OUTPUT}; {taken}")


class Stranger:
    """Comes from an address of its own: sshd shuts out an address for its failures, and not the others with it."""

    address = "127.0.0.254"

    def __init__(self, fleet: TestFleet) -> None:
        self._fleet = fleet

    def log_in(self, node: str, user: str, *options: str, command: str = "true") -> str:
        """Log in afresh, past the firewall, and return what ssh said if it failed."""
        namespace = self._fleet.lab.machine(node).namespace
        through = f"nsenter --net={namespace} nc -q 0 -s {self.address} 127.0.0.1 %p"
        all_options = [f"ProxyCommand={through}", "ControlPath=none", *options]
        argv = ["ssh", "-F", str(self._fleet.lab.lab.ssh_config), *(f"-o{option}" for option in all_options)]
        done = subprocess.run(
            [*argv, f"{user}@{node}", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return done.stderr if done.returncode else ""

    @contextmanager
    def key_of(self, user: str, node: str) -> Iterator[None]:
        """Put the administrator's key where sshd would look for this user's."""
        host = self._fleet.host(node)
        folder = f"$(getent passwd {user} | cut -d: -f6)/.ssh"
        host.run_expect([0], f"install -d -m 0700 -o {user} -g {user} {folder}")
        keys = f"/home/deploy/.ssh/authorized_keys {folder}/authorized_keys"
        host.run_expect([0], f"install -m 0600 -o {user} -g {user} {keys}")
        try:
            yield
        finally:
            host.run_expect([0], f"rm -r {folder}")

    @contextmanager
    def listener(self, node: str) -> Iterator[None]:
        """Have a program answer on a port nobody declared, by TCP and UDP, on every address."""
        host = self._fleet.host(node)
        unit = f"systemd-run --quiet --collect --unit=audit-listener --property=StandardOutput=truncate:{_OUTPUT}"
        host.run_expect([0], f"{unit} {python(_LISTENER, PORT)}")
        host.run_expect([0], f"timeout 20 sh -c 'until grep -q listening {_OUTPUT}; do sleep 0.05; done'")
        try:
            yield
        finally:
            host.run_expect([0], f"systemctl stop audit-listener; rm {_OUTPUT}")

    @contextmanager
    def alone(self, *nodes: str) -> Iterator[None]:
        """Take the cloud's firewalls away, so that hosts have only their own; an IPv6 packet passes by none of them."""
        kept = {machine: machine.rules for machine in map(self._fleet.lab.machine, nodes)}
        try:
            for machine in kept:
                machine.filter(None)
            yield
        finally:
            for machine, rules in kept.items():
                machine.filter(rules)

    def reached(self, source: str, node: str) -> list[str]:
        """Return the ways by which one node reaches the listener of another."""
        show = "ip -json -6 address show dev eth0 scope link"
        shown = json.loads(self._fleet.host(node).run_expect([0], show).stdout)
        address = self._fleet.lab.machine(node).address
        link_local = shown[0]["addr_info"][0]["local"]
        reach = python(_REACH, PORT, address, link_local)
        return str(self._fleet.host(source).run_expect([0], reach).stdout).split()

    def spoof(self, source: str, node: str) -> list[str]:
        """Send a datagram from 127.0.0.1 over the wire, then an honest one; return whose datagrams came through."""
        target = self._fleet.lab.machine(node)
        self._fleet.host(source).run_expect([0], python(_SPOOF, PORT, target.address, target.mac))
        self.reached(source, node)
        return str(self._fleet.host(node).run_expect([0], f"grep '^from [0-9.]*$' {_OUTPUT}").stdout).splitlines()

    @contextmanager
    def gullible_kernel(self, node: str) -> Iterator[None]:
        """Take the kernel's own checks of a packet's source away."""
        settings = {"route_localnet": 1, "accept_local": 1, "rp_filter": 0}
        host = self._fleet.host(node)
        places = [
            (f"net.ipv4.conf.{where}.{name}", value) for name, value in settings.items() for where in ("all", "eth0")
        ]
        before = host.run_expect([0], "sysctl " + " ".join(key for key, _ in places)).stdout
        host.run_expect([0], "sysctl --quiet " + " ".join(f"{key}={value}" for key, value in places))
        try:
            yield
        finally:
            host.run_expect([0], "sysctl --quiet " + before.replace(" = ", "=").replace("\n", " "))
