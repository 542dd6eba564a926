"""The disk of an agent on a host, by the module alone: what was there moves in, it grows, and it goes without a trace.

A run is cut short at a program that the module calls, by one of that name that kills the module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.lab import PROJECT, TestLab

if TYPE_CHECKING:
    from collections.abc import Iterator

_AGENT = "disk-test"
_FOLDER = "/var/lib/openclaw/volumes"
_FILE = f"{_FOLDER}/{_AGENT}.ext4"
_WORKSPACE = f"/home/{_AGENT}/workspace"
_USER = f"""
loginctl disable-linger {_AGENT} || true; systemctl stop user-$(id -u {_AGENT}).slice || true
userdel -r {_AGENT} || true; useradd -m -s /bin/bash {_AGENT}; loginctl enable-linger {_AGENT}
runuser -u {_AGENT} -- bash -ec 'umask 022; mkdir -m 700 ~/workspace; cd ~/workspace; mkdir -p deep/er empty .hidden
  head -c 3000000 /dev/urandom > deep/er/data; ln deep/er/data hard; ln -s deep/er/data soft; ln -s gone dangling
  echo "#!/bin/sh" > tool; chmod 751 tool; echo > .hidden/x; touch -d 2001-02-03 old; mkfifo pipe; chmod 1730 empty'
echo > {_WORKSPACE}/of-root; chmod 600 {_WORKSPACE}/of-root
"""
# Owner, mode, kind, number of names, size, time, target and content of everything.
_CONTENT = (
    f"cd {_WORKSPACE}; find . -mindepth 1 -printf '%P %u:%g %m %y %n %l' '(' -type f -printf ' %s %T@' -o -true ')'"
    " -printf '\\n' | sort; find . -type f -exec sha256sum {} + | sort"
)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    lab = TestLab("test-volumes")
    lab.run("down")
    lab.run("create", "h1")
    yield Host(lab)
    lab.run("down")


class Host:
    """A host with one agent's user."""

    def __init__(self, lab: TestLab) -> None:
        self._lab = lab

    def root(self, script: str) -> str:
        ssh = ["ssh", "-F", str(self._lab.lab.ssh_config), "h1", "sudo bash -e"]
        return subprocess.run(ssh, input=script, capture_output=True, text=True, check=True).stdout.strip()

    def module(self, **parameters: Any) -> dict[str, Any]:
        argv = [str(Path(sys.executable).parent / "ansible"), "-i", str(self._lab.lab.inventory), "h1", "--become"]
        argv += ["-m", "agent_volumes", "-a", json.dumps({"volumes": [], **parameters})]
        settings = {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_FORCE_COLOR": "0"}
        done = subprocess.run(
            argv, cwd=PROJECT, env={**os.environ, **settings}, capture_output=True, text=True, check=False
        )
        result: dict[str, Any] = json.loads(done.stdout.rpartition("=> ")[2])
        return result

    def disk(self, size: str) -> dict[str, Any]:
        return self.module(volumes=[{"agent": _AGENT, "size": size}])

    def cut_short(self, size: str, *, at: str, after: str = "") -> None:
        """Have the module killed when it calls a program with arguments that begin so."""
        program, _, words = at.partition(" ")
        fake, real = f"/usr/local/sbin/{program}", self.root(f"command -v {program}")
        self.root(
            f"printf '%s\\n' '#!/bin/bash' 'case \"$*\" in \"{words}\"*) {after}' 'kill -KILL $PPID; exit 1;; esac'"
            f" 'exec {real} \"$@\"' > {fake}; chmod +x {fake}"
        )
        try:
            assert "actions" not in self.disk(size), f"it was not killed at {at}"
        finally:
            self.root(f"rm {fake}")

    def size(self) -> int:
        """Return the whole MiB that the file system has, its tables left out."""
        return int(self.root(f"stat -fc '%b * %S / 1048576' {_WORKSPACE} | xargs expr"))


def test_all_of_a_workspace_moves_in_also_by_runs_that_were_cut_short(host: Host) -> None:
    host.root(_USER)
    before = host.root(_CONTENT)
    host.cut_short("64M", at="cp", after=f"/bin/cp -a {_WORKSPACE}/deep {_WORKSPACE}/soft {_FOLDER}/moving")
    host.cut_short("64M", at="umount")
    host.cut_short("64M", at="systemctl daemon-reload")
    host.cut_short("64M", at="systemctl start home", after=f"touch {_WORKSPACE}/late")
    host.root(f"rm {_WORKSPACE}/late")
    assert host.disk("64M")["actions"] == [f"{_AGENT}: mount disk"]
    assert host.root(_CONTENT) == before
    assert host.root(f"findmnt -no FSTYPE {_WORKSPACE}; ls {_FOLDER}") == f"ext4\n{_AGENT}.ext4"
    # Nothing of it stays on the host's own disk, under the new one.
    assert host.root(f"mount --bind /home /mnt; ls -A /mnt/{_AGENT}/workspace; umount /mnt") == ""
    assert host.disk("64M")["changed"] is False


def test_an_agent_that_starts_between_finds_all_its_files(host: Host) -> None:
    """A reboot after half a move, for one."""
    host.module(absent=[_AGENT], remove=True)
    host.root(_USER)
    before = host.root(_CONTENT)
    for at in ("cp", "systemctl daemon-reload"):
        host.cut_short("64M", at=at)
        host.root(f"systemctl daemon-reload; systemctl start user@$(id -u {_AGENT})")
        host.root(f"test ! -e {_WORKSPACE}/lost+found || rmdir {_WORKSPACE}/lost+found")
        assert host.root(_CONTENT) == before, at


def test_a_disk_grows_also_by_a_run_that_was_cut_short(host: Host) -> None:
    """The last MiB is too small for a group of its own, and left out by ext4."""
    host.root(f"id {_AGENT} || {{ {_USER} }}")
    host.disk("64M")
    host.root(f"systemctl start user@$(id -u {_AGENT})")
    before, active = host.root(_CONTENT), f"systemctl is-active user@$(id -u {_AGENT})"
    assert host.disk("80M")["actions"] == [f"{_AGENT}: grow disk"]
    assert host.root(active) == "active"
    small = host.size()
    host.cut_short("641M", at="resize2fs")
    assert host.disk("641M")["changed"] is True
    assert host.size() > small + 500
    assert host.root(_CONTENT) == before
    assert host.disk("641M")["changed"] is False
    assert "A disk is not made smaller; give at least 641M" in host.disk("640M")["msg"]


def test_a_disk_goes_without_a_trace(host: Host) -> None:
    host.root(f"id {_AGENT} || {{ {_USER} }}")
    host.disk("641M")
    assert _FILE in host.root("losetup --all")
    assert host.module(absent=[_AGENT])["changed"] is True
    assert host.root(f"mount | grep {_AGENT} || losetup --all | grep {_FILE} || ls {_FILE}") == _FILE
    host.module(absent=[_AGENT], remove=True)
    assert host.root(f"find /etc/systemd {_FOLDER} | grep -E '{_AGENT}|openclaw-disk' || :") == ""
