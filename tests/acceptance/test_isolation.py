"""What a job tries and must not get, judged by what happens when it tries.

One job per agent tries everything while another job of the same agent, its neighbour, its runner and its user manager
are there to be reached; each attempt names what must exist for root, else it would fail for want of a target.
"""

from __future__ import annotations

import json
import shlex
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import CGROUP_V2_ONLY
from tests.support.fleet import Submitter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

    from tests.support.fleet import TestFleet

# agent1 is on Debian 12 beside agent2, agent3 on Debian 13 with the person's own account for a neighbour.
PLACES = {"agent1": ("agents-1", "agent2"), "agent3": ("agents-2", "deploy")}
EVERYWHERE = pytest.mark.parametrize("place", PLACES, indirect=True)
_MARK = "written-by-a-job"
_OTHER_SLEEP = "60.125"
# Open to everybody on the host, and no business of a job.
_OPEN = {"served": "/srv/served/index.html", "kept": "/var/lib/a-service/state"}
_CONNECT = "python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('{}')\""
# PTRACE_ATTACH
_TRACE = 'python3 -c "import ctypes; exit(ctypes.CDLL(None).ptrace(16, {}, 0, 0))"'

# io_uring_setup, which has one number everywhere
_RING = 'python3 -c "import ctypes; exit(ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120)) < 0)"'


@dataclass
class Attempt:
    """A command that must not succeed in a job, and what root must find for the attempt to mean anything."""

    command: str
    target: str = "/"


_ATTEMPTS = {
    # What is the runner's or another's.
    "read its agent's token": Attempt("cat {target}", "/etc/openclaw/agents/{agent}/worker-token"),
    "read the runner's copy": Attempt(
        "cat {target}", "/run/user/{uid}/credentials/openclaw-runner.service/worker-token"
    ),
    "read the runner's records": Attempt("cat {target}", "{state}/jobs/{other_job}/claim.json"),
    "read the runner's environment": Attempt("cat {target}", "/proc/{runner}/environ"),
    "read another job's output": Attempt("cat {target}", "{workspace}/.tmp/{other_job}/stdout"),
    "read another job's /tmp": Attempt("cat {target} || cat /tmp/secret", "{workspace}/.tmp/{other_job}/tmp/secret"),
    "change another job's /tmp": Attempt("mv -T {workspace}/.tmp {workspace}/moved$$", "{workspace}/.tmp/{other_job}"),
    "see its agent's home": Attempt("ls {target}", "{home}/.bashrc"),
    "see another user's home": Attempt("ls {target}", "/home/{neighbour}/.bashrc"),
    "see another's workspace": Attempt("ls {target}", "{neighbours_workspace}"),
    "read the disk's own file": Attempt("head -c1 {target}", "/var/lib/openclaw/volumes/{agent}.ext4"),
    "read what the host serves": Attempt("cat {target}", "{served}"),
    "read a service's state": Attempt("cat {target}", "{kept}"),
    "see who lingers": Attempt("ls {target}", "/var/lib/systemd/linger/{agent}"),
    "read the user's journal": Attempt("journalctl -n1 | grep .; ls {target}", "/var/log/journal"),
    # Ways to somebody who would act for it.
    "reach the user bus": Attempt(_CONNECT.format("{target}"), "/run/user/{uid}/bus"),
    "reach the user manager": Attempt(_CONNECT.format("{target}"), "/run/user/{uid}/systemd/private"),
    "reach systemd": Attempt(_CONNECT.format("{target}"), "/run/systemd/private"),
    "reach the system bus": Attempt(_CONNECT.format("{target}"), "/run/dbus/system_bus_socket"),
    "start a unit outside": Attempt("XDG_RUNTIME_DIR=/run/user/{uid} systemd-run --user true", "/run/user/{uid}/bus"),
    # What would run later, or for others.
    "write a user unit": Attempt("mkdir -p {target}/user; touch {target}/user/{mark}.service", "{home}"),
    "write a runtime unit": Attempt("touch {target}/{mark}.service", "/run/user/{uid}/systemd/user"),
    "write a system unit": Attempt("touch {target}/{mark}.service", "/etc/systemd/system"),
    "write an autostart": Attempt("mkdir -p {target}/autostart; touch {target}/autostart/{mark}", "{home}"),
    "write a profile": Attempt("touch {target}", "{home}/.profile"),
    "write an authorized key": Attempt("mkdir {target}/.ssh; touch {target}/.ssh/{mark}", "{home}"),
    "write a program": Attempt("touch {target}/{mark}", "/usr/local/bin"),
    "write a release": Attempt("touch {target}/{mark}", "/opt/openclaw/agents/{agent}/current"),
    # Processes.
    "see other users' processes": Attempt("find /proc -maxdepth 1 -name '[0-9]*' ! -user $(id -u) | grep ."),
    "see another job's processes": Attempt("grep -lz '^{other_sleep}$' /proc/[0-9]*/cmdline", "/proc/{other_pid}"),
    "signal its runner": Attempt("kill -KILL {runner} || kill -STOP {runner}", "/proc/{runner}"),
    "signal its user manager": Attempt("kill -KILL {manager} || kill -STOP {manager}", "/proc/{manager}"),
    "signal another job": Attempt("kill -KILL {other_pid} || kill -STOP {other_pid}", "/proc/{other_pid}"),
    "trace its runner": Attempt(_TRACE.format("{runner}"), "/proc/{runner}"),
    "leave its control group": Attempt(
        "find /sys/fs/cgroup -maxdepth 7 -name cgroup.procs -writable | grep .", "/sys/fs/cgroup"
    ),
    # Rights.
    "become root by sudo": Attempt("sudo -n true", "/usr/bin/sudo"),
    "become root by a number": Attempt("python3 -c 'import os; os.setuid(0)'"),
    "make a user namespace": Attempt("unshare --user true", "/usr/bin/unshare"),
    "make a mount namespace": Attempt("unshare --mount true", "/usr/bin/unshare"),
    "mount a file system": Attempt("mount -t tmpfs tmpfs /tmp", "/usr/bin/mount"),
    "put up walls of its own": Attempt("bwrap --ro-bind / / true", "/usr/bin/bwrap"),
    "make a device": Attempt("mknod device b 7 0", "/dev/loop0"),
    "have the kernel call for it": Attempt(_RING),
    "lower its rank": Attempt("nice -n 0 true && renice -n 0 $$"),
}


