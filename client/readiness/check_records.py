"""Check that the patients can be read and the site's own records are whole."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from itertools import islice

from client.governance.approvals import Approvals
from client.governance.disclosures import listed, verify
from client.readiness.check_finding import Finding, Subject
from client.site.plain_text import counted
from client.transport.quarantine import Quarantine
from common.platform.errors import CohortError, RecordsLost

#: Enough to see that a folder holds anything; a PACS export may hold millions.
_LOOKED_AT = 2000


def cohort(subject: Subject) -> Iterator[Finding]:
    """Look into the folder of images and read the table of labels."""
    if subject.config is None:
        return
    from client.cohort.scan import dicom_files
    from client.labels.label_table import read_labels

    data, table = subject.config.data, subject.config.labels_csv
    if not data.is_dir():
        yield Finding(
            check="cohort",
            state="wrong",
            detail=f"there is no folder {data}",
            fix=f"Mount it, or correct data in {subject.home.site_yaml}.",
        )
        return
    if not os.access(data, os.R_OK | os.X_OK):
        yield Finding(
            check="cohort",
            state="wrong",
            detail=f"this user may not read {data}",
            fix=f"Let the user {os.geteuid()} read it, and not write it.",
        )
        return
    files = list(islice(dicom_files(data, frozenset()), _LOOKED_AT))
    unreadable = next((path for path in files if not os.access(path, os.R_OK)), None)
    if unreadable is not None:
        yield Finding(
            check="cohort",
            state="wrong",
            detail=f"this user may not read {unreadable}",
            fix=f"Let the user {os.geteuid()} read the files there, and not write them.",
        )
        return
    try:
        rows = len(read_labels(table, (), with_images=True).rows)
    except CohortError as error:
        problem, _, fix = str(error).partition(". ")
        yield Finding(check="cohort", state="wrong", detail=problem, fix=fix)
        return
    more = f"more than {_LOOKED_AT} files"
    count = counted(len(files), "file") if len(files) < _LOOKED_AT else more
    detail = f"{count} in {data}, {counted(rows, 'row')} in {table.name}"
    yield Finding(check="cohort", state="ok", detail=detail)
    if os.access(data, os.W_OK) and os.geteuid() != 0:
        yield Finding(
            check="cohort",
            state="note",
            detail=f"this user may write into {data}",
            fix="Reading is enough; take writing away.",
        )


def ledger(subject: Subject) -> Iterator[Finding]:
    """Check the chain of the privacy that was spent."""
    if not subject.home.ledger.exists():
        yield Finding(check="ledger", state="ok", detail="nothing was spent yet")
        return
    from client.privacy.ledger import Ledger

    head = Ledger(subject.home.ledger).head()
    detail = f"{counted(head.charges, 'charge')}, the chain holds"
    yield Finding(check="ledger", state="ok", detail=detail)


def newest(subject: Subject) -> Iterator[Finding]:
    """Compare the records with all that this home knows of them."""
    from client.governance.records_check import SiteRecords

    if not subject.home.records.exists() and not subject.home.disclosures.exists():
        return
    try:
        SiteRecords(subject.home).check()
    except RecordsLost as error:
        problem, _, fix = str(error).partition(". ")
        yield Finding(check="records", state="wrong", detail=problem, fix=fix)
        return
    detail = "the records are the newest that this home knows of"
    yield Finding(check="records", state="ok", detail=detail)


def disclosures(subject: Subject) -> Iterator[Finding]:
    """Check the chain of what has left."""
    found = verify(subject.home.disclosures)
    listed(subject.home.disclosures)
    detail = f"{counted(found.messages, 'message')} left, the chain holds"
    yield Finding(check="disclosures", state="ok", detail=detail)


def withdrawals(subject: Subject) -> Iterator[Finding]:
    """Check the chain of withdrawals, and that each has come to its end."""
    from client.site.withdrawals import listed as withdrawn

    found = withdrawn(subject.home.withdrawals)
    open_ones = [one.patient for one in found if one.forgotten_at is None]
    if open_ones:
        yield Finding(
            check="withdrawals",
            state="wrong",
            detail=f"{len(open_ones)} begun and not ended; nobody trains with those patients",
            fix=f"wardround-site withdraw {shlex.quote(open_ones[0])}",
        )
    elif found:
        detail = f"{counted(len(found), 'patient')}, the chain holds"
        yield Finding(check="withdrawals", state="ok", detail=detail)


def approvals(subject: Subject) -> Iterator[Finding]:
    """Open the approvals, and say how many wait."""
    if not subject.home.approvals.exists():
        return
    seen = Approvals(subject.home.approvals).listed()
    waiting = sum(s.decision == "waiting" for s in seen)
    if waiting:
        yield Finding(
            check="approvals",
            state="note",
            detail=f"{waiting} wait{'s' * (waiting == 1)} for an answer",
            fix="wardround-site runs",
        )
    else:
        detail = f"{counted(len(seen), 'configuration')}, none waits"
        yield Finding(check="approvals", state="ok", detail=detail)


def quarantine(subject: Subject) -> Iterator[Finding]:
    """Name the requests that were set aside, and what to do about each."""
    for path, tries in Quarantine(subject.home.quarantine).set_aside().items():
        yield Finding(
            check="set aside",
            state="wrong",
            detail=tries.sentence,
            fix="Tell the coordinator; log/worker.log says more. Where memory was short or the "
            f"machine was switched off, let it be tried again: rm {shlex.quote(str(path))}",
        )
