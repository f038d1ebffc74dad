"""Real listeners, real TLS, real Flower messages on loopback; hospitals are threads.

Each hospital is the daemon's own correspondence over the real FleetClient API, with made-up
patients and its work done in its thread. The run is the real FlowerSites over the real Runtime API.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from client.transport.fleet_client import FleetClient
from common.config.run_config import RunConfig
from common.data.sample import Patients
from common.messages.pull_headers import HEARTBEAT_SECONDS
from common.messages.signing_key import private_text
from common.messages.wire import Answer
from common.platform.errors import LinkDown, SiteUnknown
from server.enrolment.receipts import ReceiptStore
from server.files.status_writer import Board
from server.rounds.run_setting import RunSetting
from server.transport.flower_sites import FlowerSites
from server.transport.runtime import Runtime
from server.transport.turn import RunTurn
from tests.client.answering import Letters
from tests.server.coordinator import Running, Site


class Killed(BaseException):
    """A daemon that ends here and now, without a word to anybody."""


@dataclass
class Hospital:
    """A site's daemon as a thread."""

    running: Running
    site: Site
    home: Path
    patients: Patients
    private_only: bool = False
    approval: str = "automatic"
    change: Callable[[FleetClient], FleetClient] = lambda fleet: fleet  # a faulty link
    lie: Callable[[Answer], Answer] = lambda answer: answer
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "key").write_text(private_text(self.site.key))

    @property
    def letters(self) -> Letters:
        """Return what its letters are written with."""
        return Letters(
            self.home,
            name=self.site.name,
            patients=self.patients,
            private_only=self.private_only,
            approval=self.approval,
            lie=self.lie,
        )

    def start(self) -> Hospital:
        """Begin to serve."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=self.site.name)
        self._thread.start()
        return self

    def end(self) -> None:
        """Be told to end; nobody waits for it."""
        self._over.set()

    def stop(self) -> None:
        """End, as a daemon that is told to."""
        self.end()
        if self._thread is not None:
            self._thread.join(20)
            assert not self._thread.is_alive()

    def _serve(self) -> None:
        with suppress(Killed):
            self._live()

    def _live(self) -> None:
        correspondence = self.letters.open()
        authority = self.running.folder.ca.read_text(encoding="ascii")
        fleet = self.change(FleetClient(self.running.settings.address, authority, self.site.key))
        fleet.activate()
        beaten = time.monotonic()
        while not self._over.is_set():
            try:
                moved = correspondence.turn(fleet, 1.0)
            except Killed:
                fleet.close()
                raise
            except (LinkDown, SiteUnknown) as error:  # as the daemon does
                self.errors.append(str(error))
                self._over.wait(0.1)
                continue
            if time.monotonic() - beaten > HEARTBEAT_SECONDS / 2:
                fleet.heartbeat()
                beaten = time.monotonic()
            if not moved and correspondence.open:
                self._over.wait(0.02)
        with suppress(LinkDown, SiteUnknown):
            fleet.deactivate(self.site.node_id)
        fleet.close()


@contextmanager
def run_over(
    running: Running,
    config: RunConfig,
    folder: Path,
    run: str = "run",
    seed: int = 0,
    turn: RunTurn | None = None,
) -> Iterator[tuple[FlowerSites, Board]]:
    """Yield the sites of a Flower run that just began."""
    flower = running.gateway.superlink.start_run(run)
    runtime = Runtime(
        running.settings.operator,
        running.folder.ca.read_text(encoding="ascii"),
        running.folder.token.read_text(encoding="ascii").strip(),
        flower.token,
    )
    folder.mkdir(parents=True, exist_ok=True)
    board = Board(
        path=folder / "status.json",
        run=run,
        rounds=config.training.rounds,
        quorum=config.aggregation.smallest_quorum,
    )

    def members() -> dict[str, str]:
        sites = running.gateway.enrolment.sites()
        return {s.name: s.public_key for s in sites if s.state == "accepted"}

    setting = RunSetting(
        run=run,
        seed=seed,
        config=config,
        members=members,
        arriving=folder / "arriving",
        # Each test's sites have homes of their own, under the same names.
        receipts=ReceiptStore(folder / "receipts.db"),
    )
    runtime.begin()
    try:
        yield FlowerSites(runtime, setting, board, turn), board
    finally:
        runtime.finish(succeeded=True, details="")
        running.gateway.superlink.stop_run(flower.number)