class Place:
    """An agent of the fleet, the host it lives on, and a job of it that only waits."""

    def __init__(self, fleet: TestFleet, submitter: Submitter, agent: str) -> None:
        node, self.neighbour = PLACES[agent]
        self.agent = agent
        self.submitter = submitter
        self.host: Host = fleet.host(node)
        self.uid = self.host.user(agent).uid
        self.home = f"/home/{agent}"
        self.workspace = f"{self.home}/workspace"

    def submit(self, command: str, **more: Any) -> str:
        return self.submitter.submit(self.agent, "exec", json.dumps({"command": command, **more}))

    def run(self, command: str, **more: Any) -> dict[str, Any]:
        """Run a job to its end."""
        job = self.submit(command, **more)
        deadline = time.monotonic() + 90
        while (ended := self.submitter.job(job, wait=25))["status"] not in {"done", "failed"}:
            assert time.monotonic() < deadline, ended
        return ended

    def output(self, command: str, **more: Any) -> str:
        """Run a job that must end well, and return what it printed."""
        ended = self.run(command, **more)
        assert ended["status"] == "done", ended["error"]
        return str(json.loads(ended["result"])["stdout"])

    def ping(self, agent: str) -> bool:
        """Whether an agent answers in a few seconds."""
        job = self.submitter.submit(agent, "ping", "there?")
        return bool(self.submitter.job(job, wait=15)["status"] == "done")

    def pid(self, unit: str) -> str:
        """Return the main process of a unit of the agent's manager."""
        return self.root(f"systemctl --user -M {self.agent}@ show -p MainPID --value {unit}")

    def root(self, command: str) -> str:
        return str(self.host.run_expect([0], f"sh -c {shlex.quote(command)}").stdout.strip())

    def identities(self) -> dict[str, str]:
        """Return those who must survive what a job does."""
        return {
            "runner": self.pid("openclaw-runner"),
            "manager": self.root(f"systemctl show -p MainPID --value user@{self.uid}.service"),
        }

    @contextmanager
    def other_job(self) -> Iterator[dict[str, str]]:
        """Have another job wait in its box meanwhile."""
        job = self.submit(f"echo its own > /tmp/secret; echo its output; exec sleep {_OTHER_SLEEP}")
        name = f"job-{job}-e1"
        secret = f"{self.workspace}/.tmp/{name}/tmp/secret"  # noqa: S108 - this is what a job has as its /tmp
        self.root(f"for i in $(seq 100); do test -s {secret} && exit; sleep 0.1; done; exit 1")
        try:
            yield {"other_job": name, "other_pid": self.pid(f"{name}.service")}
        finally:
            self.root(f"systemctl --user -M {self.agent}@ kill -s KILL {name}.service")


