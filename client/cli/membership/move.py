"""`move`: the coordinator is somewhere else, as its authority's signed notice says."""

from __future__ import annotations

from client.site.home import Home
from client.site.terminal import say
from client.transport.coordinator import load_coordinator
from client.transport.moving import follow, keep_notice
from common.messages.notice import Notice


def move(home: Home, line: str) -> None:
    """Take a notice that came by mail, say, and follow it where the coordinator answers."""
    known, notice = load_coordinator(home), Notice.from_text(line)
    if not keep_notice(home, notice):
        say(f"The notice is not newer than what is known: {known.name} is at {known.address}.")
        return
    moved = follow(home)
    if moved is None:
        say(f"The notice is the coordinator's own; it moves to {notice.address}.")
        say("Its server does not answer there yet, so this site stays where it was. The daemon")
        say("tries it again by itself; wardround-site doctor says what is in the way.")
        return
    say(f"{moved.name} is at {moved.address} from now on; its authority signed that.")
