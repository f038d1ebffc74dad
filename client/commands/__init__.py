"""What the commands of `wardround-site` do; client/cli.py says what they are called."""
