"""What the machines behind the API are told, in which order, and what becomes of their answers."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from lab.hetzner_api.app import Api
from lab.hetzner_api.driver import Rule, ServerSpec
from lab.hetzner_api.runner import Runner
from lab.hetzner_api.store import Store
from tests.infra.test_hetzner_api_resources import KEY
from tests.support.hetzner import unique
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.hetzner_api.driver import Operation

SSH = {"direction": "in", "protocol": "tcp", "port": "22", "source_ips": ["198.51.100.0/24"]}
ANY_TCP = {"direction": "out", "protocol": "tcp", "port": "any", "destination_ips": ["0.0.0.0/0", "::/0"]}


class Notebook:
    """A driver that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.before: Callable[[str], None] = lambda _name: None

    def _note(self, *words: Any) -> None:
        self.before(words[0])
        self.told.append(words)

    def create(self, server: ServerSpec) -> str:
        self._note("create", server)
        return f"10.99.0.{server.id % 250}"

    def delete(self, name: str) -> None:
        self._note("delete", name)

    def power(self, name: str, operation: Operation) -> None:
        self._note("power", name, operation)

    def filter(self, name: str, rules: tuple[Rule, ...] | None) -> None:
        self._note("filter", name, rules)

    def create_volume(self, volume_id: int, gigabytes: int, filesystem: str | None) -> None:
        self._note("create_volume", volume_id, gigabytes, filesystem)

    def resize_volume(self, volume_id: int, gigabytes: int) -> None:
        self._note("resize_volume", volume_id, gigabytes)

    def delete_volume(self, volume_id: int) -> None:
        self._note("delete_volume", volume_id)

    def attach(self, volume_id: int, server: str) -> str:
        self._note("attach", volume_id, server)
        return f"/dev/{server}"

    def detach(self, volume_id: int) -> None:
        self._note("detach", volume_id)


class Stand:
    """The stand-in in this process, with a notebook for machines."""

    def __init__(self, state: Path) -> None:
        self.driver = Notebook()
        self.store = Store(state)
        self.runner = Runner(self.store, self.driver, 0)
        port = free_port()
        app = Api(self.store, self.runner, "t").app()
        self._server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
        self._serving = threading.Thread(target=self._server.run)
        self._serving.start()
        url, headers = f"http://127.0.0.1:{port}/v1", {"Authorization": "Bearer t"}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)
        while not self._server.started:
            assert self._serving.is_alive()
            time.sleep(0.01)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._client.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def settle(self) -> None:
        deadline = time.monotonic() + 60
        while self.call("GET", "/actions?status=running")["actions"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def told(self, method: str, path: str, body: Any = None) -> list[tuple[Any, ...]]:
        """Make a call and return what the driver was told because of it."""
        self.settle()
        self.driver.told.clear()
        self.call(method, path, body)
        self.settle()
        return list(self.driver.told)

    def add(self, kind: str, **body: Any) -> int:
        """Make a resource and return its id."""
        name = {"name": unique(kind.replace("_", "-"))}
        answer = self.call("POST", f"/{kind}s", {**name, **body})
        self.settle()
        return int(answer[kind]["id"])

    def server(self, **body: Any) -> int:
        return self.add("server", server_type="cx23", image="debian-12", **body)

    def stop(self) -> None:
        self._client.close()
        self._server.should_exit = True
        self._serving.join()
        self.runner.stop()
        self.store.close()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path / "state")
    yield stand
    stand.stop()


def test_a_server_is_made_behind_its_firewalls(stand: Stand) -> None:
    key = stand.add("ssh_key", public_key=KEY.format("AAAAAAAA"))
    first, second = stand.add("firewall", rules=[SSH]), stand.add("firewall", rules=[ANY_TCP])
    stand.add("firewall", rules=[SSH])
    body = {"name": "web", "server_type": "cx23", "image": "debian-13", "user_data": "#!/bin/sh", "ssh_keys": [key]}
    told = stand.told("POST", "/servers", {**body, "firewalls": [{"firewall": first}, {"firewall": second}]})
    [server] = stand.call("GET", "/servers")["servers"]
    assert told == [
        ("create", ServerSpec(server["id"], "web", "debian-13", "#!/bin/sh", (KEY.format("AAAAAAAA"),))),
        (
            "filter",
            "web",
            (
                Rule("in", "tcp", "22", ("198.51.100.0/24",)),
                Rule("out", "tcp", None, ("0.0.0.0/0", "::/0")),
            ),
        ),
    ]
    assert server["public_net"]["ipv4"]["ip"] == f"10.99.0.{server['id'] % 250}"


def test_firewalls_reach_servers_whatever_changes(stand: Stand) -> None:
    server = stand.server(name="web", labels={"a": "b"})
    firewall = stand.add("firewall")
    target = {"type": "label_selector", "label_selector": {"selector": "a=b"}}
    rule = Rule("in", "tcp", "22", ("198.51.100.0/24",))
    path = f"/firewalls/{firewall}/actions"
    assert stand.told("POST", f"{path}/apply_to_resources", {"apply_to": [target]}) == [("filter", "web", ())]
    assert stand.told("POST", f"{path}/set_rules", {"rules": [SSH]}) == [("filter", "web", (rule,))]
    assert stand.told("PUT", f"/servers/{server}", {"labels": {}}) == [("filter", "web", None)]
    assert stand.told("PUT", f"/servers/{server}", {"labels": {"a": "b", "c": "d"}}) == [("filter", "web", (rule,))]
    assert stand.told("PUT", f"/servers/{server}", {"labels": {"a": "b"}}) == []
    assert stand.told("POST", f"{path}/remove_from_resources", {"remove_from": [target]}) == [("filter", "web", None)]


