"""Connection of a site to the coordinator: made, kept alive, and made again after longer pauses.

A pause is twice the one before, from half a second up to ten seconds, and starts over once a turn
went well.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from client.site.home import Home
from client.site.site_config import SiteConfig
from client.transport.coordinator import Coordinator, load_authority
from client.transport.listening import ListeningClient
from client.transport.proxy import way_to
from common.messages.pull_headers import HEARTBEAT_SECONDS
from common.platform.errors import LinkDown, SiteUnknown
from common.platform.logs import log

#: Pauses before the coordinator is tried again double from the first to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
_log = log("site")


@dataclass
class _Link:
    """The connection, while there is one."""

    fleet: ListeningClient
    node_id: int


class Reconnecting:
    """The connection, or how long to wait before the next try to make it."""

    def __init__(
        self, home: Home, coordinator: Coordinator, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self._home, self._coordinator, self._key = home, coordinator, key
        self._link: _Link | None = None
        self._beating = threading.Event()
        self._pause = FIRST_PAUSE

    @property
    def failed(self) -> bool:
        """Whether the last turn did not reach the coordinator."""
        return self._pause > FIRST_PAUSE

    def fleet(self, config: SiteConfig) -> ListeningClient:
        """Return the connection, made now unless there is one; LinkDown and SiteUnknown."""
        link = self._link or self._connect(config)
        return link.fleet

    def went_well(self) -> None:
        """Note that a turn reached the coordinator: the next pause is the first again."""
        self._pause = FIRST_PAUSE

    def longer_pause(self) -> float:
        """Return the seconds for which the coordinator is left alone, twice the last."""
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return self._pause

    def disconnect(self) -> None:
        """Let the connection go; the next turn makes another."""
        if self._link is not None:
            self._beating.set()
            self._link.fleet.close()
            self._link = None

    def stop_heartbeat(self) -> None:
        """Say no longer that the site is here."""
        self._beating.set()

    def say_good_bye(self) -> None:
        """Tell the coordinator that the site leaves, if it can be told, and let go."""
        if self._link is not None:
            with suppress(LinkDown, SiteUnknown):
                self._link.fleet.deactivate(self._link.node_id)
            self._link.fleet.close()

    def _connect(self, config: SiteConfig) -> _Link:
        authority = load_authority(self._home, self._coordinator)
        way = way_to(self._coordinator.address, config)
        fleet = ListeningClient(self._coordinator.address, authority, self._key, way)
        try:
            node_id = fleet.activate()
        except BaseException:
            fleet.close()
            raise
        self._link = _Link(fleet, node_id)
        self._beating = threading.Event()
        beat = threading.Thread(target=_beat, args=(fleet, self._beating), daemon=True)
        beat.start()
        _log.info("connected", coordinator=self._coordinator.address)
        return self._link


def _beat(fleet: ListeningClient, over: threading.Event) -> None:
    """Say that the site is here, often enough that one lost word does no harm.

    A pull that waits says so by itself.
    """
    while not over.wait(HEARTBEAT_SECONDS / 2):
        if fleet.listens and fleet.is_heartbeat:
            continue
        with suppress(LinkDown, SiteUnknown):
            fleet.heartbeat()
