"""An SSH server on loopback, for tests of what happens before and between commands on a node."""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import paramiko

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A command's exit status and what it prints.
Answer = tuple[int, str]


class _Session(paramiko.ServerInterface):
    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self._answer = answer
        self.forwards: dict[int, socket.socket] = {}

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        try:
            self.forwards[chanid] = socket.create_connection(destination, timeout=10)
        except OSError:
            return paramiko.common.OPEN_FAILED_CONNECT_FAILED
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        # A channel that closes before the answer to this went out would be a failure to the client.
        threading.Timer(0.05, self._run, (channel, command.decode())).start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        status, said = self._answer(command)
        with suppress(OSError):
            (channel.sendall if status == 0 else channel.sendall_stderr)(said.encode())
            channel.send_exit_status(status)
            channel.close()


def _forward(transport: paramiko.Transport, session: _Session) -> None:
    """Carry what the channels of forwarded ports carry, as long as the connection lasts."""
    while transport.is_active():
        channel = transport.accept(0.1)
        if channel and (there := session.forwards.get(channel.chanid)):
            for source, drain in ((channel, there), (there, channel)):
                threading.Thread(target=_pump, args=(source, drain), daemon=True).start()


def _pump(source: Any, drain: Any) -> None:
    with suppress(OSError):
        while data := source.recv(4096):
            drain.sendall(data)
    for end in (source, drain):
        with suppress(OSError):
            end.close()


@contextmanager
def server(
    key: paramiko.PKey,
    answer: Callable[[str], Answer] = lambda _: (0, ""),
    connections: list[paramiko.Transport] | None = None,
) -> Iterator[int]:
    """Serve on a free port of 127.0.0.1: everybody may log in and reach its ports; `answer` says what a command does.

    Who is connected comes into the list `connections`.
    """
    transports = [] if connections is None else connections
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(connection)
                transport.add_server_key(key)
                session = _Session(answer)
                transport.start_server(server=session, event=threading.Event())
                transports.append(transport)
                threading.Thread(target=_forward, args=(transport, session), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for transport in transports:
                transport.close()


def identity(folder: Path) -> str:
    """Make a key to log in with, and return its file."""
    file = folder / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return str(file)
