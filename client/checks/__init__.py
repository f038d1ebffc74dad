"""What `wardround-site doctor` looks at, one file a place: here, the way there, the records."""
