"""A program in the place of `tailscale`: its daemon, and the tailnet around it, are one file, a `Host` as JSON.

    python tests/support/fake_tailscale.py FILE WORDS...

It imports nothing but the standard library, since it is started for each question.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DOMAIN = "tail.lab"


@dataclass
class Host:
    """What the daemon knows, and how the tailnet behaves.

    Attributes:
        state: BackendState; "" is a daemon that does not answer.
        starting: So many times more the daemon says that it is starting.
        taken: Names that other devices have; the tailnet gives a host that wants one another name.
        shown: Those of them that the tailnet's policy shows to the host.
        deaf: Whether what is to be served is not taken in, and nothing is said of that.
        refusal: What the control server says instead of letting the host in.
        asked: The words of each call.
    """

    state: str = "Running"
    has_key: bool = True
    starting: int = 0
    prefs: dict[str, Any] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    shown: bool = True
    certificates: bool = False
    served: dict[str, Any] = field(default_factory=dict)
    deaf: bool = False
    refusal: str = ""
    asked: list[list[str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The full name that the tailnet gives this host."""
        wanted: str = self.prefs.get("Hostname", "")
        return f"{wanted}-1.{DOMAIN}" if wanted in self.taken else f"{wanted}.{DOMAIN}"

    def status(self) -> dict[str, Any]:
        """Answer `tailscale status --json`."""
        state, self.starting = "Starting" if self.starting else self.state, max(self.starting - 1, 0)
        running = state == "Running"
        others = self.taken if self.shown else []
        return {
            "BackendState": state,
            "HaveNodeKey": self.has_key,
            "TailscaleIPs": ["fd7a:115c:a1e0::1", "100.64.0.1"] if running else None,
            "Self": {"DNSName": f"{self.name}." if running else ""},
            "CertDomains": [self.name] if self.certificates else None,
            "Peer": {f"nodekey:{name}": {"DNSName": f"{name}.{DOMAIN}."} for name in others},
        }

    def up(self, words: list[str]) -> None:
        """Join with the key in the file that is named, if that is no secret itself."""
        flags = dict(word.removeprefix("--").split("=", 1) for word in words)
        key = Path(flags["auth-key"].removeprefix("file:")).read_text()
        if self.refusal:
            sys.exit(f"{self.refusal} {key}")
        self.state, self.has_key = "Running", True
        self.prefs["Hostname"] = flags["hostname"]

    def set(self, words: list[str]) -> None:
        """Change settings; of those that can be told apart here, the name is one."""
        flags = dict(word.removeprefix("--").split("=", 1) for word in words)
        names = {"hostname": "Hostname", "operator": "OperatorUser"}
        self.prefs |= {names[flag]: value for flag, value in flags.items() if flag in names}

    def serve(self, words: list[str]) -> None:
        """Serve, or no longer."""
        *flags, target = words
        if self.deaf or target == "reset":
            self.served = self.served if self.deaf else {}
            return
        mode, port = flags[-1].removeprefix("--").split("=")
        tcp, web = self.served.setdefault("TCP", {}), self.served.setdefault("Web", {})
        if target == "off":
            del tcp[port]
            web.pop(f"{self.name}:{port}", None)
        elif mode == "tcp":
            tcp[port] = {"TCPForward": target.removeprefix("tcp://")}
        else:
            tcp[port] = {mode.upper(): True}
            web[f"{self.name}:{port}"] = {"Handlers": {"/": {"Proxy": target}}}

    def logout(self) -> None:
        """Leave the tailnet."""
        self.state, self.has_key = "NeedsLogin", False


def _answer(host: Host, words: list[str]) -> None:
    if not host.state:
        sys.exit("failed to connect to local tailscaled; it doesn't appear to be running")
    match words:
        case ["status", "--json"]:
            print(json.dumps(host.status()))
        case ["debug", "prefs"]:
            print(json.dumps(host.prefs))
        case ["serve", "status", "--json"]:
            print(json.dumps(host.served))
        case ["up", *flags]:
            host.up(flags)
        case ["set", *flags]:
            host.set(flags)
        case ["serve", *flags]:
            host.serve(flags)
        case ["logout"]:
            host.logout()
        case _:
            sys.exit(f"unknown: {words}")


def _main() -> None:
    file, words = Path(sys.argv[1]), sys.argv[2:]
    host = Host(**json.loads(file.read_text()))
    host.asked.append(words)
    try:
        _answer(host, words)
    finally:
        file.write_text(json.dumps(asdict(host)))


if __name__ == "__main__":
    _main()
