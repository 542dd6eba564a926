"""One host of a lab: a Debian with a real systemd as PID 1, in systemd-nspawn over an overlay of a base image."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cgroups, files, firewall, image, layer, mounts, network
from lab.errors import CommandFailedError, LabError
from lab.process import run, start, wait_until
from lab.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.lab import Lab
    from lab.layer import Seed

_READY_SECONDS = 60.0
_STOP_SECONDS = 100.0


class Direction(StrEnum):
    """Which packets of a host are lost."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


@dataclass(frozen=True)
class Spec:
    """What a host is: its name, its image, its Ansible group, and its number on the lab's bridge (11 to 250).

    `server` is the number of the cloud's server that it is, 0 where it is none.
    """

    name: str
    image: str
    group: str
    number: int
    server: int = 0


class Machine:
    """A host by its spec; everything else follows from the lab's folder."""

    def __init__(self, lab: Lab, spec: Spec) -> None:
        self.lab = lab
        self.spec = spec
        self.name = spec.name
        self.number = spec.number
        self.address = f"{lab.prefix}.{spec.number}"
        self.mac = "02:fb:" + ":".join(f"{int(octet):02x}" for octet in self.address.split("."))
        self.nspawn_name = f"{lab.name}-{spec.name}"
        self.cgroup = f"{lab.cgroup}/{spec.name}"
        self.namespace = lab.folder / "netns" / spec.name
        self._firewall = lab.folder / "netns" / f"{spec.name}.firewall"
        self._folder = lab.folder / "hosts" / spec.name
        self._spec_file = self._folder / "spec.json"
        self._rules_file = self._folder / "firewall.json"
        self.disks = self._folder / "by-id"
        self.root = self._folder / "root"
        self.console = self._folder / "console.log"
        self.pid_file = self._folder / "supervisor.pid"

    @classmethod
    def load(cls, lab: Lab, name: str) -> Machine:
        """Return a host that was created before.

        Raises:
            LabError: the lab has no such host.
        """
        try:
            return cls(lab, Spec(**json.loads((lab.folder / "hosts" / name / "spec.json").read_text())))
        except FileNotFoundError:
            hosts = ", ".join(machine.name for machine in lab.machines()) or "none"
            raise LabError(f"lab {lab.name} has no host {name!r}; it has: {hosts}") from None

    def create(self, seed: Seed | None = None, prepare: Callable[[Path, Path], None] | None = None) -> None:
        """Lay down the host's own layer, to which `prepare` may add, given the image and the layer."""
        base = image.ensure(self.spec.image, builder=self.lab.name)
        upper = self._folder / "upper"
        layer.lay(upper, name=self.name, address=self.address, proxy=self.lab.proxy_url)
        if seed:
            layer.sow(upper, seed, name=self.name)
        else:
            layer.authorize(upper, base=base, public_key=self.lab.public_key)
        if prepare:
            prepare(base, upper)
        # Written last: a host without it was not created.
        files.replace(self._spec_file, json.dumps(asdict(self.spec)))

    @property
    def host_key(self) -> str:
        """The host's public key as known_hosts(5) wants it."""
        return " ".join((self._folder / "upper" / f"{layer.HOST_KEY}.pub").read_text().split()[:2])

    @property
    def is_running(self) -> bool:
        """Whether any process of the host lives."""
        return bool(cgroups.processes(self.cgroup))

    def start(self) -> None:
        """Boot the host; `wait` tells when it is ready."""
        if self.is_running:
            return
        if not mounts.below(self.root):
            base = image.ensure(self.spec.image, builder=self.lab.name)
            mounts.overlay(self.root, lower=base, upper=self._folder / "upper", work=self._folder / "work")
        self.forget()
        self.disks.mkdir(exist_ok=True)
        Volumes(self.lab).reattach(self)
        start(["-m", "lab.supervisor", self.lab.name, self.name], output=self.console)
        # Until then, a crash would kill nothing and the host boot after it.
        wait_until(lambda: self.is_running or None, what=f"host {self.name}", timeout=_READY_SECONDS)

    def connect(self) -> None:
        """Give the host a new network for its next boot, behind its firewall where it is a cloud's server."""
        network.delete(self.namespace)
        own = {"mac": self.mac, "address": f"{self.address}/24", "gateway": self.lab.gateway}
        if not self.spec.server:
            network.plug(self.lab.namespace, self.namespace, port=self._port, **own)
            return
        with self._firewall_lock():
            script = firewall.script(self.address, self.rules)
            firewall.insert(self.lab.namespace, self._firewall, port=self._port, script=script)
        firewall.plug(self._firewall, self.namespace, **own)

    @property
    def rules(self) -> firewall.Rules:
        """What the host's firewall lets through; None where everything passes."""
        return firewall.load(self._rules_file)

    def filter(self, rules: firewall.Rules) -> None:
        """Have the host's firewall let through what these rules say, now and after each boot; None lets all through.

        Raises:
            LabError: the host is no cloud's server, which has none; or a rule is malformed.
        """
        if not self.spec.server:
            raise LabError(f"host {self.name} is no server of the cloud, and has no firewall")
        script = firewall.script(self.address, rules)
        with self._firewall_lock():
            firewall.keep(self._rules_file, rules)
            if network.exists(self._firewall):
                network.nft(self._firewall, script)

    @contextmanager
    def _firewall_lock(self) -> Iterator[None]:
        """Keep rules that change while the host boots from being lost between the file and the kernel."""
        with (self._folder / "firewall.lock").open("w") as lock:
            flock(lock, LOCK_EX)
            yield

    def wait(self, timeout: float = _READY_SECONDS) -> None:
        """Return when somebody can log in and systemd has started everything.

        Raises:
            NotReadyError: with the console's last lines, after `timeout` seconds.
        """
        wait_until(self._ready, what=f"host {self.name} (console: {self.console})", timeout=timeout)

    def _ready(self) -> bool | None:
        try:
            self.ssh("systemctl is-system-running --wait || true", timeout=_READY_SECONDS)
        except CommandFailedError:
            return None
        return True

    def ssh(self, command: str, *, timeout: float = 60) -> str:
        """Run a shell command on the host as the person's account and return what it printed."""
        return run(["ssh", "-F", str(self.lab.ssh_config), self.name, command], timeout=timeout)

    def stop(self) -> None:
        """Power the host off in good order, as pressing its button does."""
        supervisor = int(self.pid_file.read_text()) if self.pid_file.exists() else 0
        if supervisor not in cgroups.processes(self.cgroup):
            return self.crash()
        os.kill(supervisor, signal.SIGTERM)
        wait_until(lambda: None if self.is_running else True, what=f"{self.name} to power off", timeout=_STOP_SECONDS)
        return None

    def crash(self) -> None:
        """Kill every process of the host at once, as pulling its plug does.

        They are stopped before: one that outlived another by a moment could still write down how that ended.
        """
        with suppress(FileNotFoundError):  # it does not run
            cgroups.freeze(self.cgroup)
        cgroups.kill(self.cgroup)
        cgroups.thaw(self.cgroup)

    def reboot(self) -> None:
        """Have the host reboot in good order, and return when the new boot is ready."""
        self.restart()
        self.wait()

    def restart(self) -> None:
        """Have the host reboot in good order, as Ctrl+Alt+Del does, and return when the new boot begins.

        Raises:
            NotReadyError: it did not for 100 s.
        """
        before = self._boot()

        def has_begun() -> bool | None:
            if self._boot() != before:
                return True
            self._ask_to_reboot()
            return None

        wait_until(has_begun, what=f"{self.name} to reboot", timeout=_STOP_SECONDS, pause=0.3)

    def _ask_to_reboot(self) -> None:
        """Tell systemd by its signal (systemd(1)). One that comes before systemd listens is lost."""
        with suppress(LabError, ProcessLookupError):  # it has not begun, or is at its end
            os.kill(self.process(1), signal.SIGRTMIN + 5)

    def _boot(self) -> int:
        """Return what tells this boot from others: each has a network namespace of its own, 0 while there is none."""
        try:
            return network.identity(self.namespace)
        except FileNotFoundError:
            return 0

    def cut(self, direction: Direction = Direction.BOTH) -> None:
        """Pull the network cable, or lose all that comes in to the host or goes out of it."""
        if direction is Direction.BOTH:
            network.ip(self.lab.namespace, f"link set {self._port} down")
        else:
            # What goes into the host comes out of the lab.
            network.block(self.lab.namespace, self._port, "egress" if direction is Direction.IN else "ingress")

    def heal(self) -> None:
        """Put the network cable back, and lose nothing any more."""
        network.unblock(self.lab.namespace, self._port)
        if self.is_running:  # one that is off has no cable; it gets a new one
            network.ip(self.lab.namespace, f"link set {self._port} up")

    @property
    def _port(self) -> str:
        return f"v{self.number}"

    def process(self, pid: int) -> int:
        """Return the machine's id of the process that has this id on the host.

        Raises:
            LabError: there is none.
        """
        for outside in cgroups.processes(self.cgroup):
            with suppress(OSError):  # it ended meanwhile
                status = Path(f"/proc/{outside}/status").read_text()
                ids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[2:]
                if ids[:1] == [str(pid)]:
                    return outside
        raise LabError(f"host {self.name} has no process {pid}")

    def hang(self, pid: int | None = None) -> None:
        """Stop every process of the host, or one by its id there, as if time stood still for it."""
        if pid is None:
            cgroups.freeze(self.cgroup)
        else:
            cgroups.freeze(cgroups.alone(self.cgroup, self.process(pid)))

    def resume(self) -> None:
        """Let all go on that hangs."""
        cgroups.thaw(self.cgroup)

    def snapshot(self, name: str) -> None:
        """Keep a copy of the host's layer; of a running host it is what a crash would leave."""
        target = self._snapshot(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(self._folder / "upper", target)

    def restore(self, name: str) -> None:
        """Put a kept copy back; a host that runs is killed first and booted after, and ready on return.

        Raises:
            LabError: there is no snapshot of that name.
        """
        source = self._snapshot(name)
        if not source.is_dir():
            raise LabError(f"host {self.name} has no snapshot {name!r}")
        was_running = self.is_running
        self.crash()
        mounts.unmount_below(self.root)
        shutil.rmtree(self._folder / "work", ignore_errors=True)
        _replace(source, self._folder / "upper")
        if was_running:
            self.start()
            self.wait()

    def _snapshot(self, name: str) -> Path:
        return self.lab.folder / "snapshots" / self.name / name

    def forget(self) -> None:
        """Remove what systemd-nspawn keeps of a host outside of the lab's folder."""
        for kind in ("propagate", "unix-export"):
            kept = Path("/run/systemd/nspawn") / kind / self.nspawn_name
            mounts.unmount_below(kept)
            shutil.rmtree(kept, ignore_errors=True)

    def destroy(self) -> None:
        """Remove the host and all it had, its snapshots too; volumes stay."""
        self.crash()
        self.forget()
        mounts.unmount_below(self.root)
        network.delete(self.namespace)
        network.delete(self._firewall)
        cgroups.remove(self.cgroup)
        Volumes(self.lab).detach_all(self)
        with self.lab.together():  # who reads all hosts shall not have one go under its eyes
            self._spec_file.unlink(missing_ok=True)  # last of what `down` and another try go by
        shutil.rmtree(self._folder)
        shutil.rmtree(self.lab.folder / "snapshots" / self.name, ignore_errors=True)


def _replace(source: Path, target: Path) -> None:
    """Put a whole copy of a layer in another's place; a copy that was cut short is never taken for one."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    # cp, unlike shutil, keeps the overlay's whiteouts (device nodes) and extended attributes.
    run(["cp", "-a", "--reflink=auto", str(source), str(partial)], timeout=600)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
