"""Two headers of ours on Flower's pull requests: wait for a message, and say it came.

A pull may carry WAIT_HEADER: so many seconds the coordinator holds an answer back that would
be empty. And it may carry RECEIVED_HEADER with the value of the last DELIVERY_HEADER whose
message is safe at the receiver ("" for none): any later message is sent again rather than
lost when a connection breaks in between. Whoever sends it must know a message by its name
and not do its work twice. Without the headers a pull is Flower's own.
"""

from __future__ import annotations

WAIT_HEADER = "wardround-wait-seconds"
RECEIVED_HEADER = "wardround-received"
DELIVERY_HEADER = "wardround-delivery"

#: Longer is not waited: signed headers are old after five minutes, and proxies hang up.
LONGEST_WAIT_SECONDS = 20.0
