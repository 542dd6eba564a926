"""A lab: hosts on a bridge of their own, which meet nothing else on the machine.

Everything a lab has follows from its name: its folder, addresses, namespaces and control groups. So `down` finds all
of it, also after the process that made it was killed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cgroups, files, folders, image, inventory, loops, mounts, network, registries
from lab.errors import LabError
from lab.machines import Machine, Spec
from lab.process import PROJECT, run, start, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from lab.layer import Seed

PROXY_PORT = 3128
_FIRST_NUMBER = 11
_LAST_NUMBER = 250
_SERVICES = {"files", "headscale", "hetzner-api", "proxy", "relay", "tailscale-api", "tailscaled"}
_RESERVED = {"complete", "controller", "lab", *_SERVICES}
# systemd-nspawn makes these and leaves them.
_NSPAWN_FOLDERS = (Path("/run/systemd/nspawn/propagate"), Path("/run/systemd/nspawn"))


def checkout() -> str:
    """Return six digits that tell this checkout from others on the machine."""
    return hashlib.sha256(str(PROJECT).encode()).hexdigest()[:6]


def default_name() -> str:
    """Return OPENCLAW_LAB, or the lab's name for this checkout: two checkouts have two labs."""
    return os.environ.get("OPENCLAW_LAB") or f"lab-{checkout()}"


