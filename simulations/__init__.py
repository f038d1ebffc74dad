"""Many sites on one machine: the same rounds, tasks, privacy and aggregation as between hospitals."""
