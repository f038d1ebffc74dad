"""HTTP headers that Wardround adds to Flower's pulls.

A pull may carry WAIT_HEADER: so many seconds the coordinator holds an answer back that would
be empty. And it may carry RECEIVED_HEADER with the value of the last DELIVERY_HEADER whose
message is safe at the receiver ("" for none): any later message is sent again rather than
lost when a connection breaks in between. Whoever sends it must know a message by its name
and not do its work twice. Without the headers a pull is Flower's own.

A site whose pull waits is here: an answer with HERE_HEADER says that the coordinator takes the wait
for a heartbeat, so that none is to be sent beside it.

A run that asks who is online hears by FETCHED_HEADER how much of its request each site has fetched.

A run is on the service's machine: of a large object it is given FILE_MARK and the path of the
service's file instead of the content, and takes a second name of that file.

A run's push carries LARGEST_ANSWER_HEADER and ANSWER_SECONDS_HEADER: the bytes that an answer may
have, and how long one is taken. A site's push carries ANSWER_BYTES_HEADER: what it will send.
"""

from __future__ import annotations

from collections.abc import Mapping

WAIT_HEADER = "wardround-wait-seconds"
RECEIVED_HEADER = "wardround-received"
DELIVERY_HEADER = "wardround-delivery"
LARGEST_ANSWER_HEADER = "wardround-largest-answer"
ANSWER_SECONDS_HEADER = "wardround-answer-seconds"
ANSWER_BYTES_HEADER = "wardround-answer-bytes"
HERE_HEADER = "wardround-here"
FETCHED_HEADER = "wardround-fetched"
#: No object's content begins so.
FILE_MARK = b"\0file:"

#: Longer is not waited: signed headers are old after five minutes, and proxies hang up.
LONGEST_WAIT_SECONDS = 20.0

#: A site that is silent for twice as long counts as offline; Flower takes no less.
HEARTBEAT_SECONDS = 10.0


def fetched_header(sizes: Mapping[int, int]) -> str:
    """Return FETCHED_HEADER: NODE=BYTES,NODE=BYTES."""
    return ",".join(f"{node}={size}" for node, size in sizes.items())


def read_fetched(text: str) -> dict[int, int]:
    """Return what FETCHED_HEADER says; nothing of what it would not say."""
    pairs = (part.partition("=") for part in text.split(","))
    return {int(n): int(s) for n, _, s in pairs if n.isdecimal() and s.isdecimal()}
