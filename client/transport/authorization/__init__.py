"""Access tokens by OAuth 2.0, for systems of the hospital that want one.

Imported from here: access_token, bearer.
May import: client.site, client.transport, common.
"""
