"""`status`: what the daemon does now, and what to type next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from client.governance.approvals import Approvals
from client.site.home import Home
from client.site.plain_text import ago, size
from client.site.site_config import load_site_config
from client.site.terminal import as_text, say, table
from client.transport.coordinator import (
    SOON_DAYS,
    Coordinator,
    end_of,
    known_as,
    load_authority,
    load_coordinator,
)
from client.transport.moving import pending
from client.transport.quarantine import Quarantine
from common.messages.signing_key import fingerprint, load_private, public_text
from common.platform.errors import ConfigurationError, ExitCode, TrustRefused, WardroundError
from common.platform.file_lock import is_held

#: What the daemon calls what it does, in words.
_STATES = {
    "starting": "starting",
    "waiting": "connected, waiting for the coordinator",
    "working": "working",
    "paused": "paused",
    "offline": "not connected",
    "stopped": "not running",
    "not_served": "joined after the daemon was started: stop it, and start it again",
}


def is_running(home: Home) -> bool:
    """Return whether a daemon holds the home's lock."""
    return is_held(home.lock)


def is_automatic(home: Home) -> bool:
    """Return whether runs within the policy are taken without asking anybody."""
    try:
        return load_site_config(home.site_yaml).policy.approval == "automatic"
    except ConfigurationError:
        return False  # nothing is taken at all then


def show_status(home: Home, *, as_json: bool) -> ExitCode:
    """Say what the site is doing and what to type next; UNREACHABLE when nothing runs.

    Of several federations each is said, in JSON as a line each.
    """
    joined, code = home.joined() or (home,), ExitCode.DONE
    for one in joined:
        if len(joined) > 1 and not as_json:
            say(f"Federation {one.federation}:")
        code = _show(one, as_json=as_json, indent=2 if len(joined) == 1 else None)
    return code


def _show(home: Home, *, as_json: bool, indent: int | None) -> ExitCode:
    running = is_running(home)
    name, mistake = _name(home, running=running)
    facts = _told(home) if running else {}
    waiting = _waiting(home)
    aside = [tries.sentence for tries in Quarantine(home.quarantine).set_aside().values()]
    if as_json:
        state = facts.get("state", "starting") if running else "stopped"
        known = {
            **facts,
            "state": state,
            "site": name,
            "fingerprint": dict(_own_key(home)).get("  key", ""),
            "running": running,
            "mistake": mistake,
            "paused": home.paused.exists(),
            "waiting_for_approval": waiting,
            "set_aside": aside,
        }
        if indent is None:
            known = {"federation": home.federation, **known}
        say(json.dumps(known, indent=indent))
        return ExitCode.DONE if running else ExitCode.UNREACHABLE
    table(
        [
            ("site", name),
            *_own_key(home),
            *_coordinator(home),
            ("now", _now(home, facts, running=running)),
        ]
    )
    if mistake:
        say(f"What was in force stays in force, because of a mistake: {mistake}")
    if running:
        if facts.get("transfer"):
            say(f"{as_text(facts['transfer'])}")
        _say_traffic(facts)
        _say_rest(facts)
    if waiting:
        runs = f"{waiting} run{'s' * (waiting != 1)}"
        say(f"{runs} wait{'s' * (waiting == 1)} for your answer: wardround-site runs")
    for sentence in aside:
        say(f"Set aside: {as_text(sentence)}; wardround-site doctor says what to do")
    if home.paused.exists():
        say("Paused; to go on: wardround-site resume")
    if not running:
        has_joined = home.coordinator_json.exists()
        say(f"Next: wardround-site {'start' if has_joined else 'join INVITE'}")
    return ExitCode.DONE if running else ExitCode.UNREACHABLE


def _name(home: Home, *, running: bool) -> tuple[str, str]:
    """Return the site's name, and what is wrong with site.yaml while a daemon does without it."""
    try:
        config = load_site_config(home.site_yaml)
        return (known_as(home).name if home.coordinator_json.exists() else config.name), ""
    except ConfigurationError as error:
        if not running:
            raise
        return load_coordinator(home).site, str(error)


def _told(home: Home) -> dict[str, object]:
    """Return what the daemon tells; it may serve other federations of this home, and not this."""
    facts = _facts(home)
    if not facts and any(_facts(other) for other in home.federations() if other != home):
        return {"state": "not_served"}
    return facts


def _facts(home: Home) -> dict[str, object]:
    try:
        found = json.loads(home.status.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # it has not written one yet
    return found if isinstance(found, dict) else {}


def _own_key(home: Home) -> list[tuple[str, str]]:
    """Return the fingerprint that is read to the coordinator on the telephone, once it is made."""
    try:
        return [("  key", fingerprint(public_text(load_private(home.key))))]
    except TrustRefused:
        return []  # none yet, or another's: join and doctor say so


def _coordinator(home: Home) -> list[tuple[str, str]]:
    try:
        coordinator = load_coordinator(home)
    except ConfigurationError:
        return [("coordinator", "none yet; wardround-site join INVITE")]
    return [
        ("coordinator", f"{as_text(coordinator.name)} at {coordinator.address}"),
        ("  certificate", coordinator.fingerprint),
        *_news(home, coordinator),
    ]


def _news(home: Home, coordinator: Coordinator) -> Iterator[tuple[str, str]]:
    """Yield what is about to change: a move that nobody could follow yet, a certificate's end."""
    with suppress(WardroundError):
        address = pending(home)
        if address:
            yield "  moves to", f"{as_text(address)}, where it does not answer yet"
        left = (end_of(load_authority(home, coordinator)) - datetime.now(UTC)).days
        if left < SOON_DAYS:
            yield "  expires", f"its authority's certificate in {left} days; call them"


def _now(home: Home, facts: dict[str, object], *, running: bool) -> str:
    if not running:
        return "not running"
    state = str(facts.get("state", "starting"))
    said = as_text(facts.get("sentence") or _STATES.get(state, state))
    since = facts.get("since")
    if state in {"waiting", "paused"} and home.paused.exists():
        said = "paused"
    return f"{said} (for {ago(str(since))})" if since else said


def _say_traffic(facts: dict[str, object]) -> None:
    sent, received = facts.get("bytes_sent"), facts.get("bytes_received")
    if isinstance(sent, int) and isinstance(received, int):
        say(f"since it started: {size(sent)} sent, {size(received)} received")


def _say_rest(facts: dict[str, object]) -> None:
    worker = facts.get("worker")
    if isinstance(worker, dict) and worker.get("rests") is True:
        say(
            "The process that trains has ended, since there was nothing to do "
            "(worker_idle_minutes in site.yaml); the next request starts it."
        )


def _waiting(home: Home) -> int:
    """Return how many configurations of runs wait for an answer."""
    if not home.approvals.exists() or is_automatic(home):
        return 0
    try:
        seen = Approvals(home.approvals).listed()
    except WardroundError:
        return 0  # doctor says why
    return len({s.fingerprint for s in seen if s.decision == "waiting"})
