"""The broker: one durable job queue behind HTTP."""

__version__ = "0.1.0"
