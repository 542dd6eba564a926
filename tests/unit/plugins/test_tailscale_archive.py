from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from plugins.modules import tailscale_archive
from plugins.modules.tailscale_archive import ArchiveError

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "tailscale_1.2.3_amd64"
DAEMON = b"#!/bin/sh\necho 1.2.3-ERR-BuildInfo\necho '  go version: go1'\n"
CONTENTS = {
    "systemd/tailscaled.defaults": b"PORT=41641\n",
    "systemd/tailscaled.service": b"[Service]\n",
    "tailscale": b"#!/bin/sh\n",
    "tailscaled": DAEMON,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folders of a host."""
    for place, _ in tailscale_archive.FILES.values():
        (tmp_path / "root" / place).parent.mkdir(parents=True, exist_ok=True)
    return tmp_path / "root"


def packed(folder: Path, contents: dict[str, bytes]) -> dict[str, Any]:
    """Write an archive and return the module's arguments for it."""
    path = folder / f"{FOLDER}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"archive": "elsewhere", "src": str(path), "sha256": digest, "version": "1.2.3"}


def placed(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_fresh_host_gets_everything_once(tmp_path: Path, root: Path) -> None:
    arguments = packed(tmp_path, CONTENTS)
    first = tailscale_archive.run(arguments, check_mode=False, root=root)
    second = tailscale_archive.run({**arguments, "src": None}, check_mode=False, root=root)

    assert first["changed"]
    assert second == {"changed": False, "missing": False}
    assert placed(root) == {place: CONTENTS[name] for name, (place, _) in tailscale_archive.FILES.items()}
    modes = {place: (root / place).stat().st_mode & 0o777 for place, _ in tailscale_archive.FILES.values()}
    assert modes == dict(tailscale_archive.FILES.values())


def test_a_host_that_lacks_it_asks_for_the_archive(tmp_path: Path, root: Path) -> None:
    arguments = {**packed(tmp_path, CONTENTS), "src": None}
    result = tailscale_archive.run(arguments, check_mode=False, root=root)

    assert (result["changed"], result["missing"]) == (True, True)
    assert placed(root) == {}


def test_a_check_places_nothing(tmp_path: Path, root: Path) -> None:
    assert tailscale_archive.run(packed(tmp_path, CONTENTS), check_mode=True, root=root)["changed"]
    assert placed(root) == {}


def test_settings_of_the_daemon_that_are_there_stay(tmp_path: Path, root: Path) -> None:
    (root / "etc/default/tailscaled").write_text("PORT=1\n")
    tailscale_archive.run(packed(tmp_path, CONTENTS), check_mode=False, root=root)

    assert (root / "etc/default/tailscaled").read_text() == "PORT=1\n"


def test_a_host_that_lacks_one_file_is_not_taken_for_whole(tmp_path: Path, root: Path) -> None:
    arguments = packed(tmp_path, CONTENTS)
    tailscale_archive.run(arguments, check_mode=False, root=root)
    (root / "usr/bin/tailscale").unlink()

    assert tailscale_archive.run({**arguments, "src": None}, check_mode=False, root=root)["missing"]


def test_another_version_takes_the_place_of_the_one_before(tmp_path: Path, root: Path) -> None:
    """As with a new `tailscale_version` and its archive."""
    tailscale_archive.run(packed(tmp_path, CONTENTS), check_mode=False, root=root)
    newer = DAEMON.replace(b"1.2.3", b"1.2.4")
    arguments = {**packed(tmp_path, {**CONTENTS, "tailscaled": newer}), "version": "1.2.4"}
    result = tailscale_archive.run(arguments, check_mode=False, root=root)

    assert result["diff"] == {"before": "tailscale 1.2.3\n", "after": "tailscale 1.2.4\n"}
    assert (root / "usr/sbin/tailscaled").read_bytes() == newer


@pytest.mark.parametrize(
    ("contents", "more", "said"),
    [
        (CONTENTS, {"sha256": "0" * 64}, "has not the checksum"),
        ({**CONTENTS, "tailscaled": DAEMON.replace(b"1.2.3", b"1.2.4")}, {}, "says '1.2.4' for its version"),
        ({**CONTENTS, "tailscaled": b"\x7fELF of another processor"}, {}, "says '' for its version"),
        ({name: content for name, content in CONTENTS.items() if name != "tailscale"}, {}, "has no tailscale;"),
    ],
)
def test_another_archive_is_refused_and_leaves_nothing(
    tmp_path: Path, root: Path, contents: dict[str, bytes], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(ArchiveError, match=said):
        tailscale_archive.run({**packed(tmp_path, contents), **more}, check_mode=False, root=root)
    assert placed(root) == {}


def test_a_package_is_not_overwritten(tmp_path: Path, root: Path) -> None:
    note = root / tailscale_archive.PACKAGE_LIST
    note.parent.mkdir(parents=True)
    note.touch()

    with pytest.raises(ArchiveError, match="installed as a package"):
        tailscale_archive.run(packed(tmp_path, CONTENTS), check_mode=False, root=root)
