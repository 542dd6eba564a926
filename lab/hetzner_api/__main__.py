"""Serves the stand-in on loopback: python -m lab.hetzner_api --port PORT --state FILE --token-file FILE."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from lab.cloud import MachineDriver
from lab.errors import LabError
from lab.hetzner_api.app import Api
from lab.hetzner_api.null import NullDriver
from lab.hetzner_api.runner import Runner
from lab.hetzner_api.store import Store
from lab.lab import Lab
from lab.tailnet import Tailnet

if TYPE_CHECKING:
    from lab.hetzner_api.driver import Driver


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.hetzner_api", description="Stands in for Hetzner's cloud.")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; the API is below /v1 there")
    parser.add_argument("--state", type=Path, required=True, help="SQLite file; made if it is missing")
    parser.add_argument("--token-file", type=Path, required=True, help="holds what callers must send")
    parser.add_argument("--seconds", type=float, default=0.2, help="how long an action takes at the least")
    parser.add_argument("--lab", help="the lab whose hosts the servers are; without it there are no machines")
    parser.add_argument("--tailscale", default="", help="without machines: URL of the tailnet that servers join")
    return parser.parse_args()


def _driver(arguments: argparse.Namespace) -> Driver:
    if arguments.lab is None:
        return NullDriver(arguments.tailscale)
    lab = Lab(arguments.lab)
    return MachineDriver(lab, prepare=Tailnet(lab).prepare)


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    arguments = _arguments()
    try:
        driver = _driver(arguments)
        token = arguments.token_file.read_text().strip()
        store = Store(arguments.state)
    except (LabError, OSError) as error:
        print(f"hetzner_api: {error}", file=sys.stderr)
        return 1
    runner = Runner(store, driver, arguments.seconds)
    runner.look()
    try:
        app = Api(store, runner, token).app()
        uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", timeout_graceful_shutdown=5)
    finally:
        runner.stop()
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
