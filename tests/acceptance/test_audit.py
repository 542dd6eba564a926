"""The converged hosts as an outside auditor checks them; docs/security.md says why, by the ids used here."""

from __future__ import annotations

import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support import auditor

if TYPE_CHECKING:
    from tests.support.fleet import TestFleet

NODES = ("broker-1", "agents-1", "agents-2")
# One of each Debian, with an agent on it, for what takes longer than a look.
AGENTS = {"agents-1": "agent1", "agents-2": "agent3"}
BOTH_DEBIANS = pytest.mark.parametrize("node", AGENTS)
NEIGHBOUR = "broker-1"
PLACES = "/etc/openclaw /opt/openclaw /usr/local /etc/systemd /etc/ssh /etc/sudoers.d /etc/apt /etc/sysctl.d"


def _sshd(*settings: str) -> str:
    return f"sshd -T | grep -xE '({'|'.join(setting.split()[0] for setting in settings)}) .*' | sort"


def _lines(*lines: str) -> str:
    return "\n".join(sorted(lines))


_KEYS_ONLY = (
    "passwordauthentication no",
    "kbdinteractiveauthentication no",
    "permitemptypasswords no",
    "hostbasedauthentication no",
    "gssapiauthentication no",
    "ignorerhosts yes",
    "pubkeyauthentication yes",
)
_BOUNDS = (
    "maxauthtries 4",
    "maxsessions 10",
    "maxstartups 10:30:60",
    "logingracetime 30",
    "clientaliveinterval 60",
    "clientalivecountmax 3",
)
_FORWARDING = (
    "allowtcpforwarding local",
    "allowstreamlocalforwarding no",
    "allowagentforwarding no",
    "x11forwarding no",
    "permittunnel no",
    "gatewayports no",
)
_ENVIRONMENT = ("permituserenvironment no", "permituserrc no", "strictmodes yes", "usepam yes")

# What to run on a node as root, and what it must print. Where it lists what is wrong, that is nothing.
CHECKS: dict[str, tuple[str, str]] = {
    "ssh-root": (_sshd("permitrootlogin no"), "permitrootlogin no"),
    "ssh-keys-only": (_sshd(*_KEYS_ONLY), _lines(*_KEYS_ONLY)),
    "ssh-agents": (_sshd("denygroups openclaw-agents"), "denygroups openclaw-agents"),
    "ssh-bounds": (_sshd(*_BOUNDS), _lines(*_BOUNDS)),
    "ssh-forwarding": (_sshd(*_FORWARDING), _lines(*_FORWARDING)),
    "ssh-environment": (_sshd(*_ENVIRONMENT), _lines(*_ENVIRONMENT)),
    "ssh-log": (_sshd("loglevel VERBOSE"), "loglevel VERBOSE"),
    "ssh-crypto": (
        "sshd -T | grep -E '^(kexalgorithms|ciphers|macs|hostkeyalgorithms|pubkeyacceptedalgorithms) '"
        " | tr ' ,' '\\n\\n'"
        " | grep -E 'sha1|md5|cbc|3des|rc4|umac-64|ssh-rsa$|ssh-dss|group1-|group14|-exchange-|ecdh|hmac-sha2-[0-9]*$'",
        "",
    ),
    "ssh-files": (
        "find /etc/ssh -type f ! -name '*.pub' ! -name moduli ! -name ssh_config ! -path /etc/ssh/sshd_config"
        " ! -path '*/ssh_config.d/*' ! -name '10-lab-*' -perm /077; find /etc/ssh ! -user root",
        "",
    ),
    "net-policy": (
        "nft list table inet openclaw | grep -oE '(input|forward) priority filter; policy [a-z]+' | sort",
        "forward priority filter; policy drop\ninput priority filter; policy drop",
    ),
    "net-boot": ("systemctl is-enabled openclaw-firewall; systemctl is-active openclaw-firewall", "enabled\nactive"),
    "net-kernel": (auditor.sysctls("net."), "10 settings"),
    "kernel": (auditor.sysctls("kernel.", "fs."), "11 settings"),
    "kernel-userns": (
        "sysctl -n user.max_user_namespaces | grep -x 0; grep -rhE 'userns|max_user_namespaces' /etc/sysctl.d",
        "",
    ),
    "core-dumps": (
        "ulimit -Hc; systemd-run --quiet --pipe --wait bash -c 'ulimit -Hc'; cat /proc/$(pgrep -o sshd)/limits"
        " | grep -c 'core file size *0 *0 '",
        "0\n0\n1",
    ),
    "log-kept": (
        "journalctl --header --system | grep -c '^File path: /var/log/journal/';"
        " systemd-analyze cat-config systemd/journald.conf"
        " | grep -E '^(Storage|Compress|SystemMaxUse|MaxRetentionSec|RateLimit)' | tail -6",
        "1\nStorage=persistent\nCompress=yes\nRateLimitIntervalSec=30s\nRateLimitBurst=1000"
        "\nSystemMaxUse=500M\nMaxRetentionSec=1month",
    ),
    "log-readers": ("find /var/log/journal -type f -perm /007", ""),
    "sudo-pty": ("sudo -l -U deploy | grep -oE '!?use_pty' | uniq", "use_pty"),
    "sudo-agents": (
        "for agent in $(getent group openclaw-agents | cut -d: -f4 | tr , ' '); do"
        " sudo -l -U $agent | grep -v 'not allowed to run sudo'; done",
        "",
    ),
    "accounts": (
        "awk -F: '$3 == 0 && $1 != \"root\"' /etc/passwd; awk -F: '$2 == \"\"' /etc/shadow;"
        " awk -F: '$2 !~ /^[!*]/ {print $1}' /etc/shadow",
        "",
    ),
    "files-writable": (f"find {PLACES} /var/lib/openclaw* ! -type l -perm /022", ""),
    "files-agents": (
        "for agent in nobody $(getent group openclaw-agents | cut -d: -f4 | tr , ' '); do"
        f" setpriv --reuid=$agent --clear-groups find {PLACES} ! -type l -writable 2> /dev/null; done",
        "",
    ),
    "files-setuid": (auditor.UNKNOWN_SETUID, ""),
    "updates-config": (
        "apt-config dump | grep -E '^(APT::Periodic::(Update-Package-Lists|Unattended-Upgrade)"
        "|Unattended-Upgrade::(Allowed-Origins|Origins-Pattern|Automatic-Reboot|SyslogEnable))' | sort",
        _lines(
            'APT::Periodic::Unattended-Upgrade "1";',
            'APT::Periodic::Update-Package-Lists "1";',
            'Unattended-Upgrade::Automatic-Reboot "false";',
            'Unattended-Upgrade::Origins-Pattern "";',
            'Unattended-Upgrade::Origins-Pattern:: "origin=Debian,codename=${distro_codename}-security,'
            'label=Debian-Security";',
            'Unattended-Upgrade::SyslogEnable "true";',
        ),
    ),
    "updates-signed": (
        "apt-config dump | grep -E '(AllowUnauthenticated|AllowInsecureRepositories) \"(1|true)'; "
        "grep -rlE 'trusted=yes|Trusted: yes' /etc/apt",
        "",
    ),
    "time": ("dpkg-query --show --showformat '${db:Status-Status}' systemd-timesyncd", "installed"),
    "units": ("systemctl list-units --state=failed --plain --no-legend", ""),
}


