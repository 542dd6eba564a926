"""Plugins of the Pulumi engine, started and spoken to as the engine does."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from lab.providers.values import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 30


@contextlib.contextmanager
def started(module: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], grpc.Channel]]:
    """Start a plugin; yield its process, and a channel to the port that it printed."""
    argv = [sys.executable, "-P", "-m", module, *arguments, "127.0.0.1:1"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            with grpc.insecure_channel(f"127.0.0.1:{int(process.stdout.readline())}") as channel:
                yield process, channel
        finally:
            process.kill()


class Resources:
    """A configured provider's resources of one type, by plain properties."""

    def __init__(self, channel: grpc.Channel, type_: str) -> None:
        self.rpc = provider_pb2_grpc.ResourceProviderStub(channel)
        self._urn = f"urn:pulumi:lab::fleet::{type_}::one"

    def check(self, news: dict[str, Any]) -> dict[str, str]:
        """Return the failures, by property."""
        answer = self.rpc.Check(provider_pb2.CheckRequest(urn=self._urn, news=pack(news)), timeout=SECONDS)
        return {failure.property: failure.reason for failure in answer.failures}

    def diff(
        self, olds: dict[str, Any], news: dict[str, Any], *, ignore: tuple[str, ...] = (), state: Any = None
    ) -> provider_pb2.DiffResponse:
        request = provider_pb2.DiffRequest(
            urn=self._urn, olds=pack(state or olds), old_inputs=pack(olds), news=pack(news), ignoreChanges=ignore
        )
        answer: provider_pb2.DiffResponse = self.rpc.Diff(request, timeout=SECONDS)
        return answer

    def create(self, inputs: dict[str, Any], *, preview: bool = False) -> tuple[str, dict[str, Any]]:
        """Return the new object's id and state."""
        request = provider_pb2.CreateRequest(urn=self._urn, properties=pack(inputs), preview=preview)
        answer = self.rpc.Create(request, timeout=SECONDS)
        return answer.id, unpack(answer.properties)

    def read(
        self, object_id: str, inputs: dict[str, Any], state: dict[str, Any]
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Return id, inputs and state as they are; no inputs and no state make it an import."""
        request = provider_pb2.ReadRequest(urn=self._urn, id=object_id, inputs=pack(inputs), properties=pack(state))
        answer = self.rpc.Read(request, timeout=SECONDS)
        return answer.id, unpack(answer.inputs), unpack(answer.properties)

    def update(
        self, object_id: str, state: dict[str, Any], olds: dict[str, Any], news: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the new state."""
        request = provider_pb2.UpdateRequest(
            urn=self._urn, id=object_id, olds=pack(state), old_inputs=pack(olds), news=pack(news)
        )
        return unpack(self.rpc.Update(request, timeout=SECONDS).properties)

    def delete(self, object_id: str, state: dict[str, Any]) -> None:
        self.rpc.Delete(
            provider_pb2.DeleteRequest(urn=self._urn, id=object_id, properties=pack(state)), timeout=SECONDS
        )


def configure(channel: grpc.Channel, name: str, **settings: str) -> None:
    """Configure a provider, as the engine does before everything else."""
    variables = {f"{name}:config:{key}": value for key, value in settings.items()}
    request = provider_pb2.ConfigureRequest(variables=variables)
    provider_pb2_grpc.ResourceProviderStub(channel).Configure(request, timeout=SECONDS)
