"""Serve a stand-in: python -m lab.providers hcloud|tailscale ENGINE_ADDRESS."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pulumi.runtime.proto import provider_pb2_grpc

from lab.engine.serving import serve
from lab.providers.provider import Provider

if TYPE_CHECKING:
    from typing import NoReturn


def main(name: str) -> NoReturn:
    """Serve the stand-in of this name to the engine that started this process."""
    provider = _hcloud() if name == "hcloud" else _tailscale()
    serve(lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server))


# Each has a client library of its own, and loading one takes a third of a second.
def _hcloud() -> Provider:
    import requests  # noqa: PLC0415
    from hcloud import HCloudException  # noqa: PLC0415

    from lab.providers.hetzner.provider import Hetzner  # noqa: PLC0415

    return Provider("hcloud", Hetzner, (HCloudException, requests.RequestException))


def _tailscale() -> Provider:
    from lab.providers.tailscale import Tailscale  # noqa: PLC0415

    return Provider("tailscale", Tailscale, ())


if __name__ == "__main__":
    main(sys.argv[1])
