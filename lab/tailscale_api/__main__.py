"""The stand-in as a program."""

import sys
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from lab.errors import LabError
from lab.lab import Lab
from lab.tailnet import Tailnet
from lab.tailscale_api import app
from lab.tailscale_api.errors import ApiError
from lab.tailscale_api.headscale import Headscale
from lab.tailscale_api.memory import Memory
from lab.tailscale_api.service import Service
from lab.tailscale_api.state import State


def serve(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)],
    state: Annotated[Path, typer.Option(help="File that holds everything; made where it is not there.")],
    lab: Annotated[str, typer.Option(help="The lab whose headscale is behind it.")] = "",
    memory: Annotated[bool, typer.Option("--memory", help="A tailnet without machines.")] = False,
) -> None:
    """Serve the Tailscale API of a lab's tailnet, or of one in memory."""
    if bool(lab) == memory:
        raise typer.BadParameter("say either --lab NAME or --memory")
    kept = State.load(state)
    backend = Memory(kept) if memory else Headscale(Tailnet(Lab(lab)))
    service = Service(kept, backend)
    application = app.create(service, domain=backend.domain, memory=backend if isinstance(backend, Memory) else None)
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="info", server_header=False)


def main() -> None:
    """Run it; what the person can mend ends in one line and status 1."""
    try:
        typer.run(serve)
    except (LabError, ApiError, OSError) as error:
        typer.echo(f"tailscale_api: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
