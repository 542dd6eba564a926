"""A stand-in for the Hetzner Cloud HTTP API, with machines behind it."""
