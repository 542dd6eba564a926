"""What the program's hooks do to a tailnet's devices, over the stand-in of Tailscale's API."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pulumi import ResourceHook, ResourceHookArgs

from infra import devices, policy
from infra.config import read
from infra.devices import Devices, JoinKey
from infra.errors import InfraError, ServiceError
from infra.hetzner import Hetzner
from infra.leftovers import Leftovers
from infra.settings import HetznerAccess, TailscaleAccess
from infra.tailscale import Tailscale
from tests.support.hetzner import Hetzner as StandIn
from tests.support.hetzner import create_server, start_server, unique
from tests.support.infra import values
from tests.support.tailscale_api import Client, serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence
    from pathlib import Path

TAILNET = read(values(tailnet__admins=[]), {}).tailnet


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Client]:
    with serve(tmp_path / "state.json", "--memory") as client:
        yield client


@pytest.fixture
def servers(hetzner: StandIn) -> Hetzner:
    return Hetzner(HetznerAccess(url=hetzner.endpoint, token=hetzner.token), sleep=lambda _: time.sleep(0.05))


@pytest.fixture
def leftovers(servers: Hetzner) -> Leftovers:
    return Leftovers(servers)


@pytest.fixture
def ready(api: Client) -> Client:
    assert api.set_policy(policy.render(TAILNET)).status_code == 200
    return api


def tailscale(api: Client) -> Tailscale:
    return Tailscale(
        TailscaleAccess(
            url=api.url,
            tailnet="-",
            api_key=None,
            client_id=api.known.client_id,
            client_secret=api.known.client_secret,
        )
    )


def join(api: Client, name: str, tag: str = "tag:runner", *, connected: bool = False) -> None:
    api.join(api.key(tag)["key"], name).raise_for_status()
    if not connected:
        api.post(f"{api.url}/_lab/leave", json={"hostname": name}).raise_for_status()


def a_key(key_id: str = "1", *, created: timedelta = timedelta(0)) -> JoinKey:
    """Return a key that what joins now may have joined with, unless its time is another."""
    made = datetime.now(UTC).replace(microsecond=0) + created
    return JoinKey(key_id, made - timedelta(minutes=1), made + timedelta(minutes=1))


EARLIER, LATER = timedelta(minutes=-2), timedelta(minutes=2)


def test_the_device_goes_before_its_key_and_nobody_elses(ready: Client) -> None:
    join(ready, "agents-1", connected=True)
    join(ready, "agents-10")
    join(ready, "agents-1", "tag:admin")
    Devices(tailscale(ready)).before_key_goes("agents-1", a_key())
    assert sorted(ready.devices()) == ["agents-1-1", "agents-10"]
    assert ready.devices()["agents-1-1"]["tags"] == ["tag:admin"]


def test_devices_that_got_a_number_go_too(ready: Client) -> None:
    join(ready, "agents-1")
    join(ready, "agents-1")
    assert sorted(ready.devices()) == ["agents-1", "agents-1-1"]
    Devices(tailscale(ready)).before_key_goes("agents-1", a_key())
    assert ready.devices() == {}


@pytest.mark.parametrize("created", [EARLIER, LATER])
def test_a_device_of_another_time_than_the_key_s_is_another_stack_s(ready: Client, created: timedelta) -> None:
    join(ready, "agents-1")
    Devices(tailscale(ready)).before_key_goes("agents-1", a_key(created=created))
    assert list(ready.devices()) == ["agents-1"]


def test_what_is_left_of_a_server_goes_before_another_is_made(ready: Client) -> None:
    join(ready, "agents-1")
    watched = Devices(tailscale(ready))
    watched.note_key("agents-1", a_key("former"))
    watched.note_key("agents-1", a_key(ready.key("tag:runner")["id"], created=LATER))
    watched.before_create("agents-1")
    assert ready.devices() == {}


def test_what_joined_with_no_key_that_is_known_stays_though_nobody_is_there(ready: Client) -> None:
    join(ready, "agents-1")
    (device,) = ready.devices().values()
    watched = Devices(tailscale(ready))
    watched.note_key("agents-1", a_key(ready.key("tag:runner")["id"], created=LATER))
    told = rf"machine agents-1 \({device['id']}\) is .* not this stack's; .* remove it there if its server is gone"
    with pytest.raises(InfraError, match=f"^agents-1: {told}"):
        watched.before_create("agents-1")
    assert list(ready.devices()) == ["agents-1"]


def test_a_machine_that_is_at_work_is_not_taken_for_a_leftover(ready: Client) -> None:
    join(ready, "agents-1", connected=True)
    watched = Devices(tailscale(ready))
    watched.note_key("agents-1", a_key())
    with pytest.raises(InfraError, match=r"agents-1: .* not this stack's; choose another name"):
        watched.before_create("agents-1")
    assert list(ready.devices()) == ["agents-1"]


def test_one_whose_server_this_run_deleted_may_still_seem_connected(ready: Client) -> None:
    join(ready, "agents-1", connected=True)
    watched = Devices(tailscale(ready))
    watched.note_key("agents-1", a_key())
    watched.note_key("agents-1", a_key(ready.key("tag:runner")["id"]))
    watched.after_delete("agents-1")
    watched.before_create("agents-1")
    assert ready.devices() == {}


def test_a_server_that_could_not_join_is_not_made(ready: Client) -> None:
    watched = Devices(tailscale(ready))
    spent, revoked = ready.key("tag:runner"), ready.key("tag:runner")
    ready.join(spent["key"], "agents-2").raise_for_status()
    ready.delete(f"tailnet/-/keys/{revoked['id']}").raise_for_status()
    for key in (spent, revoked, {"id": "unknown"}):
        watched.note_key("agents-1", a_key(key["id"]))
        with pytest.raises(InfraError, match=r"raise fleet:nodes\.agents-1\.generation by one"):
            watched.before_create("agents-1")


def test_a_device_is_renamed_with_its_server(ready: Client) -> None:
    join(ready, "agents-1", connected=True)
    watched = Devices(tailscale(ready))
    watched.before_rename("agents-1", "builder-1")
    assert list(ready.devices()) == ["builder-1"]
    # As after a crash between this and the server's own renaming.
    watched.before_rename("agents-1", "builder-1")
    assert list(ready.devices()) == ["builder-1"]
    # A new node may have the old name: the renamed one still calls itself by it.
    watched.before_key_goes("agents-1", a_key())
    assert list(ready.devices()) == ["builder-1"]


def test_a_name_that_is_taken_is_not_taken_again(ready: Client) -> None:
    join(ready, "agents-1")
    join(ready, "builder-1")
    with pytest.raises(InfraError, match=r"builder-1: .* already"):
        Devices(tailscale(ready)).before_rename("agents-1", "builder-1")
    assert sorted(ready.devices()) == ["agents-1", "builder-1"]


def args(name: str, old: str = "", key: str = "1", id_: str = "1") -> ResourceHookArgs:
    inputs = {"name": name, "labels": {"stack": "lab", "join-key": key}}
    times = {"createdAt": str(a_key().created), "expiresAt": str(a_key().expires)}
    return ResourceHookArgs("urn", id_, name, "type", inputs, {"name": old or name}, old_outputs=times)


def call(hooks: Sequence[object] | None, given: ResourceHookArgs) -> None:
    (hook,) = hooks or []
    assert isinstance(hook, ResourceHook)
    if done := hook(given):
        asyncio.run(_until(done))


async def _until(done: Awaitable[None]) -> None:
    await done


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an engine to register hooks with."""
    monkeypatch.setattr("pulumi.resource_hooks.register_resource_hook", lambda _: None)


