"""The real engine with the lab's language host and providers: programs, hooks, secrets, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import textwrap
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.engine import Engine
from tests.support.engine import Apis, Stack

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = json.loads(resources.files("pulumi_hcloud").joinpath("pulumi-plugin.json").read_text())["version"]
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
OPTIONS = "{toolchain: pip, virtualenv: .venv}"


@pytest.fixture
def make(tmp_path: Path, apis: Apis) -> Callable[..., Stack]:
    """Return what makes a stack of a program; the APIs are the file's."""

    def make(program: str, *, options: str = OPTIONS) -> Stack:
        project = tmp_path / "project"
        (project / "infra").mkdir(parents=True)
        (project / ".venv").symlink_to(sys.prefix)
        described = f"name: fleet\nmain: infra\nruntime: {{name: python, options: {options}}}\n"
        (project / "Pulumi.yaml").write_text(described)
        (project / "infra/__main__.py").write_text(textwrap.dedent(program))
        return Stack(tmp_path / "stack", project=project, apis=apis)

    return make


def engine(folder: Path, *, pulumi: Path | None = None, plugins: Path | None = None) -> Engine:
    return Engine(folder / "engine", pulumi or folder / "bin/pulumi", plugins=plugins or folder / "nothing")


def test_everything_is_kept_in_its_folder(tmp_path: Path) -> None:
    environment = engine(tmp_path).environment()
    places = {name: environment[name].removeprefix("file://") for name in environment if environment[name][0] in "/f"}
    assert {name for name, place in places.items() if place.startswith(str(tmp_path))} == {
        "PATH",
        "PULUMI_BACKEND_URL",
        "PULUMI_CONFIG_PASSPHRASE_FILE",
        "PULUMI_HOME",
        "PULUMI_OPTION_CONFIG_FILE",
    }
    assert environment["PULUMI_STACK"] == "lab"


