"""The stand-in for the hcloud plugin: the same calls to the same API, through Hetzner's own Python client."""
