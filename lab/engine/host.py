"""The Pulumi engine's Python language host.

The official one comes with Pulumi's own distribution and is used where it is there. This one stands in where the
engine was built from the module proxy, which does not serve it. It answers what the engine calls to run a program
(pulumi/language.proto); generating code, packing and Python plugins are left out, and the engine says so.

    python -m lab.engine.host ENGINE_ADDRESS
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

from lab.engine import program
from lab.engine.serving import serve

if TYPE_CHECKING:
    from collections.abc import Iterator


class ProjectError(Exception):
    """The project cannot be run as it is; the message names the field of Pulumi.yaml and the remedy."""


def virtualenv(info: language_pb2.ProgramInfo) -> Path:
    """Return the project's virtual environment, which `runtime.options.virtualenv` names.

    A relative path starts where Pulumi.yaml is, never at the program: so does the official host
    (sdk/python/toolchain/pip.go), and a path that only one of the two takes would show too late.

    Raises:
        ProjectError: there is no such option, or no Python in that folder.
    """
    options: dict[str, Any] = json_format.MessageToDict(info.options)
    if not (name := options.get("virtualenv")):
        raise ProjectError("Pulumi.yaml: runtime.options.virtualenv: missing; name the virtual environment, as .venv")
    folder: Path = Path(info.root_directory) / name
    if not (folder / "bin/python").exists():
        raise ProjectError(f"Pulumi.yaml: runtime.options.virtualenv: no Python in {folder}; run scripts/setup")
    return folder


def packages(environment: Path) -> list[dict[str, Any]]:
    """Return what the SDKs in a virtual environment say of their plugins: name and version of each."""
    files = sorted(environment.glob("lib/python3*/site-packages/*/pulumi-plugin.json"))
    described: list[dict[str, Any]] = [json.loads(file.read_text()) for file in files]
    return [package for package in described if package.get("resource")]


class Host(language_pb2_grpc.LanguageRuntimeServicer):
    """Runs programs for one engine."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    def Handshake(  # noqa: N802 (the protocol's name, as all below)
        self, request: language_pb2.LanguageHandshakeRequest, context: grpc.ServicerContext
    ) -> language_pb2.LanguageHandshakeResponse:
        """Take note of the engine's address."""
        del context
        self._engine = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:  # noqa: N802
        """Return this host's version: it has none."""
        del request, context
        return plugin_pb2.PluginInfo()

    def GetRequiredPackages(  # noqa: N802
        self, request: language_pb2.GetRequiredPackagesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPackagesResponse:
        """Return the plugins that the SDKs of the project's environment need."""
        return language_pb2.GetRequiredPackagesResponse(
            packages=[
                plugin_pb2.PackageDependency(kind="resource", name=package["name"], version=f"v{package['version']}")
                for package in packages(_environment(request.info, context))
            ]
        )

    def GetProgramDependencies(  # noqa: N802
        self, request: language_pb2.GetProgramDependenciesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetProgramDependenciesResponse:
        """Return what is installed in the project's environment, for `pulumi about`."""
        folders = [str(path) for path in _environment(request.info, context).glob("lib/python3*/site-packages")]
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[
                language_pb2.DependencyInfo(name=found.metadata["Name"], version=found.version)
                for found in metadata.distributions(path=folders)
            ]
        )

    def About(self, request: language_pb2.AboutRequest, context: grpc.ServicerContext) -> language_pb2.AboutResponse:  # noqa: N802
        """Return which Python runs the program, for `pulumi about`."""
        python = _environment(request.info, context) / "bin/python"
        version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
        return language_pb2.AboutResponse(executable=str(python), version=version.removeprefix("Python ").strip())

    def InstallDependencies(  # noqa: N802
        self, request: language_pb2.InstallDependenciesRequest, context: grpc.ServicerContext
    ) -> Iterator[language_pb2.InstallDependenciesResponse]:
        """Say that there is nothing to install, or that scripts/setup installs it."""
        folder = _environment(request.info, context)
        yield language_pb2.InstallDependenciesResponse(stdout=f"{folder} is there; scripts/setup keeps it\n".encode())

    def RuntimeOptionsPrompts(  # noqa: N802
        self, request: language_pb2.RuntimeOptionsRequest, context: grpc.ServicerContext
    ) -> language_pb2.RuntimeOptionsResponse:
        """Ask nothing."""
        del request, context
        return language_pb2.RuntimeOptionsResponse()

    def Run(self, request: language_pb2.RunRequest, context: grpc.ServicerContext) -> language_pb2.RunResponse:  # noqa: N802
        """Run the program to its end; what it prints goes where this host's own output goes, to the engine."""
        python = _environment(request.info, context) / "bin/python"
        # -P: the program must not find the modules of this folder.
        process = subprocess.Popen([python, "-uP", program.__file__], stdin=subprocess.PIPE, text=True)
        with self._lock:
            self._running.add(process)
        try:
            process.communicate(json.dumps(self._described(request)))
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode == program.TOLD:
            return language_pb2.RunResponse(bail=True)
        return language_pb2.RunResponse(
            error=f"the program ended with status {process.returncode}" if process.returncode else ""
        )

    def Cancel(self, request: Empty, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        """End the programs that run."""
        del request, context
        self.stop()
        return Empty()

    def stop(self) -> None:
        """End the programs that run. Takes no lock: a signal handler calls it too."""
        for process in tuple(self._running):
            process.terminate()

    def _described(self, request: language_pb2.RunRequest) -> dict[str, Any]:
        return {
            "program": request.info.entry_point,
            "args": list(request.args),
            "pwd": request.pwd,
            "config": dict(request.config),
            "secret_keys": list(request.configSecretKeys),
            "settings": {
                "project": request.project,
                "stack": request.stack,
                "organization": request.organization,
                "root_directory": request.info.root_directory,
                "parallel": request.parallel,
                "dry_run": request.dryRun,
                "monitor": request.monitor_address,
                "engine": self._engine,
            },
        }


def _environment(info: language_pb2.ProgramInfo, context: grpc.ServicerContext) -> Path:
    try:
        return virtualenv(info)
    except ProjectError as error:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        raise  # abort has raised already; this is for the type checker


def _main() -> None:
    host = Host(sys.argv[1] if len(sys.argv) > 1 else "")
    serve(lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server), stop=host.stop)


if __name__ == "__main__":
    _main()
