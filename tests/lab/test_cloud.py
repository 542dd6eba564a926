"""Servers of the lab's cloud: made by what their user data says, switched on and off, and gone without a trace."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fcntl import LOCK_EX, flock
from typing import TYPE_CHECKING

import pytest

from lab import cgroups, mounts
from lab.cloud import MachineDriver
from lab.errors import CommandFailedError, LabError
from lab.hetzner_api.driver import ServerSpec
from lab.layer import Seed
from lab.process import wait_until
from tests.support import traces
from tests.support.cloud import BOOT_SECONDS, TestCloud
from tests.support.lab import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.hetzner_api.driver import Operation

BOTH = pytest.mark.parametrize("host", ["debian12", "debian13"])


@pytest.fixture(scope="module")
def cloud() -> Iterator[TestCloud]:
    """Two servers and a plain host of each Debian."""
    cloud = TestCloud("test-cloud")
    cloud.create(cloud.spec("debian12", 101), cloud.spec("debian13", 102, "debian-13"))
    cloud.test_lab.run("create", "plain12", "plain13:debian-13")
    yield cloud
    cloud.down()


@BOTH
def test_user_data_makes_the_server(cloud: TestCloud, host: str) -> None:
    machine = cloud.machine(host)
    assert "status: done" in machine.ssh("cloud-init status --wait", timeout=BOOT_SECONDS)
    assert machine.ssh("systemctl is-system-running; hostname").split() == ["running", host]
    assert machine.ssh("stat -c '%a %U' /etc/told; sudo cat /etc/told /etc/ran") == "640 root\nby the cloud\nroot\n"
    # The address is the lab's to set.
    assert (
        machine.ssh(
            "ls -A /etc/network/interfaces.d /etc/systemd/network /etc/netplan 2> /dev/null | grep -i cloud || true"
        )
        == ""
    )
    assert set(machine.ssh("id -Gn").split()) == {"deploy", "sudo", "video"}
    assert machine.ssh("getent passwd debian || true") == "", "the image's own user"
    assert machine.ssh("sudo cat /var/lib/cloud/data/instance-id").strip() in {"101", "102"}


@BOTH
def test_a_server_can_install_packages(cloud: TestCloud, host: str) -> None:
    """Cloud-init would write a mirror of its own choice into apt's sources, which the lab does not let through."""
    cloud.machine(host).ssh("sudo apt-get update -qq --error-on=any", timeout=BOOT_SECONDS)


@BOTH
def test_its_keys_are_what_the_lab_knows(cloud: TestCloud, host: str) -> None:
    public = cloud.machine(host).ssh("ls /etc/ssh/*.pub; cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub")
    assert public == f"/etc/ssh/ssh_host_ed25519_key.pub\n{cloud.machine(host).host_key}\n"


@pytest.mark.parametrize("host", ["plain12", "plain13"])
def test_a_plain_host_has_no_cloud_init(cloud: TestCloud, host: str) -> None:
    machine = cloud.machine(host)
    assert "disabled" in machine.ssh("cloud-init status || true")
    assert machine.ssh("systemctl is-system-running").strip() == "running"
    assert machine.ssh("systemctl list-units --all --plain --no-legend 'cloud-*' | grep -v not-found || true") == ""
    assert machine.ssh("sudo -n id -u; ls -A /var/lib/cloud 2>&1 | head -1").startswith("0\n")
    with pytest.raises(LabError, match="has no firewall"):
        cloud.driver.filter(host, ())


def test_the_inventory_has_plain_hosts_only(cloud: TestCloud) -> None:
    assert "plain12" in cloud.lab.inventory.read_text()
    assert "debian12" not in cloud.lab.inventory.read_text()


def test_without_user_data_only_root_has_a_way_in(cloud: TestCloud) -> None:
    key = cloud.lab.public_key.read_text().strip()
    cloud.driver.create(ServerSpec(103, "bare", "debian-12", "", (key,)))
    machine = cloud.machine("bare")
    as_root = ["ssh", "-F", str(cloud.lab.ssh_config), "-l", "root", "bare"]

    def ask(command: str) -> str:
        return subprocess.run(
            [*as_root, command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        ).stdout

    try:
        wait_until(
            lambda: True if "status: done" in ask("cloud-init status --wait") else None,
            what="root's way in",
            timeout=BOOT_SECONDS,
            pause=1,
        )
        assert ask("systemctl is-system-running --wait").strip() == "running"
        assert ask("getent passwd deploy || grep -r deploy /etc/sudoers.d") == ""
        with pytest.raises(CommandFailedError, match="Permission denied"):
            machine.ssh("true")
    finally:
        cloud.driver.delete("bare")


@pytest.mark.parametrize(
    ("operations", "farewell"),
    [(("shutdown", "on"), True), (("off", "on"), False), (("reboot",), True), (("reset",), False)],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_power(cloud: TestCloud, operations: tuple[Operation, ...], farewell: bool) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: _check_power(cloud, host, operations, farewell), ("debian12", "debian13")))