@pytest.mark.usefixtures("registered")
def test_the_engine_calls_with_the_servers_names(ready: Client, leftovers: Leftovers, servers: Hetzner) -> None:
    join(ready, "agents-1", connected=True)
    watched = Devices(tailscale(ready))
    hooks = devices.hooks(watched, leftovers, servers)
    call(hooks.before_update, args("agents-1"))
    assert list(ready.devices()) == ["agents-1"]
    call(hooks.before_update, args("builder-1", "agents-1"))
    assert list(ready.devices()) == ["builder-1"]
    call(devices.key_hooks(tailscale(ready), watched, leftovers).before_delete, args("builder-1-key"))
    assert ready.devices() == {}
    join(ready, "agents-1", connected=True)
    with pytest.raises(InfraError):
        call(hooks.before_create, args("agents-1"))


@pytest.mark.usefixtures("registered")
def test_a_server_that_an_interrupted_run_made_goes_with_its_device(
    ready: Client, leftovers: Leftovers, servers: Hetzner, cloud: Any
) -> None:
    name = unique("agents")
    create_server(cloud, name=name, labels={"stack": "lab", "join-key": "old"})
    join(ready, name, connected=True)
    watched = Devices(tailscale(ready))
    hooks = devices.hooks(watched, leftovers, servers)
    key_hooks = devices.key_hooks(tailscale(ready), watched, leftovers)
    with pytest.raises(InfraError, match="not this stack's"):
        call(hooks.before_create, args(name, key="new"))
    assert cloud.servers.get_by_name(name)
    # This run replaces the key that it joined with.
    watched.note_key(name, a_key("old"))
    call(key_hooks.after_delete, args("key", id_="old"))
    watched.note_key(name, a_key(ready.key("tag:runner")["id"]))
    call(hooks.before_create, args(name, key="new"))
    assert cloud.servers.get_by_name(name) is None
    assert ready.devices() == {}


