"""What every program needs: errors, durable files, logs, health, bounded reading.

Imported from here: awake_clock, bounded_json, code_hash, command_line, doctor_finding,
    durable_files, errors, file_lock, freed_memory, hash_chain, health, html_page, logs,
    program_start, sqlite_file, systemd, token_bucket.
May import: nothing.
"""
