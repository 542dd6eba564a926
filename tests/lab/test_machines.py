"""Hosts of the lab behave as servers do."""

from __future__ import annotations

import fcntl
import os
import shlex

import pytest

from lab import cgroups, mounts, network
from lab.errors import CommandFailedError
from lab.process import run, wait_until
from tests.support.lab import TestLab

BOTH = pytest.mark.parametrize("host", ["debian12", "debian13"])


@BOTH
def test_a_real_systemd_started_everything(lab: TestLab, host: str) -> None:
    machine = lab.machine(host)
    assert machine.ssh("cat /proc/1/comm; systemctl is-system-running").split() == ["systemd", "running"]
    assert f'VERSION_ID="{host.removeprefix("debian")}"' in machine.ssh("cat /etc/os-release")


@BOTH
def test_a_reboot_is_orderly_and_keeps_the_disk(lab: TestLab, host: str) -> None:
    machine = lab.machine(host)
    machine.ssh("sudo systemd-run --quiet --unit=farewell --property=ExecStop='touch /root/farewell' sleep infinity")
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = machine.ssh(f"touch kept; {boot}")
    lab.run("reboot", host)
    assert machine.ssh(boot) != before
    machine.ssh("test -e kept && sudo rm /root/farewell")
    assert int(machine.ssh("sudo journalctl --list-boots | grep -c UTC")) >= 2


def test_a_stop_is_orderly_and_a_crash_is_not(lab: TestLab) -> None:
    machine = lab.machine("debian12")
    unit = "sudo systemd-run --quiet --unit=farewell --property=ExecStop='touch /root/farewell' sleep infinity"
    for verb, said_farewell in (("crash", False), ("stop", True)):
        machine.ssh(f"sudo rm -f /root/farewell; {unit}")
        lab.run(verb, "debian12")
        assert not machine.is_running
        lab.run("start", "debian12")
        assert ("farewell" in machine.ssh("sudo ls /root")) is said_farewell


# The last of its children note when it dies. Those before them are many, so that it takes a while to kill all.
_MOURNED = """
import os, signal
ends = os.pipe()
os.mkdir("/root/mourned")
for number in range(1500):
    if os.fork() == 0:
        os.close(ends[1])
        if number < 1400:
            signal.pause()
        os.read(ends[0], 1)
        open(f"/root/mourned/{number}", "w").close()
        os._exit(0)
os.mkdir("/root/ready")
signal.pause()
"""


def test_no_process_of_a_crashed_host_outlives_another(lab: TestLab) -> None:
    machine = lab.machine("debian12")
    machine.ssh(f"sudo systemd-run --quiet --unit=mourned python3 -c {shlex.quote(_MOURNED)}")
    machine.ssh("until sudo test -e /root/ready; do sleep 0.1; done")
    lab.run("crash", "debian12")
    lab.run("start", "debian12")
    assert machine.ssh("sudo ls /root/mourned").split() == []


def test_a_cut_host_cannot_be_reached_until_it_is_healed(lab: TestLab) -> None:
    machine = lab.machine("debian13")
    lab.run("cut", "debian13")
    with pytest.raises(CommandFailedError):
        run(["ssh", "-F", str(lab.lab.ssh_config), "-o", "ConnectTimeout=2", "debian13", "true"])
    lab.run("heal", "debian13")
    machine.wait()


@pytest.mark.parametrize(("direction", "heard"), [("in", False), ("out", True)])
def test_a_cut_in_one_direction_loses_only_that(lab: TestLab, direction: str, heard: bool) -> None:
    listener, sender = lab.machine("debian13"), lab.machine("debian12")
    ear = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 4000)); print(s.recv(9), flush=True)"
    listener.ssh(
        f'sudo systemd-run --quiet --collect --unit=ear-{direction} python3 -c "{ear}";'
        " until ss --no-header --listening --udp --numeric | grep -q :4000; do sleep 0.1; done"
    )
    try:
        # Known before, so that no question for the address is lost in the other direction.
        sender.ssh(f"ping -c 1 -W 20 {listener.address}")
        lab.run("cut", "debian13", "--direction", direction)
        with pytest.raises(CommandFailedError):
            sender.ssh(f"ping -c 1 -W 1 {listener.address}")
        sender.ssh(f"echo heard > /dev/udp/{listener.address}/4000")
    finally:
        lab.run("heal", "debian13")
    sender.ssh(f"ping -c 1 -W 20 {listener.address}")
    log = listener.ssh(f"sudo systemctl stop ear-{direction} 2> /dev/null; sudo journalctl -u ear-{direction} -o cat")
    assert ("heard" in log) is heard


def test_a_host_hangs_until_it_is_resumed(lab: TestLab) -> None:
    machine = lab.machine("debian13")
    lab.run("hang", "debian13")
    with pytest.raises(CommandFailedError):
        run(["ssh", "-F", str(lab.lab.ssh_config), "debian13", "true"], timeout=2)
    lab.run("resume", "debian13")
    machine.ssh("true")


@BOTH
def test_one_process_hangs_alone(lab: TestLab, host: str) -> None:
    machine = lab.machine(host)
    count = "sh -c 'while sleep 0.1; do echo . >> /tmp/count; done'"
    machine.ssh(f"sudo systemd-run --quiet --collect --unit=counter {count}")
    pid = machine.ssh("systemctl show -p MainPID --value counter").strip()
    lines = "sleep 0.3; wc -l < /tmp/count"
    lab.run("hang", host, "--process", pid)
    assert machine.ssh(lines) == machine.ssh(lines)
    lab.run("resume", host)
    hung = machine.ssh(lines)
    wait_until(lambda: machine.ssh(lines) != hung or None, what="the counter to go on", timeout=30)
    machine.ssh("sudo systemctl stop counter")
    assert "has no process 999999" in lab.command("hang", host, "--process", "999999").stderr


