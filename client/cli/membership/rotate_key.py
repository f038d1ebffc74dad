"""`rotate-key`: a new key for the site, which the old one names."""

from __future__ import annotations

from client.site.home import Home
from client.site.terminal import say
from client.transport.membership import rotate


def rotate_key(home: Home) -> None:
    """Change the key; the coordinator takes it by the old one's signature, without a call."""
    shown = rotate(home)
    say(f"The site's key is a new one: {shown}")
    say("The coordinator accepted it by the old key's signature; the old one is good for nothing.")
    say("The daemon takes it up by itself. A request that is under way is asked for again.")
