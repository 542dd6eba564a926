"""Fixtures of all scenarios of this role."""

from tests.support.molecule import address, root

__all__ = ["address", "root"]
