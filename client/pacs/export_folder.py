"""A folder into which the PACS exports: whole files are taken, growing ones waited for."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from client.dicom.reading.groups import text_of
from client.dicom.reasons import Reason, UnusableFile
from client.pacs.image_source import ArrivalObserver, PacsQuery, RemoteSeries, only
from client.pacs.received_file import Landed, look, place
from client.site.pacs_section import PacsConfig
from common.platform.errors import ConfigurationError

#: A file that nobody has written to for so long is whole.
REST_SECONDS = 10.0
_PIECE_BYTES = 1 << 20


@contextmanager
def export_folder(pacs: PacsConfig, data: Path) -> Iterator[ExportFolder]:
    """Yield the source; ConfigurationError when there is no such folder."""
    if pacs.folder is None or not pacs.folder.is_dir():
        message = (
            f"There is no folder {pacs.folder} (pacs.folder). Mount the share that the PACS "
            "exports to, or correct it in site.yaml."
        )
        raise ConfigurationError(message)
    yield ExportFolder(pacs.folder, data)


class ExportFolder:
    """What lies in a folder, by the headers of its files; each file is looked at once."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._folder, self._data = folder, data
        self._found: dict[str, dict[str, Path]] | None = None  # series -> instance -> file
        self._listed: dict[str, RemoteSeries] = {}
        self.unusable: list[tuple[Path, UnusableFile]] = []

    def find(self, question: PacsQuery) -> Iterator[RemoteSeries]:
        """Yield what matches; dates and modality are the index's to judge in a folder."""
        self._scan()
        for series in self._listed.values():
            own = {
                "PatientID": series.patient,
                "AccessionNumber": series.accession,
                "StudyInstanceUID": series.study,
                "SeriesInstanceUID": series.series,
            }
            if question.key is None or own[question.key] == question.value:
                yield series

    def instances(self, series: RemoteSeries) -> frozenset[str]:
        """Return the instances of which there are whole files."""
        return frozenset(self._scan().get(series.series, {}))

    def remarks(self) -> tuple[str, ...]:
        """Return how many files are not taken over, and why."""
        counts = Counter(problem.reason for _, problem in self.unusable)
        return tuple(
            f"{count} files in {self._folder} are left out: {reason.name}. {reason.value}"
            for reason, count in counts.most_common()
        )

    def fetch(
        self, series: RemoteSeries, missing: Collection[str] | None, arrivals: ArrivalObserver
    ) -> None:
        """Copy the files of a series into the data folder."""
        files = self._scan().get(series.series, {})
        for uid in sorted(files if missing is None else set(missing) & set(files)):
            arrivals.wait()
            try:
                landed = place(self._data, _content(files[uid]), only(series))
            except UnusableFile as problem:
                arrivals.refused(problem)
            else:
                arrivals.landed(landed)

    def _scan(self) -> dict[str, dict[str, Path]]:
        if self._found is not None:
            return self._found
        self._found = {}
        now = time.time()
        for path in sorted(self._folder.rglob("*")):
            if path.name.startswith(".") or not path.is_file():
                continue
            try:
                status = path.stat()
                if not is_whole(status, now):
                    raise UnusableFile(Reason.PARTIAL_WRITE)
                landed = look(path, status.st_size, self._data)
                patient, accession, modality = _names(path)
            except UnusableFile as problem:
                self.unusable.append((path, problem))
                continue
            self._found.setdefault(landed.series, {})[landed.instance] = path
            self._listed[landed.series] = _described(
                landed, (patient, accession, modality), len(self._found[landed.series])
            )
        return self._found


def is_whole(status: os.stat_result, now: float) -> bool:
    """Return whether a file has rested; one from the future (another clock) counts as rested."""
    return not 0 <= now - status.st_mtime < REST_SECONDS


def _described(landed: Landed, names: tuple[str, str, str], count: int) -> RemoteSeries:
    patient, accession, modality = names
    return RemoteSeries(
        patient=patient,
        accession=accession,
        study=landed.study,
        series=landed.series,
        modality=modality,
        instances=count,
    )


def _names(path: Path) -> tuple[str, str, str]:
    """Return PatientID, AccessionNumber and Modality."""
    from pydicom import dcmread

    wanted = ["PatientID", "AccessionNumber", "Modality", "SpecificCharacterSet"]
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=wanted)
        patient, accession, modality = (text_of(header, name) for name in wanted[:3])
    except Exception as error:
        raise UnusableFile(Reason.BAD_VR, type(error).__name__) from error
    return patient, accession, modality


def _content(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