def _check_power(cloud: TestCloud, host: str, operations: tuple[Operation, ...], farewell: bool) -> None:
    machine = cloud.machine(host)
    boot = "cat /proc/sys/kernel/random/boot_id"
    leave = "--property=ExecStop='touch /root/farewell' sleep infinity"
    before = machine.ssh(f"sudo rm -f /root/farewell; sudo systemd-run --quiet --unit=farewell {leave}; {boot}")
    for operation in operations:
        cloud.driver.power(host, operation)
        assert machine.is_running is (operation not in {"shutdown", "off"}), host
    machine.wait(BOOT_SECONDS)
    assert machine.ssh(boot) != before, host
    assert ("farewell" in machine.ssh("sudo ls /root")) is farewell, host
    # A later boot is not a first one.
    assert machine.ssh("cloud-init status --wait; sudo ls /var/lib/cloud/instances").split()[-1] in {"101", "102"}


def test_a_reboot_that_is_asked_for_at_once_is_not_lost(cloud: TestCloud) -> None:
    """A signal that comes before systemd listens is."""
    for _ in range(3):
        cloud.driver.power("debian12", "reset")
        cloud.driver.power("debian12", "reboot")
    cloud.machine("debian12").wait(BOOT_SECONDS)


def test_work_that_is_done_is_done(cloud: TestCloud) -> None:
    machine = cloud.machine("debian13")
    before = machine.ssh("cat /proc/sys/kernel/random/boot_id")
    assert cloud.driver.create(cloud.spec("debian13", 102, "debian-13")) == machine.address
    cloud.driver.power("debian13", "on")
    assert machine.ssh("cat /proc/sys/kernel/random/boot_id") == before
    cloud.driver.delete("nobody")
    with pytest.raises(LabError, match="no host 'nobody'"):
        cloud.driver.power("nobody", "on")


def test_servers_are_made_at_once_while_a_command_changes_the_lab(cloud: TestCloud) -> None:
    names = [f"at-once-{number}" for number in range(6)]
    with (cloud.lab.folder / "lock").open("w") as lock, ThreadPoolExecutor() as pool:
        flock(lock, LOCK_EX)  # as Lab.change does, but without letting `down` end us
        seeds = [Seed(200 + number, "") for number in range(6)]
        machines = list(pool.map(lambda name, seed: cloud.lab.add(name, "debian-12", seed=seed), names, seeds))
    known = cloud.lab.known_hosts.read_text()
    assert len({machine.address for machine in cloud.lab.machines()}) == len(cloud.lab.machines())
    assert all(f"{machine.name},{machine.address} {machine.host_key}" in known for machine in machines)
    with ThreadPoolExecutor() as pool:
        list(pool.map(cloud.driver.delete, names))
    assert "at-once" not in cloud.lab.known_hosts.read_text()


def test_a_create_that_was_killed_is_run_again_and_a_server_is_made_anew(cloud: TestCloud) -> None:
    script = (
        "import os, sys; from lab.cloud import MachineDriver; from lab.hetzner_api.driver import ServerSpec\n"
        "from lab.lab import Lab\n"
        "kill = lambda base, upper: os.kill(os.getpid(), 9)\n"
        "MachineDriver(Lab(sys.argv[1]), prepare=kill).create(ServerSpec(104, 'again', 'debian-12', '', ()))"
    )
    cut_short = subprocess.run([sys.executable, "-c", script, cloud.lab.name], cwd=PROJECT, check=False)
    assert cut_short.returncode == -9
    assert (cloud.lab.folder / "hosts/again").exists()
    assert cloud.lab.find("again") is None

    def prepare(base: Path, upper: Path) -> None:
        assert (base / "etc/debian_version").exists()
        (upper / "etc/prepared").write_text("before the boot\n")

    MachineDriver(cloud.lab, prepare=prepare).create(cloud.spec("again", 104))
    machine = cloud.machine("again")
    machine.wait(BOOT_SECONDS)
    assert machine.ssh("cat /etc/prepared") == "before the boot\n"
    # Another server of the name has nothing of this one.
    old = machine.ssh("sudo touch /etc/old; cat /etc/machine-id")
    cloud.create(cloud.spec("again", 105))
    assert machine.ssh("cat /etc/machine-id") != old
    assert machine.ssh("ls /etc/old /etc/prepared 2> /dev/null || true") == ""
    cloud.driver.delete("again")


def test_a_deleted_server_leaves_nothing(cloud: TestCloud, tmp_path_factory: pytest.TempPathFactory) -> None:
    scratch = tmp_path_factory.getbasetemp().parent
    before = traces.named(cloud.lab.name, ignored=scratch)
    cloud.driver.create(cloud.spec("gone", 108))
    cloud.driver.create_volume(1, 1, "ext4")
    cloud.driver.attach(1, "gone")
    cloud.driver.filter("gone", ())
    cloud.driver.delete("gone")
    cloud.driver.delete_volume(1)
    left = traces.named(cloud.lab.name, ignored=scratch) - before
    assert {line for line in left if "/cloud" not in line} == set()
    assert not [point for point in mounts.below(cloud.lab.folder) if "gone" in str(point)]
    assert not cgroups.processes(f"{cloud.lab.cgroup}/gone")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ServerSpec(1, "win", "windows", "", ()), "no image 'windows'"),
        (ServerSpec(1, "a.b", "debian-12", "", ()), r"host name 'a\.b'"),
        (ServerSpec(1, "proxy", "debian-12", "", ()), "the lab itself uses it"),
    ],
)
def test_what_cannot_be_a_host_is_refused(cloud: TestCloud, spec: ServerSpec, message: str) -> None:
    with pytest.raises(LabError, match=message):
        cloud.driver.create(spec)
    assert not (cloud.lab.folder / "hosts" / spec.name).exists()
