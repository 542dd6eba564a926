"""The broker's command line: serve · token mint, list, revoke · check."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import syslog
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from broker_app import __version__
from broker_app.agents import NAME_PATTERN, Role, mint, revoke, tokens
from broker_app.audit import Audit
from broker_app.errors import BrokerError, DatabaseError
from broker_app.schema import connect, verify
from broker_app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    _Run = Callable[[Settings, argparse.Namespace], None]
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    # The database holds every payload and result: nobody else shall read it.
    os.umask(0o077)
    try:
        options.run(Settings.from_environment(os.environ), options)
    except BrokerError as error:
        sys.stderr.write(f"openclaw-broker: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="openclaw-broker", description="One durable job queue behind HTTP. Settings come from the environment."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "serve", _serve, "serve the queue until SIGTERM")
    _command(commands, "check", _check, "check the settings and read the whole database, and print the version")
    token = commands.add_parser("token", help="mint, list or revoke tokens")
    actions = token.add_subparsers(required=True, metavar="ACTION")
    minting = _command(actions, "mint", _mint, "make a token for a name and print it")
    minting.add_argument("name", type=_name)
    minting.add_argument("--role", type=Role, choices=list(Role), default=Role.WORKER)
    minting.add_argument("--replace", action="store_true", help="revoke the name's earlier tokens of the role")
    listing = _command(actions, "list", _list, "list who has tokens")
    listing.add_argument("--json", action="store_true")
    revoking = _command(actions, "revoke", _revoke, "revoke every token of a name")
    revoking.add_argument("name", type=_name)
    revoking.add_argument("--role", type=Role, choices=list(Role), help="only tokens of this role")
    return parser


def _command(commands: _Commands, name: str, run: _Run, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text)
    parser.set_defaults(run=run)
    return parser


def _name(text: str) -> str:
    if not NAME_PATTERN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} does not match {NAME_PATTERN.pattern}")
    return text


def _serve(settings: Settings, _options: argparse.Namespace) -> None:
    # The other commands need no HTTP server, and start three times as fast without.
    importlib.import_module("broker_app.server").serve(settings, os.environ)


def _check(settings: Settings, _options: argparse.Namespace) -> None:
    if settings.database.exists():
        verify(settings.database)
    elif not os.access(settings.database.parent, os.W_OK):
        raise DatabaseError(f"cannot create {settings.database}: check BROKER_DB")
    sys.stdout.write(f"{__version__}\n")


def _mint(settings: Settings, options: argparse.Namespace) -> None:
    with closing(connect(settings.database)) as database, _noted(settings, options, "mint"):
        token = mint(database, options.name, options.role, time.time(), alone=options.replace)
    sys.stdout.write(f"{token}\n")


def _revoke(settings: Settings, options: argparse.Namespace) -> None:
    with closing(connect(settings.database)) as database, _noted(settings, options, "revoke"):
        count = revoke(database, options.name, options.role)
    sys.stdout.write(f"{count} revoked\n")


@contextmanager
def _noted(settings: Settings, options: argparse.Namespace, what: str) -> Iterator[None]:
    """Leave a line in the trail; the installed command is run as the broker, and has in SUDO_USER who ran it."""
    audit = Audit(settings.database, tell=_tell_journal)
    facts = {"who": f"user {os.environ.get('SUDO_USER') or os.getuid()}", "what": what, "where": "the command line"}
    facts |= {"agent": options.name, "role": options.role}
    try:
        yield
    except BrokerError as error:
        audit.note(time.time(), **facts, outcome=f"refused: {error}")
        raise
    audit.note(time.time(), **facts, outcome="done")


def _tell_journal(line: str) -> None:
    syslog.openlog("openclaw-broker", facility=syslog.LOG_AUTHPRIV)
    syslog.syslog(line)


def _list(settings: Settings, options: argparse.Namespace) -> None:
    with closing(connect(settings.database)) as database:
        found = tokens(database)
    if options.json:
        rows = [{"name": token.name, "role": token.role, "created_at": int(token.created_at)} for token in found]
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    for token in found:
        minted = datetime.fromtimestamp(token.created_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        sys.stdout.write(f"{token.name}\t{token.role}\t{minted}\n")


if __name__ == "__main__":
    sys.exit(main())
