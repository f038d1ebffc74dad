"""The coordinator: rounds, aggregation, runs."""
