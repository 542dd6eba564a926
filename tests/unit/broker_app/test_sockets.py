"""The sockets that a broker serves on."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from broker_app import server
from broker_app.settings import Settings

_TCP_THIN_LINEAR_TIMEOUTS = 16


@pytest.mark.parametrize("are_passed", [False, True])
def test_what_a_connection_loses_is_sent_again_soon(monkeypatch: pytest.MonkeyPatch, are_passed: bool) -> None:
    settings = Settings.from_environment({"BROKER_PORT": "0"})
    with ExitStack() as opened:
        if are_passed:
            ours = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            monkeypatch.setattr(server, "passed_sockets", lambda _: [ours])
        (listener,) = server.open_sockets(settings, {})
        opened.enter_context(listener)
        opened.enter_context(socket.create_connection(listener.getsockname()))
        accepted = opened.enter_context(listener.accept()[0])
        assert accepted.getsockopt(socket.IPPROTO_TCP, _TCP_THIN_LINEAR_TIMEOUTS) == 1


def test_a_socket_in_the_file_system_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as ours:
        monkeypatch.setattr(server, "passed_sockets", lambda _: [ours])
        assert server.open_sockets(Settings.from_environment({}), {}) == [ours]
