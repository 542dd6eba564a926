"""An SSH server on loopback, for tests of what happens before and between commands on a node."""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import paramiko

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A command's exit status and what it prints.
Answer = tuple[int, str]


class _Session(paramiko.ServerInterface):
    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self._answer = answer

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._run, args=(channel, command.decode())).start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        status, said = self._answer(command)
        with suppress(OSError):
            (channel.sendall if status == 0 else channel.sendall_stderr)(said.encode())
            channel.send_exit_status(status)
            channel.close()


@contextmanager
def server(key: paramiko.PKey, answer: Callable[[str], Answer] = lambda _: (0, "")) -> Iterator[int]:
    """Serve on a free port of 127.0.0.1: everybody may log in, and `answer` says what comes of a command."""
    transports: list[paramiko.Transport] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(connection)
                transport.add_server_key(key)
                transport.start_server(server=_Session(answer), event=threading.Event())
                transports.append(transport)

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
