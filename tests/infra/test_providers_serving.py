"""Where the stand-ins talk to, and how they begin and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from lab.providers.kinds import ProviderError, require_loopback
from tests.support.plugins import configure, started

SPAWN = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/v1", "http://127.0.0.9", "http://[::1]:1/v1", "http://localhost"]
)
def test_this_machine_is_taken(url: str) -> None:
    require_loopback("hcloud:endpoint", url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://api.hetzner.cloud/v1",
        "http://localhost.example.org",
        "http://127.0.0.1@example.org",
        "http://10.0.0.1",
    ],
)
def test_every_other_place_is_refused(url: str) -> None:
    with pytest.raises(ProviderError, match=r"hcloud:endpoint: .* talks to this machine only; install the real one"):
        require_loopback("hcloud:endpoint", url)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("hcloud", {"token": "t"}, "hcloud:endpoint: not set"),
        ("hcloud", {"token": "t", "endpoint": "https://api.hetzner.cloud/v1"}, "talks to this machine only"),
        ("hcloud", {"endpoint": "http://127.0.0.1:1/v1"}, "hcloud:token: missing"),
        (
            "hcloud",
            {"token": "t", "endpoint": "http://127.0.0.1:1/v1", "pollInterval": "5"},
            "hcloud:pollInterval: '5'",
        ),
        ("tailscale", {"apiKey": "k"}, "tailscale:baseUrl: not set"),
        ("tailscale", {"apiKey": "k", "baseUrl": "https://api.tailscale.com"}, "talks to this machine only"),
        ("tailscale", {"baseUrl": "http://127.0.0.1:1"}, "tailscale:oauthClientSecret: missing"),
    ],
)
def test_a_provider_that_cannot_begin_says_why(name: str, settings: dict[str, str], message: str) -> None:
    with started("lab.providers", name) as (_, channel), pytest.raises(grpc.RpcError, match=message):
        configure(channel, name, **settings)


@pytest.mark.parametrize("plugin", [("lab.providers", "hcloud"), ("lab.engine.host",)])
def test_a_plugin_ends_at_once_when_the_engine_takes_leave(plugin: tuple[str, ...]) -> None:
    with started(*plugin) as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=2) == 0


def test_a_plugin_ends_when_the_engine_was_killed() -> None:
    argv = [sys.executable, "-c", SPAWN, sys.executable, "-P", "-m", "lab.providers", "tailscale", "127.0.0.1:1"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout
        plugin = int(engine.stdout.readline())
        assert int(engine.stdout.readline())  # its port: it serves
        engine.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{plugin}").exists() and "State:\tZ" not in Path(f"/proc/{plugin}/status").read_text():
        if time.monotonic() > deadline:
            os.kill(plugin, signal.SIGKILL)
            pytest.fail("the plugin goes on without its engine")
        time.sleep(0.1)
