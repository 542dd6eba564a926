"""Who a runner is to a broker."""

import json
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks; sent with every call of the jobs dialect, and when a line of the hub's is opened."""

    token: str = field(repr=False)
    worker_id: str
    capabilities: tuple[str, ...]
    version: str

    def headers(self) -> dict[str, str]:
        """Return the headers that say it."""
        return {
            "X-Worker-Token": self.token,
            "X-Worker-Id": self.worker_id,
            "X-Worker-Caps": json.dumps(self.capabilities),
            "X-Runner-Version": self.version,
        }