@pytest.mark.parametrize(
    ("call", "operation"),
    [("poweroff", "off"), ("shutdown", "shutdown"), ("reboot", "reboot"), ("reset", "reset")],
)
def test_power(stand: Stand, call: str, operation: str) -> None:
    server = stand.server(name="web")
    assert stand.told("POST", f"/servers/{server}/actions/{call}") == [("power", "web", operation)]


def test_power_on_is_for_a_server_that_is_off(stand: Stand) -> None:
    server = stand.server(name="web", start_after_create=False)
    assert stand.told("POST", f"/servers/{server}/actions/poweron") == [("power", "web", "on")]
    assert stand.told("POST", f"/servers/{server}/actions/poweron") == []


def test_a_renamed_server_keeps_its_machine(stand: Stand) -> None:
    server = stand.server(name="web")
    stand.call("PUT", f"/servers/{server}", {"name": "old"})
    assert stand.told("POST", f"/servers/{server}/actions/reset") == [("power", "web", "reset")]
    body = {"name": "web", "server_type": "cx23", "image": "debian-12"}
    assert stand.told("POST", "/servers", body)[0][1].name == "web-2"
    assert stand.told("DELETE", f"/servers/{server}") == [("delete", "web")]


def test_volumes(stand: Stand) -> None:
    server, volume = stand.server(name="web"), stand.add("volume", size=10, location="fsn1", format="ext4")
    assert stand.driver.told[-1] == ("create_volume", volume, 10, "ext4")
    path = f"/volumes/{volume}/actions"
    assert stand.told("POST", f"{path}/attach", {"server": server}) == [("attach", volume, "web")]
    assert stand.call("GET", f"/volumes/{volume}")["volume"]["linux_device"] == "/dev/web"
    assert stand.told("POST", f"{path}/resize", {"size": 20}) == [("resize_volume", volume, 20)]
    assert stand.told("POST", f"{path}/detach") == [("detach", volume)]
    assert stand.told("DELETE", f"/volumes/{volume}") == [("delete_volume", volume)]


def test_volumes_come_off_before_a_server_goes_or_is_rebuilt(stand: Stand) -> None:
    volume = stand.add("volume", size=10, location="fsn1")
    server = stand.server(name="web", volumes=[volume], user_data="one")
    told = stand.told("POST", f"/servers/{server}/actions/rebuild", {"image": "debian-13"})
    assert told == [
        ("detach", volume),
        ("delete", "web"),
        ("create", ServerSpec(server, "web", "debian-13", "one", ())),
        ("filter", "web", None),
        ("attach", volume, "web"),
    ]
    assert stand.told("DELETE", f"/servers/{server}") == [("detach", volume), ("delete", "web")]


def test_what_a_machine_cannot_do_fails_the_action(stand: Stand) -> None:
    server = stand.server(name="web")

    def refuse(_what: str) -> None:
        raise OSError("no such machine")

    stand.driver.before = refuse
    action = stand.call("POST", f"/servers/{server}/actions/poweroff")["action"]
    stand.settle()
    action = stand.call("GET", f"/actions/{action['id']}")["action"]
    assert (action["status"], action["error"]) == ("error", {"code": "action_failed", "message": "no such machine"})
    assert stand.call("GET", f"/servers/{server}")["server"]["status"] == "running"


def test_a_crash_after_the_machines_part_has_it_done_again(stand: Stand) -> None:
    stand.server(name="web")
    with stand.store.transaction() as records:
        [create, _start] = records.all("action")
        [server] = records.all("server")
        records.save("action", {**create, "status": "running"})
        records.save("server", {**server, "status": "off", "is_made": False})
    stand.driver.told.clear()
    stand.runner.look()
    stand.settle()
    assert [words[0] for words in stand.driver.told] == ["create", "filter"]
    [found] = stand.call("GET", "/servers")["servers"]
    assert (found["status"], found["id"]) == ("running", server["id"])


def test_one_server_does_one_thing_at_a_time_and_several_do_many(stand: Stand) -> None:
    both, alone = threading.Barrier(2, timeout=60), threading.Lock()

    def together(what: str) -> None:
        if what == "create":
            both.wait()

    def apart(_what: str) -> None:
        assert alone.acquire(blocking=False)
        time.sleep(0.05)
        alone.release()

    stand.driver.before = together
    for name in ("a", "b"):
        stand.call("POST", "/servers", {"name": name, "server_type": "cx23", "image": "debian-12"})
    stand.settle()
    stand.driver.before = apart
    [server, _] = stand.call("GET", "/servers")["servers"]
    targets = [{"type": "server", "server": {"id": server["id"]}}]
    for number in range(3):
        stand.call("POST", "/firewalls", {"name": f"f{number}", "apply_to": targets})
    stand.settle()
    errors = [action["error"] for action in stand.call("GET", "/actions")["actions"]]
    assert errors == [None] * len(errors)