class Lab:
    """A lab by its name; it need not exist yet."""

    def __init__(self, name: str) -> None:
        """Take a name of up to 24 small letters, digits and hyphens.

        Raises:
            LabError: the name is none.
        """
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,23}", name):
            raise LabError(f"lab name {name!r}: use up to 24 small letters, digits and hyphens, a letter first")
        self.name = name
        self.folder = folders.LABS / name
        self.cgroup = f"openclaw-lab/{name}"
        digest = hashlib.sha256(name.encode()).digest()
        self.prefix = f"10.{64 + digest[0] % 64}.{digest[1]}"
        self.gateway = f"{self.prefix}.1"
        self.proxy_url = f"http://{self.gateway}:{PROXY_PORT}"
        self.namespace = self.folder / "netns" / "lab"
        self.private_key = self.folder / "ssh/id_ed25519"
        self.public_key = self.folder / "ssh/id_ed25519.pub"
        self.known_hosts = self.folder / "ssh/known_hosts"
        self.ssh_config = self.folder / "ssh/config"
        self.inventory = self.folder / "inventory.yml"
        self.proxy_log = self.folder / "proxy.log"

    def machines(self) -> list[Machine]:
        """Return the lab's hosts by number."""
        names = [spec.parent.name for spec in (self.folder / "hosts").glob("*/spec.json")]
        found = [machine for name in names if (machine := self.find(name))]
        return sorted(found, key=lambda machine: machine.number)

    def find(self, name: str) -> Machine | None:
        """Return one host, or None where there is none of that name."""
        try:
            return Machine.load(self, name)
        except LabError:
            return None

    def machine(self, name: str) -> Machine:
        """Return one host; LabError where there is none of that name."""
        return Machine.load(self, name)

    @contextmanager
    def change(self) -> Iterator[None]:
        """Be the one process that changes the lab; what it starts ends with the lab, also if it is killed itself.

        Raises:
            LabError: another process is changing the lab.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                flock(lock, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise LabError(
                    f"lab {self.name}: another command is at work on it; wait for it, or take it down"
                ) from None
            controller = f"{self.cgroup}/controller"
            cgroups.kill(controller)
            cgroups.join(controller)
            yield

    def create(self, hosts: Iterable[tuple[str, str, str]]) -> list[Machine]:
        """Make and boot hosts, given as (name, image, group), and return them when all are ready.

        A host that exists is booted where it is off, and left alone else.
        """
        hosts = list(hosts)
        for name, base, _ in hosts:
            _check_host(name, base)
        self.prepare()
        created = [self.add(name, base, group=group) for name, base, group in hosts]
        self.each(Machine.start, created)
        self.each(Machine.wait, created)
        return created

    def add(
        self,
        name: str,
        base: str,
        *,
        group: str = "",
        seed: Seed | None = None,
        prepare: Callable[[Path, Path], None] | None = None,
    ) -> Machine:
        """Lay down a host, off, or return the one of that name; several may be added at once, by whomever.

        With a seed it is a server of the cloud: it has a firewall, and no account but what its user data makes.
        """
        _check_host(name, base)
        image.ensure(base, builder=self.name)
        with self.together():
            if existing := self.find(name):
                return existing
            machine = Machine(self, Spec(name, base, group, self._free_number(), seed.server if seed else 0))
            shutil.rmtree(self.folder / "hosts" / name, ignore_errors=True)
            machine.create(seed, prepare)
            self._write_address_book()
        return machine

    def _free_number(self) -> int:
        taken = {machine.number for machine in self.machines()}
        free = [number for number in range(_FIRST_NUMBER, _LAST_NUMBER + 1) if number not in taken]
        if not free:
            raise LabError(f"lab {self.name} is full; destroy a host first")
        return free[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait for the short lock of what hosts share. It is taken with or without `change`, and never before it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "together.lock").open("w") as lock:
            flock(lock, LOCK_EX)
            yield

    @staticmethod
    def each(action: Callable[[Machine], None], machines: Iterable[Machine]) -> None:
        """Do something to several hosts at once."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(action, machines))

    def prepare(self) -> None:
        """Make what a lab has beside hosts: its folder, keys, network and package proxy; what is there is left."""
        with self.together():
            self.folder.chmod(0o700)
            self._make_keys()
            self._make_network()
            self._start_proxy()

    def _make_network(self) -> None:
        complete = self.folder / "netns/complete"
        # The file outlives a reboot of the machine, the namespace does not.
        if complete.exists() and network.exists(self.namespace):
            return
        network.delete(self.namespace)
        network.create_bridge(self.namespace, address=f"{self.gateway}/24")
        complete.touch()

    def _make_keys(self) -> None:
        if self.public_key.exists():
            return
        self.private_key.parent.mkdir(exist_ok=True)
        self.private_key.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(self.private_key)])

    def _start_proxy(self) -> None:
        if self.is_serving("proxy"):
            return
        hosts = sorted(registries.allowed_hosts() | image.mirror_hosts())
        self.service("proxy", "lab.proxy", str(self.namespace), self.gateway, str(PROXY_PORT), *hosts)
        wait_until(self._proxy_answers, what=f"the package proxy (log: {self.proxy_log})", timeout=30)

    def _proxy_answers(self) -> bool | None:
        with network.tcp_socket(self.namespace) as probe:
            return True if probe.connect_ex((self.gateway, PROXY_PORT)) == 0 else None

    def is_serving(self, name: str) -> bool:
        """Say whether one of the lab's own programs runs."""
        return bool(cgroups.processes(f"{self.cgroup}/{name}"))

    def service(self, name: str, module: str, *arguments: str) -> None:
        """Start one of the lab's own programs; `down` ends it."""
        group = f"{self.cgroup}/{name}"
        start(["-c", _JOIN_AND_RUN, group, module, *arguments], output=self.folder / f"{name}.log")

    def within(self, name: str, module: str, *arguments: str, env: Mapping[str, str], timeout: float) -> int:
        """Run a program to its end and return its status; `down` ends it where we did not live to see that.

        Raises:
            subprocess.TimeoutExpired: it was ended after `timeout` seconds.
        """
        argv = [sys.executable, "-c", _JOIN_AND_RUN, f"{self.cgroup}/{name}", module, *arguments]
        done = subprocess.run(argv, cwd=PROJECT, env=env, stdin=subprocess.DEVNULL, timeout=timeout, check=False)
        return done.returncode

    def write_address_book(self) -> None:
        """Write how to reach the hosts, for ssh and for Ansible: strict checking, a way in through the namespace."""
        with self.together():
            self._write_address_book()

    def _write_address_book(self) -> None:
        machines = self.machines()
        files.replace(self.known_hosts, "".join(f"{m.name},{m.address} {m.host_key}\n" for m in machines))
        hosts = "".join(f"Host {m.name}\n  HostName {m.address}\n{_console(m)}" for m in machines)
        options = "".join(f"  {option.replace('=', ' ', 1)}\n" for option in self.ssh_options())
        common = f"Host *\n  User deploy\n  IdentityFile {self.private_key}\n{options}"
        files.replace(self.ssh_config, f"{hosts}{common}")
        files.replace(self.inventory, inventory.render(self))

    def ssh_options(self) -> list[str]:
        """Return what ssh(1) needs as `-o` options beside the address, the user and the key."""
        return [
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.known_hosts}",
            "ConnectTimeout=10",
            "ServerAliveInterval=5",
            f"ProxyCommand=nsenter --net={self.namespace} nc -q 0 %h %p",
        ]

    def down(self) -> None:
        """Remove the lab and everything it started or left, however it ended; a lab that is not there is down."""
        cgroups.kill(self.cgroup)
        self._kill_visitors()
        for machine in self.machines():
            machine.forget()
        mounts.unmount_below(self.folder)
        loops.detach(self.folder)
        loops.wait_for_release(self.folder)
        cgroups.remove(self.cgroup)
        cgroups.remove_if_empty("openclaw-lab")
        image.remove_partial(self.name)
        shutil.rmtree(self.folder, ignore_errors=True)
        for left in (self.folder.parent, *_NSPAWN_FOLDERS):
            with suppress(OSError):  # another lab is there, or nothing is
                left.rmdir()

    def _kill_visitors(self) -> None:
        """End what entered the lab's namespaces from outside: connections that ssh masters still hold."""
        inodes = {point.stat().st_ino for point in mounts.below(self.folder / "netns")}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                visitor = (process / "ns/net").stat().st_ino in inodes
            except OSError:
                continue
            if visitor:
                with suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)


def _console(machine: Machine) -> str:
    """Return a way in to a cloud's server that needs no network of it, as its console would: its own loopback."""
    if not machine.spec.server:
        return ""
    return f"  ProxyCommand nsenter --net={machine.namespace} nc -q 0 127.0.0.1 %p\n"


def _check_host(name: str, base: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        raise LabError(f"host name {name!r}: use small letters, digits and hyphens, a letter first")
    if name in _RESERVED:
        raise LabError(f"host name {name!r}: the lab itself uses it; use another")
    if base not in image.SUITES:
        raise LabError(f"no image {base!r}; there are: {', '.join(image.SUITES)}")


_JOIN_AND_RUN = """
import runpy, sys
from lab import cgroups
cgroups.join(sys.argv[1])
sys.argv[:2] = []
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
