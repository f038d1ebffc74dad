"""Invented studies in a PACS, and the site that is to have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import dcmread

from client.pacs.arrival_batch import ArrivalNotes
from client.pacs.fsync import Flusher
from client.pacs.pull import Pulled, PullOrder, pull
from client.pacs.pull_queue import Queue
from client.pacs.pull_selection import WantedSeries, wanted
from client.pacs.rate_limit import Pace
from client.site.pacs_section import PacsConfig
from simulations.synthetic.dicom_writer import InventedStudy, Machine, TransferSyntax, write_ct
from tests.client.dicom_files import write_labels
from tests.client.pacs.orthanc import Pacs

SYNTAXES: tuple[TransferSyntax, ...] = ("explicit", "implicit", "rle", "jpeg-ls", "jpeg2000")


@dataclass(frozen=True)
class Stored:
    """What the PACS was given."""

    files: Mapping[str, Path]  # SOP Instance UID -> file
    studies: Mapping[str, InventedStudy]  # PatientID -> study


def study_of(patient: str) -> InventedStudy:
    return InventedStudy(patient=patient, number=0, age=60, sex="f")


def fill(
    pacs: Pacs,
    folder: Path,
    patients: Sequence[str],
    *,
    slices: int = 8,
    size: int = 48,
    syntaxes: Sequence[TransferSyntax] = SYNTAXES,
) -> Stored:
    """Give the PACS one CT series for each patient, in each of the syntaxes in turn."""
    random = np.random.default_rng(len(patients))
    files: dict[str, Path] = {}
    for number, patient in enumerate(patients):
        machine = Machine(
            hospital="n",
            manufacturer="Maker",
            inverted=False,
            signed=False,
            slice_mm=2.0,
            transfer_syntax=syntaxes[number % len(syntaxes)],
        )
        volume = random.uniform(-900, 900, (slices, size, size)).astype(np.float32)
        write_ct(folder / patient, volume, study_of(patient), machine)
        for path in sorted((folder / patient).iterdir()):
            files[dcmread(path, stop_before_pixels=True).SOPInstanceUID] = path
    pacs.store(files.values())
    return Stored(files, {patient: study_of(patient) for patient in patients})


@dataclass
class Site:
    """A site's folders, and its pulls."""

    folder: Path
    patients: Sequence[str]
    said: list[str] = field(default_factory=list)
    asked: tuple[WantedSeries, ...] | None = None  # in place of what the table names
    done: Pulled = field(init=False)  # the last pull

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def wanted(self, config: PacsConfig) -> tuple[WantedSeries, ...]:
        if self.patients:
            write_labels(self.data, [{"PatientID": p, "ill": "1"} for p in self.patients])
        return wanted(config.select, self.data / "labels.csv")

    def pull(self, config: PacsConfig, withdrawn: frozenset[str] = frozenset()) -> Pulled:
        asked = self.wanted(config) if self.asked is None else self.asked
        order = PullOrder(pacs=config, data=self.data, wanted=asked, withdrawn=withdrawn)
        with Queue(self.folder / "pulls.db") as queue, Flusher(queue) as flusher:
            notes = ArrivalNotes(queue=queue, flusher=flusher)
            self.done = pull(order, notes, Pace(config), self.said.append)
        return self.done

    def files(self) -> dict[str, Path]:
        return {path.stem: path for path in self.data.rglob("*.dcm")}
