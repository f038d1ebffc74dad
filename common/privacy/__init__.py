"""Patient-level differential privacy: plan, noise, accounting, statement."""
