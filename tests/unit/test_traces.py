"""What the tests of leftovers look for on the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import traces

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("kind", "seen_as"), [("_loops", "loop device of"), ("_mounts", "mount")])
def test_what_other_tests_have_below_their_own_folder_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, seen_as: str
) -> None:
    monkeypatch.setattr(traces, "_TREES", [])
    monkeypatch.setattr(traces, kind, lambda: [f"{tmp_path}/popen-gw1/disk", f"{tmp_path}-2/disk", "/var/disk"])
    seen = {line for line in traces.take("no-lab", ignored=tmp_path) if line.startswith(f"{seen_as} ")}
    assert seen == {f"{seen_as} {tmp_path}-2/disk", f"{seen_as} /var/disk"}
