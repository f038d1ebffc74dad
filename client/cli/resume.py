"""`resume`: the site takes requests again after `pause`."""

from __future__ import annotations

from client.cli.records import note_change
from client.cli.status import is_running
from client.governance import decisions_log
from client.site.home import Home
from client.site.site_config import load_site_config
from client.site.terminal import say


def resume(home: Home) -> None:
    """Let the site take requests again."""
    load_site_config(home.site_yaml)
    was = home.paused.exists()
    for one in home.federations():
        decisions_log.note(one, resumed=True)  # first: what ends a pause is this line
    home.paused.unlink(missing_ok=True)
    decisions_log.make_folder_durable(home)
    note_change(home, "That the site goes on")
    say("The site takes requests again." if was else "The site was not paused.")
    if not is_running(home):
        say("Next: wardround-site start")
