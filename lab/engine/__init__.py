"""The real Pulumi engine in the lab: its private home, its plugins, and a language host where it brings none."""

from lab.engine.engine import Engine

__all__ = ["Engine"]
