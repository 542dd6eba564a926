"""Installing Tailscale as a package, as far as that goes without its repository: what is asked for, from where."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import yaml

from fleet import inventory
from tests.support.fleet import changed_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[3]
VERSION = yaml.safe_load((PROJECT / "roles/tailscale/defaults/main.yml").read_text())["tailscale_version"]
TASKS = ["Fetch the repository's key", "Place the repository and the pin", "Install the pinned version"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep requests to itself."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in the place of Tailscale's, whose key is another."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "bookworm.noarmor.gpg").write_bytes(b"another key")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(folder: Path, repository: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tasks on this machine, with all that they place in a folder."""
    places = {name: str(folder / name) for name in ("key", "sources", "pin")}
    play = {
        "name": "Install",
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"ansible_facts": {"distribution": "Debian", "distribution_release": "bookworm"}},
        "tasks": [
            {
                "name": "Include",
                "ansible.builtin.include_role": {"name": "tailscale", "tasks_from": "package"},
                "vars": {
                    "_tailscale_repository": repository,
                    **{f"_tailscale_{name}_file": place for name, place in places.items()},
                },
            }
        ],
    }
    # apt knows of no packages and no lists, whatever this machine has.
    settings = [f'Dir::State "{folder}";', f'Dir::State::status "{folder}/status";', f'Dir::Etc "{folder}";']
    (folder / "apt.conf").write_text("\n".join(settings))
    (folder / "status").touch()
    (folder / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local", *options]
    return subprocess.run(
        [*argv, "-e", f"ansible_python_interpreter={sys.executable}", str(folder / "play.yml")],
        cwd=PROJECT,
        env={
            **inventory.environment(),
            "ANSIBLE_REMOTE_TMP": str(folder),
            "ANSIBLE_FORCE_COLOR": "0",
            "APT_CONFIG": str(folder / "apt.conf"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_check_says_what_is_installed_and_from_where(tmp_path: Path, repository: str) -> None:
    done = run(tmp_path, repository, "--check", "--diff")

    assert done.returncode == 0, done.stdout + done.stderr
    assert [task.removeprefix("tailscale : ") for task, _ in changed_tasks(done.stdout)] == TASKS
    assert f"+deb [signed-by={tmp_path}/key] {repository} bookworm main\n" in done.stdout
    assert f"+Package: tailscale\n+Pin: version {VERSION}\n+Pin-Priority: 1001\n" in done.stdout
    assert re.search(rf"(?m)^\+tailscale={re.escape(VERSION)}$", done.stdout)
    assert not [name for name in ("key", "sources", "pin") if (tmp_path / name).exists()]


def test_another_key_is_not_trusted(tmp_path: Path, repository: str) -> None:
    done = run(tmp_path, repository)

    assert done.returncode == 2
    assert "did not match" in done.stdout
    assert not [name for name in ("key", "sources", "pin") if (tmp_path / name).exists()]