@pytest.fixture(scope="module")
def bot(fleet: TestFleet) -> Iterator[Submitter]:
    with fleet.token("bot", "isolation") as token:
        client = Submitter(fleet.url, token)
        yield client
        client.close()


@pytest.fixture(scope="module")
def place(fleet: TestFleet, bot: Submitter, request: pytest.FixtureRequest) -> Place:
    return Place(fleet, bot, request.param)


@pytest.fixture(scope="module")
def outcome(place: Place) -> dict[str, set[str]]:
    """Have one job try everything; return what it got, and what has gone that should have been left alone."""
    before = place.identities()
    for file in _OPEN.values():
        place.root(f"install -D -m 0644 /etc/hostname {file}")
    with place.other_job() as other:
        words = {
            **before,
            **other,
            **_OPEN,
            "agent": place.agent,
            "uid": str(place.uid),
            "home": place.home,
            "workspace": place.workspace,
            "state": f"{place.home}/.local/state/openclaw-runner",
            "neighbour": place.neighbour,
            "neighbours_workspace": f"/home/{place.neighbour}" + ("/workspace" * place.neighbour.startswith("agent")),
            "mark": _MARK,
            "other_sleep": _OTHER_SLEEP,
        }
        targets = {name: attempt.target.format(**words) for name, attempt in _ATTEMPTS.items()}
        commands = {name: attempt.command.format(**words, target=targets[name]) for name, attempt in _ATTEMPTS.items()}
        missing = place.root("; ".join(f"test -e {t} || echo {shlex.quote(n)}" for n, t in targets.items()) + "; :")
        script = "\n".join(
            f"timeout 10 sh -c {shlex.quote(command)} > /dev/null 2>&1 && echo {shlex.quote(name)}"
            for name, command in commands.items()
        )
        got = place.output(f"{script}\ntouch /tmp/{_MARK} /var/tmp/{_MARK}")
        alive = {**before, "another job": other["other_pid"]}
        hurt = {who for who, pid in alive.items() if place.root(f"ps -o stat= -p {pid} || echo gone")[0] not in "SRD"}
        # Everything that it can signal, at last.
        place.run("kill -KILL -1")
        after = {**place.identities(), "another job": place.pid(f"{other['other_job']}.service")}
        hurt |= {who for who, pid in alive.items() if after[who] != pid}
    place.root("rm -r " + " ".join(file.rpartition("/")[0] for file in _OPEN.values()))
    return {"got": set(got.splitlines()), "missing": set(missing.splitlines()), "hurt": hurt}


@EVERYWHERE
@pytest.mark.parametrize("attempt", _ATTEMPTS)
def test_a_job_cannot(outcome: dict[str, set[str]], attempt: str) -> None:
    assert attempt not in outcome["missing"], "there is nothing to reach"
    assert attempt not in outcome["got"]


@EVERYWHERE
def test_whoever_a_job_signals_lives(outcome: dict[str, set[str]]) -> None:
    assert not outcome["hurt"]


