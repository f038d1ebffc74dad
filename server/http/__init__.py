"""A listener's door and connections: what a caller may take before it has shown a key.

Imported from here: asgi, connection, door, door_places.
May import: common.
"""
