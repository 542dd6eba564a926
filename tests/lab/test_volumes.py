"""The disk of an agent on a host, by the module alone: what was there moves in, it grows, and it goes without a trace.

A run is cut short at a program that the module calls, by one of that name that kills the module.
"""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleet import inventory
from tests.support import programs
from tests.support.lab import TestLab

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
_START = f"systemctl daemon-reload; systemctl start user@$(id -u {_AGENT})"
_ACTIVE = f"systemctl is-active user@$(id -u {_AGENT})"
_UNITS = f"/etc/systemd/system/user@$(id -u {_AGENT}).service.d"
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
        return self._lab.machine("h1").ssh(f"sudo bash -ec {shlex.quote(script)}").strip()

    def anew(self) -> None:
        """Have the agent's user without a disk, as at the beginning."""
        self.module(absent=[_AGENT], remove=True)
        self.root(_USER)

    def module(self, **parameters: Any) -> dict[str, Any]:
        argv = [str(Path(sys.executable).parent / "ansible"), "-i", str(self._lab.lab.inventory), "h1", "--become"]
        argv += ["-m", "agent_volumes", "-a", json.dumps({"volumes": [], **parameters})]
        settings = {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_FORCE_COLOR": "0"}
        done = programs.run(argv, environment={**inventory.environment(), **settings})
        result: dict[str, Any] = json.loads(done.stdout.rpartition("=> ")[2])
        return result

    def disk(self, size: str) -> dict[str, Any]:
        return self.module(volumes=[{"agent": _AGENT, "size": size}])

    @contextmanager
    def program(self, call: str, does: str) -> Iterator[None]:
        """Have a program do something else first, where it is called with arguments that begin so."""
        name, _, words = call.partition(" ")
        fake, real = f"/usr/local/sbin/{name}", self.root(f"command -v {name}")
        self.root(
            f"printf '%s\\n' '#!/bin/bash' 'case \"$*\" in \"{words}\"*) {does};; esac' 'exec {real} \"$@\"' > {fake}"
            f"; chmod +x {fake}"
        )
        try:
            yield
        finally:
            self.root(f"rm {fake}")

    def cut_short(self, size: str, *, at: str, after: str = ":") -> None:
        """Have the module killed when it calls a program."""
        with self.program(at, f"{after}; kill -KILL $PPID; exit 1"):
            assert "actions" not in self.disk(size), f"it was not killed at {at}"

    def beneath(self) -> str:
        """Return what the host's own disk has under the agent's."""
        return self.root(f"mount --bind /home /mnt; ls -A /mnt/{_AGENT}/workspace; umount /mnt")

    def size(self) -> int:
        """Return the whole MiB that the file system has, its tables left out."""
        return int(self.root(f"stat -fc '%b * %S / 1048576' {_WORKSPACE} | xargs expr"))


def test_all_of_a_workspace_moves_in_also_by_runs_that_were_cut_short(host: Host) -> None:
    host.root(_USER)
    host.cut_short("64M", at="cp", after=f"/bin/cp -a {_WORKSPACE}/. {_FOLDER}/moving")
    # What was copied already is elsewhere, gone, or a file now.
    host.root(f"cd {_WORKSPACE}; mv deep/er/data moved; rm soft; rm -r .hidden; touch .hidden")
    before = host.root(_CONTENT)
    for at in ("umount", "systemctl daemon-reload", "systemctl start home"):
        host.cut_short("64M", at=at)
    host.root(f"{_START}; findmnt {_WORKSPACE}")  # as at a boot
    host.cut_short("64M", at="find")
    assert host.disk("64M")["actions"] == [f"{_AGENT}: remove old copy"]
    assert host.root(_CONTENT) == before
    assert host.root(f"findmnt -no FSTYPE {_WORKSPACE}; ls {_FOLDER}") == f"ext4\n{_AGENT}.ext4"
    assert host.beneath() == ""
    assert host.disk("64M")["changed"] is False


def test_an_agent_that_runs_between_loses_nothing(host: Host) -> None:
    """A reboot after half a move, for one; whether it has its disk by then or not."""
    host.anew()
    before = host.root(_CONTENT)

    def between(at: str) -> str:
        host.root(_START)
        assert host.root(_CONTENT) == before, at
        host.root(f"cd {_WORKSPACE}; echo {at} >> log; rm -rf deep; mkdir 'at {at}'")
        after = host.root(_CONTENT)
        host.root(f"systemctl stop user@$(id -u {_AGENT}); umount -q {_WORKSPACE} || :")
        return after

    host.root(f"touch {_UNITS}")
    assert "File exists" in host.disk("64M")["msg"]
    before = between("a disk that no unit mounts")
    host.root(f"rm {_UNITS}")
    for at in ("cp", "umount", "systemctl daemon-reload", "find"):
        host.cut_short("64M", at=at)
        before = between(at)
    host.disk("64M")
    assert host.root(_CONTENT) == before
    assert host.beneath() == ""


def test_a_move_that_was_not_finished_is_not_repeated_for_a_disk_that_is_kept(host: Host) -> None:
    host.anew()
    host.cut_short("64M", at="find")
    host.root(f"echo later > {_WORKSPACE}/log")
    before = host.root(_CONTENT)
    host.module(absent=[_AGENT])
    assert host.root(f"ls -A {_WORKSPACE}; ls {_FOLDER}") == f"{_AGENT}.ext4"
    host.disk("64M")
    assert host.root(_CONTENT) == before


def test_a_copy_that_is_killed_is_a_failure(host: Host) -> None:
    """The kernel does so where memory is short."""
    host.anew()
    before = host.root(_CONTENT)
    with host.program("cp", "kill -KILL $$"):
        assert "'cp -a . " in host.disk("64M")["msg"]
    assert host.root(f"{_CONTENT}; {_ACTIVE}") == f"{before}\nactive"
    host.disk("64M")
    assert host.root(_CONTENT) == before


def test_a_link_leads_root_nowhere(host: Host) -> None:
    host.anew()
    host.root(
        f"mkdir /srv/other; touch /srv/other/file; cd {_WORKSPACE}/..; mv workspace w; ln -s /srv/other workspace"
    )
    assert "must be a directory of the agent's own" in host.disk("64M")["msg"]
    assert host.root(f"ls /srv/other; {_ACTIVE}") == "file\nactive"
    # Also where it comes after the look.
    host.root(f"cd {_WORKSPACE}/..; rm workspace; mv w workspace")
    with host.program("mkfs.ext4", f"cd {_WORKSPACE}/..; mv workspace w; ln -s /srv/other workspace"):
        assert "must be a directory of the agent's own" in host.disk("64M")["msg"]
    assert host.root("ls /srv/other; rm -r /srv/other") == "file"


def test_what_runs_in_an_empty_workspace_is_not_left_under_the_disk(host: Host) -> None:
    host.anew()
    host.root(
        f"find {_WORKSPACE} -mindepth 1 -delete; runuser -u {_AGENT} -- env XDG_RUNTIME_DIR=/run/user/$(id -u {_AGENT})"
        f" systemd-run --quiet --user --working-directory={_WORKSPACE}"
        " sh -c 'while sleep 0.1; do rm -f file; mktemp -up. file.XXX | xargs touch; done'; sleep 1"
    )
    assert host.root(f"ls {_WORKSPACE}")
    host.disk("64M")
    assert host.beneath() == ""


def test_a_disk_grows_also_by_a_run_that_was_cut_short(host: Host) -> None:
    """The last MiB is too small for a group of its own, and left out by ext4."""
    host.root(f"id {_AGENT} || {{ {_USER} }}")
    host.disk("64M")
    host.root(f"systemctl start user@$(id -u {_AGENT})")
    before = host.root(_CONTENT)
    assert host.disk("80M")["actions"] == [f"{_AGENT}: grow disk"]
    assert host.root(_ACTIVE) == "active"
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
