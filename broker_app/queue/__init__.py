"""The queue: what a job is, what may happen to it, and where it is kept."""
