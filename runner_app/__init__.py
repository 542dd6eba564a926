"""The runner: takes jobs from a broker and runs each in a unit of its own."""

__version__ = "0.1.0"
