"""A study from a real PACS to checked files on disk, against pynetdicom's C-GET.

    python benchmarks/pull.py

Orthanc (Debian's) on loopback holds one CT study of 300 slices, 512 x 512. Measured is the time
from asking for the study to its last file: ours includes the check of every file and the queue;
pynetdicom's is one association and a file for each image, as its users write it. Neither waits
for the disk: ours flushes in a thread meanwhile, and one row says what waiting for that costs.
Orthanc runs with TCP_NODELAY for both. The floor is a copy of the files.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelGet  # type: ignore[attr-defined]
from row import Row, needs, shown, told

sys.path.insert(0, str(Path(__file__).parents[1]))

from client.pacs.arrival_batch import ArrivalNotes
from client.pacs.fsync import Flusher
from client.pacs.image_source import PacsQuery
from client.pacs.pull import PullOrder, pull
from client.pacs.pull_queue import Queue
from client.pacs.pull_selection import WantedSeries
from client.pacs.rate_limit import Pace
from client.site.pacs_section import PacsConfig
from simulations.synthetic.dicom_writer import InventedStudy, Machine, write_ct
from tests.client.pacs.orthanc import Pacs, free_port, orthanc
from tests.client.pacs.reaching import reaching
from tests.peers import DICOMWEB

_SLICES, _SIZE, _REPEATS = 300, 512, 5
_STUDY = InventedStudy(patient="P1", number=0, age=60, sex="f")
_GOAL, _GOAL_GET = 3.0, 2.0


def rows() -> list[Row]:
    """Measure all of them in turn, so that what else the machine does meets each alike."""
    needs(
        {
            "Orthanc": "orthanc",
            DICOMWEB: "orthanc-dicomweb",
            "gcc": "gcc",
            Path("/usr/include/stdlib.h"): "libc6-dev",
        }
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "made")
        with orthanc(folder / "pacs", peers={"WARDROUND": ("127.0.0.1", free_port())}) as pacs:
            files = sorted((folder / "made").iterdir())
            pacs.store(files)
            return _rows(pacs, files, folder)


def _rows(pacs: Pacs, files: list[Path], folder: Path) -> list[Row]:
    ways: dict[str, Callable[[Path], float]] = {
        "peer": lambda out: _timed(lambda: _pynetdicom(pacs, out)),
        "dicomweb": lambda out: _ours(reaching(pacs, associations=1), out),
        "flushed": lambda out: _ours(reaching(pacs, associations=1), out, flushed=True),
        "c-get": lambda out: _ours(reaching(pacs, "c-get", associations=2), out),
        "floor": lambda out: _timed(lambda: _copied(files, out)),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(_REPEATS):
        for way, bring in ways.items():
            out = folder / f"{way}-{repeat}"
            out.mkdir()
            os.sync()  # what the last one wrote is not this one's to wait for
            seconds[way].append(bring(out))
            _check(out, files)
            shutil.rmtree(out)
    median = {way: statistics.median(found) for way, found in seconds.items()}

    def detail(way: str) -> str:
        spread = f"{_SLICES / max(seconds[way]):.0f}-{_SLICES / min(seconds[way]):.0f}"
        return (
            f"{_SLICES / median[way]:.0f} ({spread}) images/s, peer {_SLICES / median['peer']:.0f}"
        )

    return [
        shown(
            Row(
                name="pull by DICOMweb, times pynetdicom's C-GET",
                measured=median["peer"] / median["dicomweb"],
                relation=">=",
                goal=_GOAL,
                detail=detail("dicomweb"),
            )
        ),
        shown(
            Row(
                name="the same until it is on the disk (fsync)",
                measured=median["peer"] / median["flushed"],
                detail=detail("flushed"),
            )
        ),
        shown(
            Row(
                name="pull by C-GET, times pynetdicom's C-GET",
                measured=median["peer"] / median["c-get"],
                relation=">=",
                goal=_GOAL_GET,
                detail=detail("c-get"),
            )
        ),
        shown(
            Row(
                name="pull by DICOMweb, times a copy of the files",
                measured=median["dicomweb"] / median["floor"],
                detail=f"floor {_SLICES / median['floor']:.0f} images/s",
            )
        ),
    ]


def _write(folder: Path) -> None:
    machine = Machine(
        hospital="n",
        manufacturer="Maker",
        transfer_syntax="explicit",
        inverted=False,
        signed=True,
        slice_mm=1.0,
    )
    volume = np.random.default_rng(0).normal(0, 300, (_SLICES, _SIZE, _SIZE)).astype(np.float32)
    write_ct(folder, volume, _STUDY, machine)


def _ours(config: PacsConfig, out: Path, *, flushed: bool = False) -> float:
    """Pull, and return seconds until all files are checked and named, or on the disk as well."""
    question = PacsQuery(
        key="StudyInstanceUID", value=_STUDY.study_uid, modality="", first_day="", last_day=""
    )
    one = WantedSeries(question=question, series=frozenset(), modalities=frozenset())
    order = PullOrder(pacs=config, data=out / "data", wanted=[one], withdrawn=frozenset())
    begin = time.perf_counter()
    with Queue(out / "pulls.db") as queue:
        with Flusher(queue) as flusher:
            notes = ArrivalNotes(queue=queue, flusher=flusher)
            done = pull(order, notes, Pace(config), lambda _text: None)
            seconds = time.perf_counter() - begin
        if flushed:
            seconds = time.perf_counter() - begin
    if done.counted.complete != 1 or done.counted.instances != _SLICES:
        sys.exit(f"The pull is not complete: {done.counted}")
    return seconds


def _timed(bring: Callable[[], None]) -> float:
    begin = time.perf_counter()
    bring()
    return time.perf_counter() - begin


def _pynetdicom(pacs: Pacs, out: Path) -> None:
    """Fetch as pynetdicom's own example does (docs: examples/qr_get)."""

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        dataset.save_as(out / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    entity = AE(ae_title="WARDROUND")
    entity.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
    entity.add_requested_context(CTImageStorage)
    association = entity.associate(
        "127.0.0.1",
        pacs.dicom_port,
        ae_title=pacs.called_title,
        ext_neg=[build_role(CTImageStorage, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", _STUDY.study_uid
    for status, _ in association.send_c_get(asked, StudyRootQueryRetrieveInformationModelGet):
        if not status or status.Status not in {0xFF00, 0x0000}:
            sys.exit(f"pynetdicom's C-GET ended with {status}")
    association.release()


def _copied(files: list[Path], out: Path) -> None:
    for path in files:
        shutil.copyfile(path, out / path.name)


def _check(out: Path, files: list[Path]) -> None:
    """See that the last way brought the same images."""
    found = {dcmread(p).SOPInstanceUID: p for p in out.rglob("*.dcm")}
    for path in (files[0], files[-1]):
        sent = dcmread(path)
        if len(found) != _SLICES or dcmread(found[sent.SOPInstanceUID]) != sent:
            sys.exit(f"{out.name} brought other images than were stored.")


if __name__ == "__main__":
    told(rows)
