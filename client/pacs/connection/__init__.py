"""Connections to the PACS: associations, TLS, web sessions, and why one fails.

Imported from here: association, caller_limits, handshake, multipart, object_stream, sockets,
    storage_classes, web_session.
May import: client.site, client.transport, client.transport.authorization, common.
"""
