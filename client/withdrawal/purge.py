"""Purge: all that a site keeps of one patient, found and removed.

Guarantee: after `forget` nothing of the patient's pixels or header stands in any file of the
cache, the index or the queues of pulls and arrivals. Each step may be done twice, so a process
that was killed in between is followed by one that does them again.

Not removed: images and table, which are the hospital's (they are left out of every cohort);
results of models, which may belong to the patient's record; models, ledger and disclosures.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.cohort.join_report import near
from client.dicom.headers.header import read_file
from client.dicom.headers.instance import Quarantined
from client.dicom.index.index import Index
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reading.files import File
from client.dicom.reasons import Reason
from client.inference.arrivals.purge import forget_patients
from client.labels.pacs_masks import forget_masks
from client.labels.schema import read_schema
from client.labels.table_files import read_table
from client.pacs.pull_queue import Queue
from client.pacs.received_file import is_uid
from client.site.cache import PIXELS, Cache
from client.site.home import Home
from client.site.site_config import SiteConfig, load_site_config
from client.withdrawal.forget_measured import forget_measured
from common.platform.errors import CohortError, ConfigurationError

_NEAR = 5


@dataclass(frozen=True, kw_only=True)
class PatientTraces:
    """What there is of a patient before they are withdrawn."""

    images: tuple[Path, ...]  # files in the data folder
    pulled: tuple[Path, ...]  # those of them that `pull` put there
    rows: int  # of the table that name the patient
    near: tuple[str, ...]  # PatientIDs that may have been meant, where there is nothing


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was removed."""

    indexed: int  # images in the index
    decoded: int  # images whose pixels were kept
    prepared: int  # files of prepared images: the patient's own, and what was made of everybody


def kept_of(home: Home, site: SiteConfig, patient: str) -> PatientTraces:
    """Return what there is of a patient; the index is brought up to date first."""
    images: list[Path] = []
    known: set[str] = set()
    if site.data.is_dir():
        with Index(home.index) as index:
            index.update(site.data)
            for image in index.instances():
                known.add(image.patient)
                if image.patient == patient:
                    images.append(image.path)
            images += [Path(q.what) for q in index.quarantined() if _is_of(q, patient)]
    named = _patients_in(site.labels_csv)
    rows = named.count(patient)
    return PatientTraces(
        images=tuple(images),
        pulled=tuple(p for p in images if _is_pulled(site, p)),
        rows=rows,
        near=() if images or rows else near(patient, known | set(named))[:_NEAR],
    )


def forget(home: Home, patient: str, tell: Callable[[str], None]) -> Forgotten:
    """Remove a patient from index, queue, cache and report, once nobody reads them any more."""
    indexed = decoded = prepared = 0
    if home.index.exists():
        with Index(home.index) as index:
            indexed = index.forget_patient(patient)
    if home.pulls.exists():
        with Queue(home.pulls) as queue:
            queue.forget(patient)
    if home.cache.is_dir():
        cache = Cache(home.cache)
        tell("Waiting until nobody reads images.")
        with cache.alone():
            prepared = cache.forget_prepared(patient)
            if (home.cache / PIXELS).is_dir():
                with PixelStore(home.cache / PIXELS, alone=True) as store:
                    decoded = store.forget(patient)
    forget_patients(home, frozenset({patient}))  # what was sent here to be scored
    forget_measured(home.measurements, patient)
    if home.site_yaml.exists():
        forget_masks(load_site_config(home.site_yaml).labels_csv, patient)
    if home.report.is_dir():  # it names what cannot be used
        shutil.rmtree(home.report)
    return Forgotten(indexed=indexed, decoded=decoded, prepared=prepared)


def delete(files: Sequence[Path]) -> int:
    """Delete files, and folders that are empty after it; return how many files there were."""
    for path in files:
        path.unlink(missing_ok=True)
        for folder in list(path.parents)[:2]:  # series, study
            if any(folder.iterdir()):
                break
            folder.rmdir()
    return len(files)


def _is_of(one: Quarantined, patient: str) -> bool:
    """Return whose a file is; of patients who were withdrawn before, the index does not say it."""
    if one.reason is not Reason.WITHDRAWN:
        return one.patient == patient
    path = Path(one.what)
    if not path.exists():
        return False
    status = path.stat()
    file = File(path=path, size=status.st_size, mtime_ns=status.st_mtime_ns)
    return read_file(file).patient == patient


def _is_pulled(site: SiteConfig, path: Path) -> bool:
    """Return whether a file lies where `pull` puts what it fetched: study/series/instance.dcm."""
    below = path.relative_to(site.data).parts
    return (
        site.pacs is not None
        and path.suffix == ".dcm"
        and len(below) == 3
        and all(is_uid(part) for part in (*below[:2], path.stem))
    )


def _patients_in(table: Path) -> list[str]:
    """Return the PatientID of every row of a table, as far as it can be read in either way."""
    found: Counter[str] = Counter()
    for line_by_line in (False, True):
        try:
            sheet = read_schema(table).sheet
            read = read_table(table, sheet, line_by_line=line_by_line).lines
        except (CohortError, ConfigurationError):
            continue
        header, *lines = read or ((1, ()),)
        names = [name.strip() for name in header[1]]
        if "PatientID" in names:
            place = names.index("PatientID")
            found |= Counter(row[place].strip() for _, row in lines if len(row) > place)
    return list(found.elements())