def test_the_passphrase_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    file = Path(engine(tmp_path).environment()["PULUMI_CONFIG_PASSPHRASE_FILE"])
    first = file.read_text()
    assert len(first) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Path(engine(tmp_path).environment()["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text() == first


def test_no_provider_is_on_the_path(tmp_path: Path) -> None:
    folders = engine(tmp_path).environment()["PATH"].split(os.pathsep)
    assert not [file for folder in folders for file in Path(folder).glob("pulumi-resource-*")]
    installed = {path.parent.name for path in (tmp_path / "engine/home/plugins").glob("*/pulumi-resource-*")}
    assert f"resource-hcloud-v{VERSION}" in installed


def plugin(folder: Path, version: str) -> Path:
    program = folder / f"resource-hcloud-v{version}/pulumi-resource-hcloud"
    program.parent.mkdir(parents=True)
    program.write_text("the real one")
    return program


def test_the_real_plugin_of_the_sdk_s_version_comes_first_and_the_stand_in_back_when_it_goes(tmp_path: Path) -> None:
    installed = tmp_path / f"engine/home/plugins/resource-hcloud-v{VERSION}/pulumi-resource-hcloud"
    engine(tmp_path, plugins=tmp_path / "own").environment()
    assert "lab.providers" in installed.read_text()
    real = plugin(tmp_path / "own", VERSION)
    with_real = engine(tmp_path, plugins=tmp_path / "own")
    with_real.environment()
    assert installed.read_text() == "the real one"
    assert with_real.real_plugins() == {"hcloud"}
    assert not installed.parent.is_symlink(), "the engine sees no plugin in a folder that is a link"
    real.unlink()
    with_real.environment()
    assert "lab.providers" in installed.read_text()
    assert not real.exists(), "the user's own plugins are not ours to write"


def test_the_stand_ins_stay_where_pulumi_home_is_its_own(tmp_path: Path) -> None:
    engine(tmp_path).environment()
    plugins = tmp_path / "engine/home/plugins"
    engine(tmp_path, plugins=plugins).environment()
    stand_ins = list(plugins.glob("*/pulumi-resource-*"))
    assert len(stand_ins) == 2
    assert all(stand_in.exists() for stand_in in stand_ins)


def test_a_real_plugin_of_another_version_is_left_alone(tmp_path: Path) -> None:
    plugin(tmp_path / "own", "1.0.0")
    other = engine(tmp_path, plugins=tmp_path / "own")
    other.environment()
    assert not other.real_plugins()
    assert [path.name for path in (tmp_path / "engine/home/plugins").glob("*hcloud*")] == [
        f"resource-hcloud-v{VERSION}"
    ]


def test_the_official_language_host_comes_first_also_behind_a_link(tmp_path: Path) -> None:
    official = tmp_path / "official"
    official.mkdir()
    for name in ("pulumi", "pulumi-language-python"):
        (official / name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/pulumi").symlink_to(official / "pulumi")
    assert str(tmp_path / "engine/bin") not in engine(tmp_path).environment()["PATH"]
    (official / "pulumi-language-python").unlink()
    path = engine(tmp_path).environment()["PATH"].split(os.pathsep)
    assert path[:2] == [str(tmp_path / "bin"), str(tmp_path / "engine/bin")]


ONE_KEY = f"""
    import pathlib
    import pulumi
    import pulumi_hcloud as hcloud

    hooked = pathlib.Path(__file__).with_name("hooked")

    def note(args):
        with hooked.open("a") as file:
            file.write(f"{{args.name}} {{(args.new_inputs or args.old_inputs)['name']}}\\n")

    hooks = pulumi.ResourceHookBinding(
        before_create=[pulumi.ResourceHook("before", note)], after_delete=[pulumi.ResourceHook("after", note)]
    )
    key = hcloud.SshKey("key", name="one", public_key="{PUBLIC_KEY} one", opts=pulumi.ResourceOptions(hooks=hooks))
    pulumi.export("fingerprint", key.fingerprint)
    pulumi.export("where", str(pathlib.Path.cwd().name))
"""


def test_a_program_is_brought_up_and_down_and_its_hooks_are_called(make: Callable[..., Stack], apis: Apis) -> None:
    stack = make(ONE_KEY)
    hooked = stack.project / "infra/hooked"
    preview = stack.preview().succeeded()
    assert preview.operations["create"] == ["key"]
    assert "is expected to have version" not in preview.output
    assert not hooked.exists(), "a preview calls no hooks"
    up = stack.up().succeeded()
    assert stack.outputs() == {"fingerprint": apis.cloud.ssh_keys.get_by_name("one").fingerprint, "where": "infra"}  # type: ignore[union-attr]
    assert hooked.read_text() == "key one\n"
    again = stack.up("--expect-no-changes")
    assert (again.status, again.steps) == (0, []), again.output
    refresh = stack.refresh("--expect-no-changes").succeeded()
    destroy = stack.destroy().succeeded()
    assert hooked.read_text() == "key one\nkey one\n", "destroy --run-program calls the hook"
    assert apis.cloud.ssh_keys.get_by_name("one") is None
    for what, result in {"preview": preview, "up": up, "again": again, "refresh": refresh, "destroy": destroy}.items():
        assert result.seconds < 9 or os.getloadavg()[0] > 6, f"{what}: a plugin does not end when it should"


def test_a_hook_that_fails_stops_the_creation(make: Callable[..., Stack], apis: Apis) -> None:
    stack = make(ONE_KEY.replace('with hooked.open("a")', 'raise ValueError("not yet")\n        with hooked.open("a")'))
    up = stack.up()
    assert up.status != 0
    assert "not yet" in up.output
    assert apis.cloud.ssh_keys.get_by_name("one") is None


@pytest.mark.parametrize(
    ("program", "message", "traced"),
    [
        ("import pulumi\nraise pulumi.RunError('fleet:nodes: missing')", "fleet:nodes: missing", False),
        ("def f():\n    raise ValueError('oh')\nf()", "ValueError: oh", True),
        ("import nothing_of_the_kind", "No module named 'nothing_of_the_kind'", True),
    ],
)
def test_a_program_that_fails_says_why(make: Callable[..., Stack], program: str, message: str, traced: bool) -> None:
    preview = make(program).preview()
    assert preview.status != 0
    assert message in preview.output
    assert ("Traceback" in preview.output) is traced
    assert "unhandled error" not in preview.output, "the engine adds nothing to what the program said"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{toolchain: pip}", "runtime.options.virtualenv: missing"),
        ("{toolchain: pip, virtualenv: ../.venv}", "runtime.options.virtualenv: no Python in"),
    ],
)
def test_the_virtual_environment_is_sought_beside_pulumi_yaml_only(
    make: Callable[..., Stack], options: str, message: str
) -> None:
    preview = make("", options=options).preview()  # ../.venv would be right as seen from the program
    assert preview.status != 0
    assert message in preview.output


def test_secrets_are_kept_out_of_state_and_arguments(make: Callable[..., Stack]) -> None:
    stack = make(f"""
        import pathlib
        import pulumi
        import pulumi_hcloud as hcloud

        secret = pulumi.Config("fleet").require_secret("word")
        hcloud.SshKey("key", name="secret", public_key=secret.apply(lambda word: "{PUBLIC_KEY} " + word), labels={{}})
        said = b"".join(p.read_bytes() for p in pathlib.Path("/proc/self").glob("cmdline"))
        said += b"".join(p.read_bytes() for p in pathlib.Path("/proc/self").glob("environ"))
        pulumi.export("leaked", b"Fool" in said)
        pulumi.export("word", secret)
    """)
    stack.run("config", "set", "--secret", "fleet:word", "Foolproof").succeeded()
    assert "Foolproof" not in stack.engine.config.read_text()
    up = stack.up().succeeded()
    assert "Foolproof" not in up.output
    assert "Foolproof" not in stack.state()
    assert stack.outputs() == {"leaked": False, "word": "Foolproof"}
    stack.destroy().succeeded()


SLOW = """
    import pulumi_hcloud as hcloud

    hcloud.Server("server", name="slow", server_type="cx23", image="debian-12")
"""


def test_a_killed_up_leaves_a_lock_and_cancel_and_up_complete_it(make: Callable[..., Stack], apis: Apis) -> None:
    stack = make(SLOW)
    apis.fault(action="create_server", seconds=4)
    process = stack.start("up", "--yes", "--skip-preview")
    apis.await_server("slow")
    process.kill()
    process.communicate(timeout=20)
    locked = stack.up()
    assert locked.status != 0
    assert "pulumi cancel" in locked.output
    stack.run("cancel", "--yes").succeeded()
    # The server was made, and nobody has told the state: the name is taken.
    taken = stack.up()
    assert taken.status != 0
    assert "uniqueness_error" in taken.output
    apis.await_server("slow", status="running").delete().wait_until_finished()
    stack.up().succeeded()
    stack.destroy().succeeded()


def test_an_interrupted_up_keeps_what_it_made(make: Callable[..., Stack], apis: Apis) -> None:
    stack = make(SLOW)
    apis.fault(action="create_server", seconds=4)
    process = stack.start("up", "--yes", "--skip-preview")
    apis.await_server("slow")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    assert [resource["type"] for resource in stack.resources()][-1] == "hcloud:index/server:Server"
    stack.up().succeeded()
    apis.await_server("slow", status="running")  # until then it is locked, and the plugin does not wait for that
    stack.destroy().succeeded()


def test_an_endpoint_that_is_not_this_machine_is_refused_before_anything_is_called(make: Callable[..., Stack]) -> None:
    stack = make(ONE_KEY)
    stack.configure({"hcloud:endpoint": None})
    up = stack.up()
    assert up.status != 0
    assert "hcloud:endpoint: not set, so the real service" in up.output


def test_pulumi_about_and_install_work(make: Callable[..., Stack]) -> None:
    stack = make("")
    about = stack.run("about", "--json")
    assert json.loads(about.output[about.output.index("{") :])["runtime"]["language"] == "python", about.output
    stack.run("install").succeeded()
