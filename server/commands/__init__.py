"""What the coordinator's commands do; each loads only what it needs."""
