"""HTTP connections of a listener, and bounds on callers that have shown no key.

Imported from here: accepting, asgi, connection, connection_limits, replays, tunnel.
May import: common.
"""