def test_a_hung_host_is_taken_down(lab: TestLab) -> None:
    machine = lab.machine("debian12")
    lab.run("hang", "debian12")
    lab.run("crash", "debian12")
    assert not machine.is_running
    lab.run("start", "debian12")


def test_a_restored_host_is_as_it_was(lab: TestLab) -> None:
    machine = lab.machine("debian13")
    machine.ssh("touch kept; sync")
    lab.run("snapshot", "debian13", "before")
    machine.ssh("rm kept; touch new; sudo rm /etc/issue")
    lab.run("restore", "debian13", "before")
    assert machine.ssh("ls").split() == ["kept"]
    assert machine.ssh("ls /etc/issue")
    assert "no snapshot 'other'" in lab.command("restore", "debian13", "other").stderr


def test_a_host_with_another_key_is_refused(lab: TestLab) -> None:
    machine = lab.machine("debian12")
    true_keys = lab.lab.known_hosts.read_text()
    other_key = lab.machine("debian13").host_key
    lab.lab.known_hosts.write_text(f"{machine.name},{machine.address} {other_key}\n")
    try:
        with pytest.raises(CommandFailedError, match="Host key verification failed"):
            machine.ssh("true")
    finally:
        lab.lab.known_hosts.write_text(true_keys)


@BOTH
def test_the_limits_that_units_are_given_are_enforced(lab: TestLab, host: str) -> None:
    machine = lab.machine(host)
    scope = "sudo systemd-run --quiet --wait --pipe --property"
    with pytest.raises(CommandFailedError):
        machine.ssh(f"{scope} MemoryMax=64M --property MemorySwapMax=0 python3 -c 'bytearray(200 << 20)'")
    forks = "for i in $(seq 20); do sleep 5 & done"
    with pytest.raises(CommandFailedError, match=r"(?i)fork"):
        machine.ssh(f"{scope} TasksMax=5 bash -c '{forks}'")
    machine.ssh(f"{scope} MemoryMax=640M --property MemorySwapMax=0 python3 -c 'bytearray(200 << 20)'")
    machine.ssh(f"{scope} Nice=1 ping -c 1 -W 20 {lab.lab.gateway}")
    with pytest.raises(CommandFailedError):
        machine.ssh(f"{scope} IPAddressDeny=any ping -c 1 -W 1 {lab.lab.gateway}")


@BOTH
def test_packages_are_the_only_thing_from_outside(lab: TestLab, host: str) -> None:
    machine = lab.machine(host)
    machine.ssh("sudo apt-get update -qq")
    proxied = f"curl -sS --max-time 5 --proxy {lab.lab.proxy_url} https://example.com"
    with pytest.raises(CommandFailedError, match="403"):
        machine.ssh(proxied)
    with pytest.raises(CommandFailedError, match=r"(?i)resol"):
        machine.ssh("curl -sS --max-time 2 http://example.com")
    assert "denied CONNECT example.com:443" in lab.lab.proxy_log.read_text()


def test_others_read_a_host_that_was_made_under_a_strict_umask(lab: TestLab) -> None:
    before = os.umask(0o077)
    try:
        lab.run("create", "strict")
    finally:
        os.umask(before)
    lab.machine("strict").ssh("sudo -u nobody cat /etc/hostname /etc/apt/apt.conf.d/00lab-proxy")
    lab.run("destroy", "strict")


def test_labs_do_not_meet(lab: TestLab) -> None:
    other = TestLab("test-other")
    other.run("down")
    try:
        other.run("create", "debian12")
        neighbour = other.machine("debian12")
        assert neighbour.address != lab.machine("debian12").address
        with pytest.raises(CommandFailedError):
            lab.machine("debian12").ssh(f"ping -c 1 -W 1 {neighbour.address}")
        assert lab.machine("debian12").ssh(f"ping -c 1 -W 20 {lab.machine('debian13').address}")
    finally:
        other.run("down")
    assert lab.machine("debian12").is_running


def test_two_commands_do_not_change_a_lab_at_once(lab: TestLab) -> None:
    with (lab.lab.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = lab.command("start", "debian12")
    assert refused.returncode == 1
    assert "another command is at work" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("start", "nobody"), "no host 'nobody'; it has: debian12, debian13"),
        (("create", "new:windows"), "no image 'windows'; there are: debian-12, debian-13"),
        (("create", "NEW"), "host name 'NEW'"),
        (("create", "proxy"), "host name 'proxy': the lab itself uses it"),
    ],
)
def test_a_mistake_ends_in_one_clear_line(lab: TestLab, arguments: tuple[str, ...], message: str) -> None:
    refused = lab.command(*arguments)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_socket_stays_in_the_namespace_it_was_opened_in(lab: TestLab) -> None:
    machine = lab.machine("debian12")
    with network.tcp_socket(machine.namespace) as inside:
        inside.settimeout(5)
        inside.connect((machine.address, 22))
        assert inside.recv(4) == b"SSH-"


def test_a_lab_comes_up_again_after_the_machine_was_rebooted() -> None:
    """A reboot of the machine ends the lab's processes and mounts, and keeps its folder."""
    lab = TestLab("test-reboot")
    lab.run("down")
    lab.run("create", "debian12")
    try:
        lab.machine("debian12").ssh("touch kept; sync")
        cgroups.kill(lab.lab.cgroup)
        mounts.unmount_below(lab.lab.folder)
        lab.run("create", "debian12")
        assert lab.machine("debian12").ssh("ls").split() == ["kept"]
    finally:
        lab.run("down")
