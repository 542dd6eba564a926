"""Loop devices: files of a lab as block devices, found in the kernel's table as mounts are."""

from __future__ import annotations

from pathlib import Path

from lab.errors import CommandFailedError, LabError
from lab.process import run, wait_until

_RELEASE_SECONDS = 10.0


def attach(file: Path) -> Path:
    """Return the block device that shows a file, made where there is none.

    Raises:
        LabError: a host still has the file mounted from a device that was detached before.
    """
    wait_for_release(file)
    if shown := showing(file):
        return shown[0]
    return Path(run(["losetup", "--find", "--show", str(file)]).strip())


def detach(file: Path) -> None:
    """Take away the devices that show a file, or all below a folder; one that is mounted goes when that ends."""
    for device in showing(file):
        try:
            run(["losetup", "--detach", str(device)])
        except CommandFailedError:  # it went meanwhile
            if device in showing(file):
                raise


def grow(file: Path) -> None:
    """Have the device of a file notice that the file is larger now."""
    for device in showing(file):
        run(["losetup", "--set-capacity", str(device)])


def wait_for_release(file: Path) -> None:
    """Return when no device is left that was detached while it was mounted.

    Raises:
        LabError: one was still mounted after 10 s.
    """
    try:
        wait_until(lambda: None if _leaving(file) else True, what=str(file), timeout=_RELEASE_SECONDS)
    except LabError:
        raise LabError(f"{file} is detached but still mounted; unmount it, or power off the host that has it") from None


def showing(file: Path) -> list[Path]:
    """Return the devices that show a file, or any file below a folder."""
    return [device for device, shown in _table().items() if file in (shown, *shown.parents)]


def _leaving(file: Path) -> list[Path]:
    return [device for device in showing(file) if _read(device, "autoclear") == "1"]


def _table() -> dict[Path, Path]:
    """Return what each device of the machine shows; the file may have been removed."""
    devices = [Path("/dev") / block.name for block in Path("/sys/block").glob("loop*")]
    files = {device: _read(device, "backing_file").removesuffix(" (deleted)") for device in devices}
    return {device: Path(file) for device, file in files.items() if file}


def _read(device: Path, attribute: str) -> str:
    try:
        return (Path("/sys/block") / device.name / "loop" / attribute).read_text().strip()
    except OSError:  # it shows nothing
        return ""
