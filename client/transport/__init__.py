"""Transport to the coordinator: joining, calls, and messages on their way.

Imported from here: connecting, connection, coordinator, fleet_client, inbox, joining, listening,
    membership, moving, outbox, proxy, quarantine.
May import: client.site, common.
"""
