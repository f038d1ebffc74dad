"""Commands of a site about its place in a federation: leaving, a new key, a coordinator that moved.

Imported from here: leave, move, rotate_key.
May import: client.site, client.transport, common.
"""
