"""A stand-in of the Tailscale API (https://tailscale.com/api), for Pulumi's provider and the kit's own calls.

    python -m lab.tailscale_api --port PORT --state FILE (--lab NAME | --memory)

On this machine's loopback only. It has the calls that the kit makes: OAuth tokens, keys, devices, the policy file, DNS
preferences. Any other answers 501 with its name, and so does what a policy holds that the lab cannot enforce. Behind it
is a lab's headscale, or for tests without machines a tailnet in memory, whose nodes join by `POST /_lab/join`.
"""

from __future__ import annotations

from lab.tailscale_api.state import Credentials, credentials

__all__ = ["Credentials", "credentials"]
