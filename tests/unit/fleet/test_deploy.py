"""Reading Ansible's output."""

from __future__ import annotations

from fleet.deploy import Progress

_OUTPUT = """
PLAY [Base] ***
TASK [Gathering Facts] ***
ok: [a]
TASK [base : Install packages] ***
changed: [a]
PLAY [Broker] ***
TASK [broker : Preflight] ***
fatal: [a]: FAILED! => {"msg": "no"}
PLAY RECAP ***
a   : ok=3    changed=1    unreachable=0    failed=1
"""


def test_plays_tasks_changes_and_trouble_are_seen() -> None:
    plays: list[str] = []
    tasks: list[str] = []
    progress = Progress(lambda name, _: plays.append(name), tasks.append)
    for line in _OUTPUT.splitlines():
        progress.read(line)
    assert plays == ["Base", "Broker"]
    assert tasks == ["Gathering Facts", "base : Install packages", "broker : Preflight"]
    assert progress.report.changed == {"a": 1}
    assert progress.trouble[0].startswith("fatal: [a]")
