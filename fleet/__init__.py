"""The command line over a fleet."""
