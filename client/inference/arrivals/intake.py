"""Arrival of studies by C-STORE to our own port, or through a watched folder."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from client.cohort.scan import dicom_files
from client.dicom.reasons import UnusableFile
from client.inference.arrivals.queue import ArrivalQueue
from client.pacs.received_file import Landed, durable, leftovers, look, place
from client.pacs.storage_scp import listen
from client.site.pacs_section import PacsConfig
from common.platform.errors import ConfigurationError
from common.platform.logs import log

if TYPE_CHECKING:
    from pynetdicom import evt

_log = log(__name__)
#: PS3.4 table B.2-1, and PS3.7 annex C for a sender who may not.
_SUCCESS, _OUT_OF_RESOURCES, _NOT_UNDERSTOOD, _NOT_AUTHORISED = 0x0000, 0xA700, 0xC000, 0x0124
#: A line a minute about a full disk is enough.
_SAY_AGAIN_SECONDS = 60.0
_FOLDER_LOOK_SECONDS = 2.0


@contextmanager
def by_store(pacs: PacsConfig, folder: Path, arrivals: ArrivalQueue) -> Iterator[str]:
    """Take images on pacs.own_port until left; yields where in words.

    ConfigurationError when nobody is named who may send; Unreachable when the port is taken.
    """
    titles = frozenset(pacs.listen.titles or filter(None, [pacs.called_title]))
    if not titles:
        message = (
            "Nobody is named who may send studies here. Write their AE titles into site.yaml: "
            "pacs.listen.titles"
        )
        raise ConfigurationError(message)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    leftovers(folder)
    receiver = _Receiver(pacs, folder, arrivals, titles)
    with listen(pacs, receiver.store, only_pacs=False) as port:
        yield f"{pacs.own_title} on port {port}, from {', '.join(sorted(titles))}"


class _Receiver:
    """Answers C-STORE requests (PS3.4 B.2): success only for what would outlast a power failure."""

    def __init__(
        self, pacs: PacsConfig, folder: Path, arrivals: ArrivalQueue, titles: frozenset[str]
    ) -> None:
        self._settle, self._folder, self._arrivals = pacs.listen.settle_seconds, folder, arrivals
        self._titles = titles
        self._said: dict[str, float] = {}  # of each fault: when it was last written to the log

    def store(self, event: evt.Event) -> int:
        """Return the status of a request."""
        sender = event.assoc.requestor.ae_title
        if sender not in self._titles:
            fault = "an image was refused: its sender is not in pacs.listen.titles"
            self._say(fault, f"{fault}, but {sender!r}")
            return _NOT_AUTHORISED
        try:
            content = event.encoded_dataset()
            landed = place(self._folder, [content])
            durable([landed.path])
            now = time.time()
            digest = hashlib.sha256(content).hexdigest()
            self._arrivals.came(landed, digest, now, now + self._settle)
        except UnusableFile as problem:
            self._say(f"an image was refused: {problem.reason.name}")
            return _NOT_UNDERSTOOD
        except (OSError, sqlite3.Error) as error:
            why = getattr(error, "strerror", None) or str(error)
            self._say(f"images are refused until there is room again: {why}")
            return _OUT_OF_RESOURCES
        return _SUCCESS

    def _say(self, fault: str, text: str = "") -> None:
        """Write a fault now and then; as `text` where a stranger chose a part of it."""
        now = time.monotonic()
        if now - self._said.get(fault, -_SAY_AGAIN_SECONDS) >= _SAY_AGAIN_SECONDS:
            self._said[fault] = now
            _log.warning(text or fault)


@contextmanager
def by_folder(
    folder: Path, settle_seconds: float, arrivals: ArrivalQueue, tell: Callable[[Path, str], None]
) -> Iterator[str]:
    """Look into a folder again and again until left; yields which in words.

    A file is taken where it lies, once nobody has written to it for `settle_seconds`; `tell` is
    told of one that cannot be used. ConfigurationError when there is no such folder.
    """
    if not folder.is_dir():
        message = f"There is no folder {folder}. Give --folder the one that studies are put into."
        raise ConfigurationError(message)
    stop = threading.Event()
    watcher = _Watcher(folder, settle_seconds, arrivals, tell)

    def work() -> None:
        while not stop.is_set():
            watcher.look()
            stop.wait(min(_FOLDER_LOOK_SECONDS, settle_seconds))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield f"the folder {folder}"
    finally:
        stop.set()
        thread.join()


class _Watcher:
    """Knows which files of a folder it has taken, as they were then."""

    def __init__(
        self,
        folder: Path,
        settle_seconds: float,
        arrivals: ArrivalQueue,
        tell: Callable[[Path, str], None],
    ) -> None:
        self._folder, self._settle, self._arrivals = folder, settle_seconds, arrivals
        self._tell = tell
        self._taken: dict[Path, tuple[int, int]] = {}  # size and time of writing, ns

    def look(self) -> None:
        """Take what is new or was changed, and is not being written."""
        try:
            files = dicom_files(self._folder, frozenset())
        except OSError as error:
            _log.warning("the folder cannot be read", why=error.strerror)
            return
        for path in files:
            try:
                self._take(path)
            except UnusableFile as problem:
                self._tell(path, f"{problem.reason.name}: {problem.reason.value}")
            except (OSError, sqlite3.Error) as error:
                _log.warning("a file waits", why=getattr(error, "strerror", None) or str(error))
        self._taken = {path: self._taken[path] for path in files if path in self._taken}

    def _take(self, path: Path) -> None:
        found = path.stat()
        seen = (found.st_size, found.st_mtime_ns)
        now = time.time()
        if self._taken.get(path) == seen or now - found.st_mtime < self._settle:
            return
        try:
            landed = look(path, found.st_size, self._folder)
        except UnusableFile:
            self._taken[path] = seen  # once is enough to say so
            raise
        here = Landed(
            path=path,
            study=landed.study,
            series=landed.series,
            instance=landed.instance,
            size=landed.size,
        )
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._arrivals.came(here, digest, now, now + self._settle)
        self._taken[path] = seen
