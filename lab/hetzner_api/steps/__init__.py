"""What actions do, by command."""

from __future__ import annotations

from lab.hetzner_api.steps import others, servers, volumes

STEPS = {**others.STEPS, **servers.STEPS, **volumes.STEPS}
