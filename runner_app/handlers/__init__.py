"""What a runner can do: commands answered in the runner itself, and tasks, which run as jobs of their own."""