@pytest.fixture(scope="module")
def seen(fleet: TestFleet) -> dict[str, dict[str, str]]:
    """What every check prints, by node."""
    commands = json.dumps({name: command for name, (command, _) in CHECKS.items()})
    batch = f"python3 -c {shlex.quote(auditor.BATCH)} {shlex.quote(commands)}"

    def look(node: str) -> dict[str, str]:
        printed: dict[str, str] = json.loads(fleet.host(node).run_expect([0], batch).stdout)
        return printed

    with ThreadPoolExecutor() as pool:
        return dict(zip(NODES, pool.map(look, NODES), strict=True))


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("check", CHECKS)
def test_check(seen: dict[str, dict[str, str]], node: str, check: str) -> None:
    assert seen[node][check] == CHECKS[check][1]


@pytest.mark.tailnet
@pytest.mark.parametrize("node", NODES)
def test_net_listeners(fleet: TestFleet, node: str) -> None:
    host = fleet.host(node)
    address = host.run_expect([0], "tailscale ip -4").stdout.strip()
    broker = {"127.0.0.1:8000", f"{address}:8000"} if node == "broker-1" else set()
    sockets = host.run_expect([0], "ss -Hltunp | grep -v '\"tailscaled\"'").stdout.splitlines()
    assert {line.split()[4] for line in sockets} == {"0.0.0.0:22", "[::]:22"} | broker


@pytest.fixture(scope="module")
def stranger(fleet: TestFleet) -> auditor.Stranger:
    return auditor.Stranger(fleet)


@BOTH_DEBIANS
def test_ssh_refusals(stranger: auditor.Stranger, node: str) -> None:
    """The same key and the same way in, and one thing different each time."""
    with stranger.key_of("root", node), stranger.key_of(AGENTS[node], node):
        said = {
            what: stranger.log_in(node, AGENTS[node] if user == "AGENT" else user, *options)
            for what, (user, *options) in auditor.LOGINS.items()
        }
    assert said.pop("an administrator with a key") == ""
    assert {what: line for what, line in said.items() if auditor.REFUSALS[what] not in line} == {}


@pytest.mark.tailnet
@BOTH_DEBIANS
def test_net_drop(fleet: TestFleet, stranger: auditor.Stranger, node: str) -> None:
    """A neighbour reaches nothing that was not declared; it is the firewall that drops, and its unit brings it back."""
    host = fleet.host(node)
    with stranger.alone(node, NEIGHBOUR), stranger.listener(node):
        assert stranger.reached(NEIGHBOUR, node) == []
        host.run_expect([0], "nft delete table inet openclaw")
        assert stranger.reached(NEIGHBOUR, node) == ["tcp4", "tcp6", "udp4", "udp6"]
        host.run_expect([0], "systemctl restart openclaw-firewall")
        assert stranger.reached(NEIGHBOUR, node) == []


