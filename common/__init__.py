"""What coordinator and sites must agree on, and nothing else."""
