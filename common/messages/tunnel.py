"""The coordinator's TLS inside of somebody else's: what is asked before it begins.

Where a load balancer ends TLS in front of the coordinator, a site asks over that TLS for an HTTP
upgrade, and begins TLS 1.3 with the coordinator's own authority on the same connection. So the
balancer sees sizes and times, and nothing of what travels.
"""

from __future__ import annotations

TUNNEL_PATH = "/wardround"
#: The protocol of Upgrade (RFC 9110, 7.8).
TUNNEL_PROTOCOL = "wardround-tls"
