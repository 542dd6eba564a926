"""Fixtures of all scenarios of this role."""

from tests.support.molecule import broker, root

__all__ = ["broker", "root"]