@EVERYWHERE
def test_nothing_that_a_job_writes_is_elsewhere(place: Place, outcome: dict[str, set[str]]) -> None:
    assert outcome["got"] is not None
    assert not place.root(f"find / -xdev -path /proc -prune -o -name '{_MARK}*' -print")
    assert place.root(f"find {place.workspace} -name '{_MARK}*'") == ""


@EVERYWHERE
def test_a_job_can_work(place: Place) -> None:
    python = "import socket as s; a = s.create_server(('127.0.0.1', 0)); s.create_connection(a.getsockname()); print(1)"
    broker = "import os, socket; socket.create_connection((os.environ['B'], 8000), 5); print('out')"
    url = place.root(f"sed -n 's/^BROKER_URL=//p' /etc/openclaw/agents/{place.agent}/runner.env")
    address = url.split("/")[2].split(":")[0]
    kept = place.output(
        "echo kept > note; echo x > /tmp/x; cat /tmp/x; echo y > /var/tmp/y; cat /tmp/y; id -un; "
        f'python3 -c "{python}"; B={address} python3 -c "{broker}"; '
        "getent ahostsv4 $(hostname) > /dev/null && echo named; "
        "printf '#!/bin/sh\necho run' > tool && chmod +x tool && ./tool; "
        "mkdir -p a/b && mv note a/b/note && cat a/b/note; head -c 9 /dev/urandom | wc -c; "
        "dpkg-query --show --showformat '${Package}\\n' dpkg"
    )
    assert kept.split() == ["x", "y", place.agent, "1", "out", "named", "run", "kept", "9", "dpkg"]
    assert place.output("cat a/b/note; ls /tmp; rm -r a tool") == "kept\n"
    assert place.run("exit 7")["error"] == "exit code 7"
    assert place.run("kill -SEGV $$")["error"] == "exit code 139 (SIGSEGV)"


@EVERYWHERE
def test_a_job_finds_names(place: Place) -> None:
    """By a server that resolv.conf names through a link into /run, as systemd-resolved leaves it."""
    server = (
        "import socket as s; u = s.socket(s.AF_INET, s.SOCK_DGRAM); u.bind(('127.0.0.53', 53))\n"
        "while True:\n"
        "  q, a = u.recvfrom(512); i = q.index(0, 12) + 5; v4 = q[i-4:i-2] == b'\\0\\1'\n"
        "  r = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x09\\0\\4\\xc0\\0\\2\\7' * v4\n"
        "  u.sendto(q[:2] + b'\\x81\\x80\\0\\1\\0' + bytes([v4]) + b'\\0\\0\\0\\0' + q[12:i] + r, a)\n"
    )
    stub = "/run/systemd/resolve/stub-resolv.conf"
    place.root(
        f"mkdir -p {stub.rpartition('/')[0]} && echo nameserver 127.0.0.53 > {stub} && "
        f"mv /etc/resolv.conf /etc/resolv.kept; ln -s {stub} /etc/resolv.conf; "
        f"systemd-run --quiet --unit=names --collect python3 -c {shlex.quote(server)}"
    )
    try:
        assert place.output("getent ahostsv4 somewhere.example").split()[0] == "192.0.2.7"
    finally:
        place.root("systemctl stop names; rm /etc/resolv.conf; mv /etc/resolv.kept /etc/resolv.conf; :")


