"""What a runner can do: commands answered in the runner itself, and ``exec``, which runs as a job of its own."""
