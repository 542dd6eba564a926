"""Fixtures of all scenarios of this role."""

from tests.support.molecule import root

__all__ = ["root"]
