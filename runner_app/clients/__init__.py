"""Clients of the broker, one per dialect."""