_FILL = r"""
for where in . /tmp /var/tmp; do
  head -c 2G /dev/zero > $where/fill 2> /dev/null
done
python3 -c '
n = 0
while True:
    open(f"n{n}", "w").write("x")
    n += 1
' 2> /dev/null
echo why >&2
exit 1
"""
# By fallocate, and by FS_IOC_RESVSP64, which is the same in another system call.
_RESERVE = r"""
import ctypes, fcntl, struct
libc = ctypes.CDLL(None, use_errno=True)
if libc.fallocate(1, 1, ctypes.c_long(0), ctypes.c_long(1 << 40)) == 0:
    exit("fallocate")
try:
    fcntl.ioctl(2, 0x4030582A, struct.pack("hhqqiI16x", 0, 0, 0, 8 << 30, 0, 0))
except OSError as error:
    print(error.strerror, end="")
else:
    exit("reserved")
"""
_HOG = r"""
import os, sys, time, resource
def fork(do):
    if pid := os.fork():
        return pid
    do(); os._exit(0)
children = []
try:
    while len(children) < 3000:
        children.append(fork(lambda: time.sleep(60)))
except OSError:
    print("forked", len(children), flush=True)
for pid in children: os.kill(pid, 9); os.waitpid(pid, 0)
def allocate():
    blocks = [b"x" * (16 << 20) for _ in range(16)]; time.sleep(3)
megabytes = int(sys.argv[1])
children = [fork(allocate) for _ in range(megabytes // 256 + 2)]
print("killed", sum(os.waitpid(pid, 0)[1] == 9 for pid in children), flush=True)
def spin():
    end = time.monotonic() + 3
    while time.monotonic() < end: pass
def used():
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
before = used()
children = [fork(spin) for _ in range(4)]
for pid in children: os.waitpid(pid, 0)
print("spun", (used() - before) / 3, flush=True)
"""

_FORK = """
import os, signal, sys
children = []
try:
    while len(children) < int(sys.argv[1]):
        if not (pid := os.fork()):
            signal.pause()
        children.append(pid)
except OSError:
    pass
for pid in children: os.kill(pid, 9); os.waitpid(pid, 0)
print(len(children))
"""


@EVERYWHERE
def test_a_job_cannot_use_more_than_its_agent_has(place: Place, fleet: TestFleet) -> None:
    """It forks, allocates and spins as much as it can; its runner and its neighbour answer meanwhile."""
    limits = {"agent1": (1024, 512, 1.0), "agent3": (2048, 1024, 2.0)}
    megabytes, tasks, processors = limits[place.agent]
    before = place.identities()
    hog = place.submit(f"python3 -c {shlex.quote(_HOG)} {megabytes}", timeout=60_000)
    answered = [place.ping(place.agent)]
    while place.submitter.job(hog)["status"] in {"queued", "running"}:
        answered += [place.ping(place.agent), place.ping("agent2")]
        time.sleep(0.3)
    ended = place.submitter.job(hog)
    assert ended["status"] == "done", ended["error"]
    said = {line.split()[0]: line.split()[1:] for line in json.loads(ended["result"])["stdout"].splitlines()}
    assert 100 < int(said["forked"][0]) <= tasks - 32
    assert int(said["killed"][0]) >= 1
    assert 0.1 < float(said["spun"][0]) < processors * 1.3
    assert len(answered) > 2
    assert all(answered)
    assert place.identities() == before


_LARGE = "b = b'x' * ({} << 20); open('large', 'w').write('x'); import time; time.sleep(120)"
# Fills the memory with processes that are each small, one after the other, until one of them is killed.
_SMALL_ONES = r"""
import os, sys, time
killed = False
for _ in range(int(sys.argv[1])):
    filled, fill = os.pipe()
    if not os.fork():
        block = b"x" * (32 << 20); os.write(fill, b"x"); time.sleep(300); os._exit(0)
    os.close(fill)
    killed = not os.read(filled, 1) or os.waitpid(-1, os.WNOHANG)[0]
    if killed:
        break
print("killed" if killed else "nobody was killed")
"""


@EVERYWHERE
def test_a_job_is_killed_for_want_of_memory_before_what_is_larger(place: Place) -> None:
    """The kernel takes the largest of those with the same rank; outside of jobs, an agent has its runner."""
    megabytes = {"agent1": 1024, "agent3": 2048}[place.agent]
    large = f"{shlex.quote(_LARGE.format(megabytes // 2))}"
    run = f"systemd-run --user -M {place.agent}@ --quiet --collect --unit=large --working-directory={place.workspace}"
    place.root(f"{run} python3 -c {large}")
    try:
        place.root(f"for i in $(seq 100); do test -s {place.workspace}/large && exit; sleep 0.1; done; exit 1")
        before = place.pid("large")
        ended = place.run(f"python3 -c {shlex.quote(_SMALL_ONES)} {megabytes // 64 + 8}")
        said = json.loads(ended["result"])["stdout"] if ended["result"] else ended["error"]
        assert said in {"killed\n", "killed: out of memory"}
        assert place.pid("large") == before
    finally:
        place.root(f"systemctl --user -M {place.agent}@ stop large; rm -f {place.workspace}/large")


