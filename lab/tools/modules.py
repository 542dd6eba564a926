"""Which Go module brings which programs, and what its go.mod pins."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from lab import folders
from lab.errors import LabError
from lab.tools import archive

_FOLDER = Path(__file__).parent


# Tailscale's integrations with clouds and clusters are a quarter of what there is to compile (its feature/featuretags).
_NO_CLOUDS = ("ts_omit_aws", "ts_omit_flashappliance", "ts_omit_identityfederation", "ts_omit_kube", "ts_omit_tpm")


@dataclass(frozen=True)
class Module:
    """A folder here with a go.mod; its programs, where its sources keep the version that they print, and units.

    `omitted` are build tags that leave out what a lab has no use for.
    """

    name: str
    pin: str
    programs: tuple[str, ...]
    version_variables: tuple[str, ...]
    version_prefix: str = "v"
    ask_version: tuple[str, ...] = ("version",)
    units: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its go.mod and go.sum are."""
        return _FOLDER / self.name

    @property
    def version(self) -> str:
        """The version of `pin` in go.mod, with its "v"."""
        found = re.search(rf"^\s*(?:require )?{re.escape(self.pin)} (v\S+)", self._text, re.MULTILINE)
        if not found:
            raise LabError(f"{self.folder}/go.mod does not pin {self.pin}")
        return found[1]

    @property
    def go(self) -> tuple[int, ...]:
        """The oldest Go that builds it."""
        found = re.search(r"^go ([\d.]+)$", self._text, re.MULTILINE)
        if not found:
            raise LabError(f"{self.folder}/go.mod names no version of Go")
        return tuple(map(int, found[1].split(".")))

    @property
    def packages(self) -> list[str]:
        """The programs' packages, from go.mod's tool lines."""
        return [line[1] for line in re.finditer(r"^(?:tool |\t)(\S+/cmd/\S+)$", self._text, re.MULTILINE)]

    @property
    def link_flags(self) -> str:
        """No tables for debuggers, and the version, which a module's sources do not know of themselves."""
        version = self.version_prefix + self.version.removeprefix("v")
        return " ".join(["-s -w", *(f"-X {variable}={version}" for variable in self.version_variables)])

    @property
    def target(self) -> Path:
        """The folder in the cache that holds the programs once they are built; another one for other pins."""
        pins = hashlib.sha256(" ".join([self.link_flags, *self.omitted]).encode())
        for file in ("go.mod", "go.sum"):
            pins.update((self.folder / file).read_bytes())
        if self.units:
            pins.update(Path(archive.__file__).read_bytes())
        return folders.cache() / "tools" / f"{self.name}-{pins.hexdigest()[:12]}"

    @property
    def is_built(self) -> bool:
        """Whether the cache has it; a folder of that name is always whole."""
        return self.target.is_dir()

    @property
    def _text(self) -> str:
        return (self.folder / "go.mod").read_text()


MODULES = (
    Module(
        "pulumi",
        pin="github.com/pulumi/pulumi/pkg/v3",
        programs=("pulumi",),
        # Without it the Automation API takes the engine for one that is too old.
        version_variables=("github.com/pulumi/pulumi/sdk/v3/go/common/version.Version",),
    ),
    Module(
        "tailscale",
        pin="tailscale.com",
        programs=("tailscale", "tailscaled"),
        version_variables=("tailscale.com/version.shortStamp", "tailscale.com/version.longStamp"),
        version_prefix="",
        ask_version=("--version",),
        units=("cmd/tailscaled/tailscaled.service", "cmd/tailscaled/tailscaled.defaults"),
        omitted=_NO_CLOUDS,
    ),
    Module(
        "headscale",
        pin="github.com/juanfont/headscale",
        programs=("headscale",),
        version_variables=("github.com/juanfont/headscale/hscontrol/types.Version",),
        omitted=_NO_CLOUDS,
    ),
)


def owner(program: str) -> Module:
    """Return the module that brings a program.

    Raises:
        LabError: none does.
    """
    for module in MODULES:
        if program in module.programs:
            return module
    names = ", ".join(name for module in MODULES for name in module.programs)
    raise LabError(f"no tool {program!r}; there are: {names}")
