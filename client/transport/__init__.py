"""The way to the coordinator: joining it, calling it, and what is on its way from and to it.

Imported from here: connection, coordinator, fleet_client, inbox, joining, outbox, proxy,
    quarantine.
May import: client.site, common.
"""
