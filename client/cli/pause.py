"""`pause`: the site takes no new requests."""

from __future__ import annotations

import os

from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import say


def pause(home: Home) -> None:
    """Let the site take no new requests, until it is resumed."""
    load_site_config(home.site_yaml)
    home.paused.touch(mode=0o600)
    make_durable(home)
    say("Paused: what is asked from now on is refused as `the site is paused`.")
    say("What is being trained now is still answered. To go on: wardround-site resume")


def make_durable(home: Home) -> None:
    """Keep a pause over a power failure."""
    folder = os.open(home.folder, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