@EVERYWHERE
def test_an_agent_outside_of_a_job_has_its_number_of_processes(place: Place) -> None:
    """A job's own bound is its rlimit; this one holds what came out of a job, too."""
    tasks = {"agent1": 512, "agent3": 1024}[place.agent]
    run = f"systemd-run --user -M {place.agent}@ --quiet --pipe --wait -p LimitNPROC=infinity"
    started = place.host.run(f"{run} python3 -c {shlex.quote(_FORK)} {tasks + 100}")
    assert 0 < int(started.stdout) < tasks, started.stderr


@EVERYWHERE
def test_a_single_job_has_limits_of_its_own(place: Place) -> None:
    if not place.host.file("/sys/fs/cgroup/cgroup.controllers").exists:
        pytest.skip(CGROUP_V2_ONLY)
    # Within what the agent has, above what one job may take: the runner's share is left.
    megabytes = {"agent1": 1024, "agent3": 2048}[place.agent] - 64
    ended = place.run(f"python3 -c 'b = b\"x\" * ({megabytes} << 20)'")
    assert ended["error"] == "killed: out of memory"


@EVERYWHERE
def test_nothing_outlives_its_timeout(place: Place) -> None:
    """A child that left the session, has another parent and ignores SIGTERM."""
    word = f"4{time.time_ns() % 10**8}"
    stubborn = f"setsid sh -c 'trap \"\" TERM; (while :; do sleep {word}; done) &' & sleep {word}"
    job = place.submit(stubborn, timeout=1500)
    place.root(f"for i in $(seq 100); do test $(pgrep -fc '^sleep {word}') -ge 2 && exit; sleep 0.1; done; exit 1")
    while (ended := place.submitter.job(job, wait=25))["status"] == "running":
        continue
    assert ended["error"].startswith("timed out after "), ended
    assert place.host.run(f"pgrep -f '[s]leep {word}'").stdout == ""
    groups = place.root(f"find /sys/fs/cgroup -path '*job-{job}*' -name cgroup.procs -exec cat {{}} +")
    assert not groups


@EVERYWHERE
def test_nothing_outlives_the_end(place: Place) -> None:
    word = f"4{time.time_ns() % 10**8}"
    place.output(f"setsid sh -c 'trap \"\" TERM; (while :; do sleep {word}; done) &'; sleep 0.3")
    assert place.host.run(f"pgrep -f '[s]leep {word}'").stdout == ""


@EVERYWHERE
def test_a_job_that_is_stopped_has_time_to_end(place: Place) -> None:
    started = time.monotonic()
    ended = place.run("trap 'sleep 2; echo cleaned up >&2; exit' TERM; while :; do sleep 0.1; done", timeout=1000)
    assert ended["error"].endswith("cleaned up"), ended
    assert time.monotonic() - started < 8


@EVERYWHERE
def test_a_job_cannot_fill_the_hosts_disk(place: Place) -> None:
    """Only its agent's own disk is full then; the next job starts all the same, and can clean up."""
    free = "df --output=avail -B1M / | tail -1"
    before = int(place.root(free))
    assert place.output(f"python3 -c {shlex.quote(_RESERVE)}") == "No space left on device"
    # A job's output goes when its end is reported; one that starts before that finds a full disk, and /tmp in memory.
    room = f"test $(df --output=avail -B1M {place.workspace} | tail -1) -gt 100"
    place.root(f"for i in $(seq 100); do {room} && exit; sleep 0.1; done; exit 1")
    filled = place.run(_FILL)
    assert place.run("head -c 3G /dev/zero > /dev/shm/fill")["status"] == "failed"
    # Room for a few words is kept.
    assert filled["error"] == "exit code 1: why"
    # The machine's disk is also others'; three times 2 GiB were tried.
    assert before - int(place.root(free)) < 1500
    assert place.ping(place.agent)
    assert place.ping("agent2")
    if place.neighbour.startswith("agent"):
        place.root(f"runuser -u {place.neighbour} -- sh -c 'head -c 10M /dev/zero > ~/workspace/w && rm ~/workspace/w'")
    place.submit("sleep 6")  # takes the last block for its /tmp
    assert "No space left" in place.run("head -c 1M /dev/zero > more")["error"]
    assert place.output("find . -name 'n*' -delete; rm -f fill more why; echo x > y && cat y && rm y") == "x\n"


