"""`resume`: the site takes requests again after `pause`."""

from __future__ import annotations

from client.cli.pause import make_durable
from client.cli.status import is_running
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import say


def resume(home: Home) -> None:
    """Let the site take requests again."""
    load_site_config(home.site_yaml)
    was = home.paused.exists()
    home.paused.unlink(missing_ok=True)
    make_durable(home)
    say("The site takes requests again." if was else "The site was not paused.")
    if not is_running(home):
        say("Next: wardround-site start")
