"""A listener's door and connections: what a caller may take before it has shown a key.

Imported from here: accepting, asgi, connection, connection_limits, replays.
May import: common.
"""
