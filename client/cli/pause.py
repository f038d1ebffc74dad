"""`pause`: the site takes no new requests."""

from __future__ import annotations

from client.cli.records import note_change
from client.governance.decisions_log import make_paused
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import say


def pause(home: Home) -> None:
    """Let the site take no new requests, until it is resumed."""
    load_site_config(home.site_yaml)
    make_paused(home)
    note_change(home, "The pause")
    say("Paused: what is asked from now on is refused as `the site is paused`.")
    say("What is being trained now is still answered. To go on: wardround-site resume")
