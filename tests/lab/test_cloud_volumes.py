"""The lab's cloud volumes are disks to a server, are there after each boot, and keep their data from host to host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import cgroups, loops, mounts
from lab.errors import CommandFailedError, LabError
from tests.support.cloud import BOOT_SECONDS, TestCloud

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATH = "/dev/disk/by-id/scsi-0HC_Volume_7"
# A unit, for systemd leaves out a container's disks in fstab (systemd-fstab-generator).
_UNIT = f"[Mount]\nWhat={_PATH}\nWhere=/mnt\n[Install]\nWantedBy=local-fs.target\n"


@pytest.fixture(scope="module")
def servers() -> Iterator[TestCloud]:
    cloud = TestCloud("test-disks")
    cloud.create(cloud.spec("one", 1), cloud.spec("two", 2, "debian-13"))
    yield cloud
    cloud.down()


@pytest.fixture
def cloud(servers: TestCloud) -> Iterator[TestCloud]:
    """A volume that no server has."""
    servers.driver.create_volume(7, 1, "ext4")
    yield servers
    for name in ("one", "two"):
        servers.machine(name).ssh("sudo systemctl -q disable --now mnt.mount 2> /dev/null; sudo umount -q /mnt || true")
    servers.driver.delete_volume(7)


def test_data_goes_with_the_volume(cloud: TestCloud) -> None:
    for name in ("one", "two"):
        assert cloud.driver.attach(7, name) == _PATH
        assert cloud.driver.attach(7, name) == _PATH
        machine = cloud.machine(name)
        assert machine.ssh(f"sudo blkid -o value -s TYPE {_PATH}").strip() == "ext4"
        machine.ssh(f"sudo mount {_PATH} /mnt && echo {name} | sudo tee -a /mnt/seen && sudo umount /mnt")
        cloud.driver.detach(7)
        with pytest.raises(CommandFailedError):
            machine.ssh(f"ls {_PATH}")
        assert not loops.showing(cloud.lab.folder)
    cloud.driver.detach(7)
    cloud.driver.attach(7, "one")
    assert cloud.machine("one").ssh(f"sudo mount {_PATH} /mnt && cat /mnt/seen").split() == ["one", "two"]


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_boot_finds_and_mounts_it(cloud: TestCloud, name: str) -> None:
    machine = cloud.machine(name)
    cloud.driver.attach(7, name)
    machine.ssh(
        f"printf %s '{_UNIT}' | sudo tee /etc/systemd/system/mnt.mount; sudo systemctl -q enable --now mnt.mount"
    )
    for operation in ("reboot", "reset"):
        machine.ssh(f"echo {operation} | sudo tee -a /mnt/kept; sync")
        cloud.driver.power(name, operation)
        machine.wait(BOOT_SECONDS)
        assert operation in machine.ssh("findmnt /mnt > /dev/null && cat /mnt/kept")
        assert machine.ssh("systemctl is-system-running").strip() == "running"


def test_a_reboot_of_the_machine_keeps_it(cloud: TestCloud) -> None:
    """It ends the lab's processes, mounts and loop devices, and keeps its folder."""
    cloud.driver.attach(7, "one")
    cloud.machine("one").ssh(f"sudo mount {_PATH} /mnt; sudo touch /mnt/kept; sudo umount /mnt; sync")
    cgroups.kill(cloud.lab.cgroup)
    mounts.unmount_below(cloud.lab.folder)
    loops.detach(cloud.lab.folder)
    cloud.create(cloud.spec("one", 1), cloud.spec("two", 2, "debian-13"))
    assert "kept" in cloud.machine("one").ssh(f"sudo mount {_PATH} /mnt; ls /mnt")


def test_it_grows_under_a_file_system_that_is_mounted(cloud: TestCloud) -> None:
    cloud.driver.attach(7, "one")
    machine = cloud.machine("one")
    machine.ssh(f"sudo mount {_PATH} /mnt; sudo touch /mnt/kept")
    cloud.driver.resize_volume(7, 2)
    assert int(machine.ssh(f"sudo blockdev --getsize64 {_PATH}")) == 2 << 30
    assert "kept" in machine.ssh(f"sudo resize2fs {_PATH} 2>&1; df -BM --output=size /mnt | tail -1; ls /mnt")
    with pytest.raises(LabError, match="cannot be made smaller"):
        cloud.driver.resize_volume(7, 1)


def test_two_servers_never_have_it_mounted_at_once(cloud: TestCloud) -> None:
    cloud.driver.attach(7, "one")
    cloud.machine("one").ssh(f"sudo mount {_PATH} /mnt")
    with pytest.raises(LabError, match="is attached to one"):
        cloud.driver.attach(7, "two")
    cloud.driver.detach(7)
    with pytest.raises(LabError, match="still mounted"):
        cloud.driver.attach(7, "two")
    cloud.machine("one").ssh("sudo umount /mnt")
    cloud.driver.attach(7, "two")


def test_a_server_that_goes_gives_it_back(cloud: TestCloud) -> None:
    cloud.create(cloud.spec("three", 3))
    cloud.driver.attach(7, "three")
    cloud.machine("three").ssh(f"sudo mount {_PATH} /mnt; sudo touch /mnt/kept; sync")
    cloud.driver.delete("three")
    cloud.driver.attach(7, "one")
    assert "kept" in cloud.machine("one").ssh(f"sudo mount {_PATH} /mnt; ls /mnt")


def test_it_can_be_raw(cloud: TestCloud) -> None:
    cloud.driver.create_volume(8, 1, None)
    cloud.driver.attach(8, "one")
    kind = "sudo blkid -o value -s TYPE /dev/disk/by-id/scsi-0HC_Volume_8 || true"
    assert cloud.machine("one").ssh(kind) == ""
    cloud.driver.delete_volume(8)
    cloud.driver.delete_volume(8)
    with pytest.raises(LabError, match="no volume 8"):
        cloud.driver.attach(8, "one")
    with pytest.raises(LabError, match="file system 'zfs'"):
        cloud.driver.create_volume(8, 1, "zfs")


def test_down_detaches_what_is_mounted(cloud: TestCloud) -> None:
    """Last: it takes the module's lab away."""
    cloud.driver.attach(7, "one")
    cloud.machine("one").ssh(f"sudo mount {_PATH} /mnt")
    assert loops.showing(cloud.lab.folder)
    cloud.down()
    assert not loops.showing(cloud.lab.folder)
    assert not cloud.lab.folder.exists()
    cloud.lab.prepare()
    cloud.create(cloud.spec("one", 1), cloud.spec("two", 2, "debian-13"))
