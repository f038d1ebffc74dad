"""A receiver of images with nothing behind it: each is written, and somebody is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pynetdicom import evt

from client.dicom.reasons import UnusableFile
from client.pacs.received_file import place
from client.pacs.storage_scp import listen
from client.site.pacs_section import PacsConfig

_SUCCESS, _NOT_UNDERSTOOD = 0x0000, 0xC000  # PS3.4 table B.2-1


@contextmanager
def receive(
    pacs: PacsConfig, folder: Path, arrived: Callable[[Path], None], *, only_pacs: bool = True
) -> Iterator[int]:
    """Write what is sent below a folder, until left; yields the port."""

    def store(event: evt.Event) -> int:
        try:
            landed = place(folder, [event.encoded_dataset()])
        except UnusableFile:
            return _NOT_UNDERSTOOD
        arrived(landed.path)
        return _SUCCESS

    with listen(pacs, store, only_pacs=only_pacs) as port:
        yield port