@EVERYWHERE
def test_output_without_end_is_stopped(place: Place) -> None:
    started = time.monotonic()
    # Not faster than somebody who looks each second can see before the disk is full.
    ended = place.run("trap '' TERM; while :; do head -c 10M /dev/zero; sleep 0.2; done")
    assert ended["error"].startswith("stopped: too much output"), ended
    assert time.monotonic() - started < 8


@EVERYWHERE
def test_a_job_that_locks_its_output_is_reported(place: Place) -> None:
    assert place.output("python3 -c 'import os; os.fchmod(1, 0); os.fchmod(2, 0); print(1)'") == "1\n"


@EVERYWHERE
def test_a_job_that_ends_its_process_group_ends_itself(place: Place) -> None:
    """As a shell's trap does; nobody outside is to think that the host ended it."""
    ended = place.run("trap 'kill 0' EXIT; exit 0")
    assert (ended["error"], ended["attempts"]) == ("exit code 143 (SIGTERM)", 1)


def test_a_runner_without_walls_takes_no_jobs(fleet: TestFleet, bot: Submitter) -> None:
    """Once with a bubblewrap that is gone, once with one that walls nothing in; it goes on by itself when mended."""
    place = Place(fleet, bot, "agent3")
    manager = f"systemctl --user -M {place.agent}@"
    bare = r'#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n'
    breaks = {
        "exit code 127": ":",
        "a job can signal its runner": f"printf '{bare}' > /usr/bin/bwrap; chmod +x /usr/bin/bwrap",
    }
    # A claim that an earlier runner died over before it started the job.
    left = f"{place.home}/.local/state/openclaw-runner/jobs/job-left-e1"
    job = {"id": "left", "payload": "", "lease_epoch": 1, "lease_seconds": 60, "max_deliveries": 1, "command": "exec"}
    claim = shlex.quote(json.dumps({"backend": "systemd", "job": job}))
    leave = f"runuser -u {place.agent} -- sh -c {shlex.quote(f'mkdir -p {left} && echo {claim} > {left}/claim.json')}"
    held = place.submit("touch held; until [ -e go ]; do sleep 0.1; done; echo held")
    place.root(f"for i in $(seq 100); do test -e {place.workspace}/held && exit; sleep 0.1; done; exit 1")
    place.root("mv /usr/bin/bwrap /usr/bin/bwrap.kept")
    try:
        for reason, step in breaks.items():
            place.root(f"{step}; {leave}; {manager} restart openclaw-runner")
            status = f"{manager} show -p StatusText --value openclaw-runner"
            place.root(f"for i in $(seq 150); do {status} | grep -q '{reason}' && exit; sleep 0.1; done; exit 1")
            assert "this host cannot isolate a job" in place.root(status)
        waiting = place.submit("echo started")
        place.root(f"touch {place.workspace}/go")
        assert place.submitter.job(held, wait=15)["status"] == "done"
        assert place.submitter.job(waiting, wait=2)["status"] == "queued"
        place.root(f"test -e {left}")
    finally:
        place.root(f"mv /usr/bin/bwrap.kept /usr/bin/bwrap; rm -f {place.workspace}/go {place.workspace}/held")
    ended = place.submitter.job(waiting, wait=25)
    assert (ended["status"], ended["attempts"]) == ("done", 1), ended["error"]
    place.root(f"for i in $(seq 100); do test -e {left} || exit 0; sleep 0.1; done; exit 1")
