"""Base images: one Debian root file system per release, built once and cached by the hash of its recipe."""

from __future__ import annotations

import hashlib
import shlex
import shutil
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lab import folders, registries
from lab.mounts import unmount_below
from lab.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITES = {"debian-12": "bookworm", "debian-13": "trixie"}
_RECIPE = Path(__file__).with_name("recipe")
_MACHINE_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_BUILD_SECONDS = 900
_PACKAGES = (
    "acl,ca-certificates,cloud-init,curl,dbus,dbus-user-session,iproute2,iputils-ping,less,libpam-systemd,netbase,nftables,"
    "openssh-server,procps,python3,python3-apt,sudo,systemd,systemd-sysv"
)


def ensure(name: str, *, builder: str) -> Path:
    """Return the folder of an image of SUITES, built where the cache has none; `builder` names who builds."""
    target = folders.cache() / "images" / f"{name}-{_recipe_hash(name)}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_suffix(".lock")):
        if not target.is_dir():
            _build(SUITES[name], target, partial=target.with_name(f"{target.name}.partial-{builder}"))
    return target


def is_cached(name: str) -> bool:
    """Say whether the image is there already."""
    return (folders.cache() / "images" / f"{name}-{_recipe_hash(name)}").is_dir()


def mirror_hosts() -> set[str]:
    """Return the names of the hosts that the cached images install packages from."""
    lists = (folders.cache() / "images").glob("*/etc/apt/sources.list*")
    words = " ".join(file.read_text() for file in lists if file.is_file()).split()
    return {host for word in words if "://" in word and (host := urlsplit(word).hostname)}


def remove_partial(builder: str) -> None:
    """Remove what an interrupted build of this builder left."""
    for partial in (folders.cache() / "images").glob(f"*.partial-{builder}"):
        _clear(partial)


def _clear(folder: Path) -> None:
    # An interrupted build may have left the machine's own /proc and /dev mounted in it.
    unmount_below(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _build(suite: str, target: Path, *, partial: Path) -> None:
    _clear(partial)
    root, scratch = partial / "root", partial / "tmp"
    scratch.mkdir(parents=True)
    certificates = [
        f"copy-in {shlex.quote(str(crt))} {_MACHINE_CERTIFICATES}"
        for crt in sorted(_MACHINE_CERTIFICATES.glob("*.crt"))
    ]
    hooks = [
        f"mkdir -p $1{_MACHINE_CERTIFICATES}",
        *certificates,
        f"copy-in {shlex.quote(str(_RECIPE))}/lab-init /usr/local/sbin",
        f"copy-in {shlex.quote(str(_RECIPE))}/99-lab.cfg /etc/cloud/cloud.cfg.d",
        f'env --unset=TMPDIR chroot "$1" sh -s < {shlex.quote(str(_RECIPE))}/prepare',
    ]
    options = [
        'APT::Install-Recommends "false"',
        *(option.rstrip(";") for option in registries.apt_options()),
    ]
    run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            f"--include={_PACKAGES}",
            *(f"--aptopt={option}" for option in options),
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            *(f"--customize-hook={hook}" for hook in hooks),
            suite,
            str(root),
            *_sources(suite),
        ],
        timeout=_BUILD_SECONDS,
        scratch=scratch,
    )
    root.rename(target)
    _clear(partial)


def _sources(suite: str) -> list[str]:
    """Return one-line apt sources on the machine's own mirrors; none lets mmdebstrap take Debian's."""
    suites = {"Debian": (suite, f"{suite}-updates"), "Debian-Security": (f"{suite}-security",)}
    return [f"deb {s.uri} {each} main" for s in registries.debian_mirrors() for each in suites[s.label]]


def _recipe_hash(name: str) -> str:
    recipe = hashlib.sha256(name.encode() + Path(__file__).read_bytes())
    for part in sorted(_RECIPE.iterdir()):
        recipe.update(part.read_bytes())
    for certificate in sorted(_MACHINE_CERTIFICATES.glob("*.crt")):
        recipe.update(certificate.read_bytes())
    return recipe.hexdigest()[:12]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        flock(file, LOCK_EX)
        yield