@pytest.mark.parametrize("labels", [{}, {"stack": "lab"}, {"stack": "other", "join-key": "1"}, {"join-key": "1"}])
def test_a_server_that_this_stack_did_not_make_stays(leftovers: Leftovers, cloud: Any, labels: dict[str, str]) -> None:
    name = unique("agents")
    create_server(cloud, name=name, labels=labels)
    assert not leftovers.remove(name, {"stack": "lab", "join-key": "1"})
    assert cloud.servers.get_by_name(name)


def test_a_server_of_yesterday_stays(leftovers: Leftovers, cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name, labels = unique("agents"), {"stack": "lab", "join-key": "1"}
    create_server(cloud, name=name, labels=labels)
    monkeypatch.setattr("infra.leftovers._LONGEST", timedelta(0))
    assert not leftovers.remove(name, labels)
    monkeypatch.undo()
    assert leftovers.remove(name, labels)


def test_a_server_that_is_still_being_made_is_waited_for(leftovers: Leftovers, hetzner: StandIn, cloud: Any) -> None:
    name, labels = unique("agents"), {"stack": "lab", "join-key": "1"}
    hetzner.fault(action="create_server", seconds=2)
    start_server(cloud, name=name, labels=labels)
    assert leftovers.remove(name, labels)
    assert cloud.servers.get_by_name(name) is None


def test_a_protected_server_is_left_and_the_refusal_told(leftovers: Leftovers, cloud: Any) -> None:
    name, labels = unique("agents"), {"stack": "lab", "join-key": "1"}
    server = create_server(cloud, name=name, labels=labels)
    server.change_protection(delete=True, rebuild=True).wait_until_finished()
    with pytest.raises(InfraError, match="in no state and protected; delete it at Hetzner"):
        leftovers.remove(name, labels)
    assert cloud.servers.get_by_name(name)


@pytest.mark.usefixtures("registered")
def test_a_key_that_was_never_whole_goes_without_a_look_at_devices(ready: Client, leftovers: Leftovers) -> None:
    join(ready, "agents-1")
    (hook,) = devices.key_hooks(tailscale(ready), Devices(tailscale(ready)), leftovers).before_delete or []
    call([hook], ResourceHookArgs("urn", "1", "agents-1-key", "type", old_inputs={}, old_outputs={"key": "secret"}))
    assert list(ready.devices()) == ["agents-1"]


@pytest.mark.usefixtures("registered")
def test_a_server_of_the_state_is_deleted_once_nothing_is_being_done_to_it(
    ready: Client, leftovers: Leftovers, servers: Hetzner, hetzner: StandIn, cloud: Any
) -> None:
    hooks = devices.hooks(Devices(tailscale(ready)), leftovers, servers)
    hetzner.fault(action="create_server", seconds=2)
    server = start_server(cloud, name=unique("agents")).server
    call(hooks.before_delete, args(server.name, id_=str(server.id)))
    server.delete().wait_until_finished()
    call(hooks.before_delete, args(server.name, id_=str(server.id)))


@pytest.mark.usefixtures("registered")
def test_a_policy_of_the_users_own_is_not_written_over(api: Client) -> None:
    hooks = devices.policy_hooks(tailscale(api), policy.render(TAILNET))
    call(hooks.before_create, args("policy"))
    api.set_policy(policy.render(TAILNET)).raise_for_status()
    call(hooks.before_create, args("policy"))
    api.set_policy('{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:22"]}]}').raise_for_status()
    with pytest.raises(InfraError, match=r"set tailnet:policy to print .* `pulumi import"):
        call(hooks.before_create, args("policy"))


@pytest.mark.usefixtures("registered")
def test_no_key_is_made_whose_tag_nobody_owns(api: Client, leftovers: Leftovers) -> None:
    hooks = devices.key_hooks(tailscale(api), Devices(tailscale(api)), leftovers)
    with pytest.raises(InfraError, match=r"has no tag:admin, tagOwners has no tag:broker, .* has no tag:runner; merge"):
        call(hooks.before_create, args("agents-1-key"))
    api.set_policy(policy.render(TAILNET)).raise_for_status()
    call(hooks.before_create, args("agents-1-key"))


def test_wrong_credentials_are_named(api: Client) -> None:
    access = TailscaleAccess(url=api.url, tailnet="-", api_key="tskey-api-wrong", client_id=None, client_secret=None)
    with pytest.raises(ServiceError, match=r"401 .* check the token and its scopes"):
        Tailscale(access).devices()
