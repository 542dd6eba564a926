"""A private home for the real Pulumi engine, with state in files and plugins that work without a network."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from pathlib import Path

from lab import files, process
from lab.engine import plugins as provider_plugins

_HOST = "pulumi-language-python"


class Engine:
    """Runs `pulumi` with everything it keeps below one folder.

    home/        PULUMI_HOME: plugins (the real one of the SDK's exact version where the user has it, else the
                 stand-in), workspaces
    state/       the file backend
    project/     where the stack was made; its configuration, `config`, with the salt of its secrets
    bin/         the language host, where pulumi is no official distribution with a host beside it
    passphrase   made once, 0600

    With internet, the real plugins are had by `pulumi plugin install resource hcloud VERSION`, and the same for
    tailscale, with the versions that `pip show pulumi-hcloud pulumi-tailscale` tells; the next command uses them.

    Args:
        folder: where all that is kept; made if it is not there.
        pulumi: the program.
        project: the name in Pulumi.yaml.
        stack: the stack that every command without --stack is for.
        plugins: where real plugins may be; by default those of the user's own Pulumi.
    """

    def __init__(
        self, folder: Path, pulumi: Path, *, project: str = "fleet", stack: str = "lab", plugins: Path | None = None
    ) -> None:
        self.folder = folder
        self.pulumi = pulumi
        self.project = project
        self.stack = stack
        self._plugins = plugins or Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi") / "plugins"

    @property
    def config(self) -> Path:
        """The stack's configuration: outside the checkout, because secrets are in it."""
        return self.folder / "project" / f"Pulumi.{self.stack}.yaml"

    def environment(self) -> dict[str, str]:
        """Return the variables with which `pulumi` uses this folder and nothing else, and make what they name."""
        self._prepare()
        path = [str(self.pulumi.parent), os.environ.get("PATH", os.defpath)]
        if self._needs_host():
            path.insert(1, str(self.folder / "bin"))
        return {
            "PATH": os.pathsep.join(path),
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(self.folder / "passphrase"),
            "PULUMI_STACK": self.stack,
            "PULUMI_OPTION_CONFIG_FILE": str(self.config),  # every command's --config-file
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        }

    def create_stack(self) -> None:
        """Make the stack, if it is not there, so that its configuration file lies in this folder.

        Raises:
            CommandFailedError: pulumi could not.
        """
        folder = self.folder / "project"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Pulumi.yaml").write_text(json.dumps({"name": self.project, "runtime": "python"}))
        argv = ["env", *(f"{name}={value}" for name, value in self.environment().items())]
        # The program and the folder are the engine's own; no secret is among these variables.
        argv += [str(self.pulumi), "--non-interactive", "--cwd", str(folder), "stack", "select", "--create", self.stack]
        process.run(argv, timeout=120)

    def real_plugins(self) -> set[str]:
        """Return the names of the plugins of which the real one is used."""
        return {name for name in provider_plugins.NAMES if self._real(name).is_dir()}

    def _prepare(self) -> None:
        for name in ("home/plugins", "state", "project", "bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        passphrase = self.folder / "passphrase"
        if not passphrase.exists():
            files.replace(passphrase, secrets.token_urlsafe(32), mode=0o600)
        if self._needs_host():
            _write_command(self.folder / "bin" / _HOST, "lab.engine.host")
        for name in provider_plugins.NAMES:
            self._install(name)

    def _needs_host(self) -> bool:
        # A link may lead to an official distribution, whose host lies beside the real file.
        return not (self.pulumi.resolve().parent / _HOST).exists()

    def _install(self, name: str) -> None:
        target = self.folder / "home/plugins" / self._folder(name)
        target.mkdir(exist_ok=True)
        program = target / f"pulumi-resource-{name}"
        real = self._real(name) / program.name
        if not real.exists():
            _write_command(program, "lab.providers", name)
        elif real != program and not program.is_symlink():  # PULUMI_HOME may be this very home
            # The engine takes no links to folders, but the program in the folder may be one.
            program.unlink(missing_ok=True)
            program.symlink_to(real)

    def _real(self, name: str) -> Path:
        return self._plugins / self._folder(name)

    @staticmethod
    def _folder(name: str) -> str:
        return f"resource-{name}-v{provider_plugins.version(name)}"


def _write_command(path: Path, module: str, *arguments: str) -> None:
    command = shlex.join([sys.executable, "-P", "-m", module, *arguments])
    # Put in place whole, as another command may be running it.
    files.replace(path, f'#!/bin/sh\nexec {command} "$@"\n', mode=0o755)
