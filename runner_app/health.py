"""How this machine is: what an agent of the hub dialect tells of it."""

import shutil
from pathlib import Path

_STAT, _MEMINFO = Path("/proc/stat"), Path("/proc/meminfo")
_IDLE = (3, 4)  # idle and iowait, in the order of /proc/stat


class Health:
    """Percentages of the processors (since the last look, at first since boot), of the memory and of a disk."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._busy, self._ticks = 0, 0

    def __call__(self) -> dict[str, float]:
        """Look, and return ``cpu``, ``memory`` and ``disk``."""
        disk = shutil.disk_usage(self._disk)
        return {"cpu": self._cpu(), "memory": _memory(), "disk": _percent(disk.used, disk.used + disk.free)}

    def _cpu(self) -> float:
        ticks = [int(number) for number in _STAT.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
        total = sum(ticks)
        busy = total - sum(ticks[place] for place in _IDLE)
        share = _percent(busy - self._busy, total - self._ticks)
        self._busy, self._ticks = busy, total
        return share


def _memory() -> float:
    lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    facts = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return _percent(facts["MemTotal"] - facts["MemAvailable"], facts["MemTotal"])


def _percent(part: float, whole: float) -> float:
    return round(100 * min(1.0, max(0.0, part / whole)), 1) if whole > 0 else 0.0
