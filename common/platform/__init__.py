"""What any program of ours needs: errors, durable files, logs, health, bounded reading.

Imported from here: bounded_json, command_line, durable, errors, file_lock, finding, freed_memory,
    hash_chain, health, logs, page, release, sqlite_file, systemd, token_bucket.
May import: nothing.
"""