@BOTH_DEBIANS
def test_net_metadata(fleet: TestFleet, node: str) -> None:
    """An agent gets through to the name server only and is turned away elsewhere, at once; root is not."""
    host = fleet.host(node)

    def seen_by(user: str) -> list[str]:
        ask = f"setpriv --reuid={user} --clear-groups {auditor.python(auditor.ASK_PROVIDER)}"
        return str(host.run_expect([0], ask).stdout).splitlines()

    def everywhere(*ports: str) -> list[str]:
        return [f"{address} {port}" for address in auditor.METADATA for port in ports]

    with auditor.provider(host):
        assert seen_by("root") == everywhere("53 open", "80 open")
        assert seen_by(AGENTS[node]) == everywhere("53 open", "80 Connection refused")
        host.run_expect([0], "nft delete table inet openclaw")
        assert seen_by(AGENTS[node]) == everywhere("53 open", "80 open")
        host.run_expect([0], "systemctl restart openclaw-firewall")


@pytest.mark.tailnet
@BOTH_DEBIANS
def test_net_loopback(fleet: TestFleet, stranger: auditor.Stranger, node: str) -> None:
    """A packet from a neighbour that says it is from 127.0.0.1 is dropped, even where the kernel lets it in."""
    host, honest = fleet.host(node), f"from {fleet.lab.machine(NEIGHBOUR).address}"
    with stranger.alone(node, NEIGHBOUR), stranger.gullible_kernel(node), stranger.listener(node):
        host.run_expect([0], f"nft add rule inet openclaw input udp dport {auditor.PORT} accept")
        assert stranger.spoof(NEIGHBOUR, node) == [honest]
        host.run_expect([0], "nft delete table inet openclaw")
        assert stranger.spoof(NEIGHBOUR, node) == [honest, "from 127.0.0.1", honest]
        host.run_expect([0], "systemctl restart openclaw-firewall")


@pytest.mark.tailnet
@BOTH_DEBIANS
def test_net_ping(fleet: TestFleet, stranger: auditor.Stranger, node: str) -> None:
    """A ping is answered, a flood is not."""
    address = fleet.lab.machine(node).address
    with stranger.alone(node, NEIGHBOUR):
        flood = fleet.host(NEIGHBOUR).run(f"ping -q -c 200 -i 0.002 -W 1 {address}").stdout
    answered = int(flood.partition(" received")[0].rpartition(" ")[2])
    assert 0 < answered < 100


@pytest.mark.tailnet
@BOTH_DEBIANS
def test_net_forward(fleet: TestFleet, stranger: auditor.Stranger, node: str) -> None:
    """A node whose kernel would pass packets on passes none."""
    host, neighbour = fleet.host(node), fleet.host(NEIGHBOUR)
    host.run_expect([0], auditor.INNER_NETWORK)
    neighbour.run_expect([0], f"ip route add 198.51.100.0/24 via {fleet.lab.machine(node).address}")
    try:
        with stranger.alone(node, NEIGHBOUR):
            assert neighbour.run("ping -q -c 1 -W 1 198.51.100.2").rc == 1
            host.run_expect([0], "nft delete table inet openclaw")
            assert neighbour.run("ping -q -c 1 -W 1 198.51.100.2").rc == 0
    finally:
        neighbour.run_expect([0], "ip route delete 198.51.100.0/24")
        host.run_expect([0], "sysctl -q net.ipv4.ip_forward=0; ip link delete audit0; kill $(cat /run/audit-net.pid)")
        # The kernel forgets its other settings when forwarding is switched.
        host.run_expect([0], "systemctl restart openclaw-firewall systemd-sysctl")


@BOTH_DEBIANS
def test_log_rate(fleet: TestFleet, node: str) -> None:
    """A service that floods the journal is cut off."""
    host = fleet.host(node)
    host.run_expect([0], "systemd-run --quiet --wait --unit=audit-flood seq 50000")
    assert int(host.run_expect([0], "journalctl -o cat -u audit-flood | grep -cx '[0-9]*'").stdout) < 25000


@pytest.mark.tailnet
def test_log_trail(fleet: TestFleet, stranger: auditor.Stranger) -> None:
    """Who came in with which key, and what they did as root, can be read after a reboot; and the firewall is up."""
    for node in AGENTS:
        assert stranger.log_in(node, "deploy", command="sudo true audit-trail") == ""
    fleet.lab.run("reboot", *AGENTS)
    for node in AGENTS:
        trail = fleet.host(node).run_expect([0], "journalctl --boot=-1 --output=cat").stdout
        assert f"Accepted publickey for deploy from {stranger.address} " in trail
        assert "COMMAND=/usr/bin/true audit-trail" in trail
        with stranger.alone(node, NEIGHBOUR), stranger.listener(node):
            assert stranger.reached(NEIGHBOUR, node) == []
