"""Check that the hospital's PACS answers, and what it means when it does not.

What a pull does is done once, small: connect, ask for the first entries of the table of labels,
fetch one image into a folder that is removed again.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, assert_never
from urllib.parse import urlsplit

from client.dicom.reasons import UnusableFile
from client.readiness.check_finding import Finding, wrong
from client.site.pacs_section import PacsConfig
from client.site.plain_text import size
from client.site.site_config import SiteConfig
from common.platform.errors import WardroundError

if TYPE_CHECKING:
    from client.pacs.image_source import ImageSource, RemoteSeries
    from client.pacs.pull_selection import WantedSeries
    from client.pacs.received_file import Landed

#: So many entries of the table are asked for.
_ENTRIES = 5
#: Bytes: less than one CT study.
_LEAST_FREE = 10**9


def examine_pacs(config: SiteConfig) -> Iterator[Finding]:
    """Yield a finding for each thing that the PACS must do for this site."""
    pacs = config.pacs
    if pacs is None:
        yield Finding(
            check="pacs", state="note", detail="site.yaml has no pacs; a folder alone is read"
        )
        return
    yield from _privacy(pacs)
    yield _place(config.data)
    reached = _first(lambda: _reached(pacs), "connection")
    yield reached
    if reached.state == "wrong":
        return
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pacs-check-")))
            from client.pacs.image_source import open_source

            source = stack.enter_context(open_source(pacs, folder))
            yield from _asked(config, pacs, source)
    except WardroundError as error:  # our own port is taken, or a folder is missing
        yield wrong("route", error)


def _asked(config: SiteConfig, pacs: PacsConfig, source: ImageSource) -> Iterator[Finding]:
    from client.pacs.pull_selection import wanted

    try:
        entries = wanted(pacs.select, config.labels_csv)
    except WardroundError as error:
        yield wrong("selection", error)
        return
    found: list[RemoteSeries] = []
    yield _first(lambda: _queried(source, entries, found), "query")
    if found:
        yield _counted(found)
        yield _first(lambda: _fetched(source, found[0]), "retrieval")


def _first(look: Callable[[], Finding], check: str) -> Finding:
    """Return what a look found; an error of ours is a finding that says what to do."""
    try:
        return look()
    except WardroundError as error:
        return wrong(check, error)


def _privacy(pacs: PacsConfig) -> Iterator[Finding]:
    """Say so when images would travel in the clear."""
    open_url = pacs.route == "dicomweb" and urlsplit(pacs.url or "").scheme != "https"
    if open_url or (pacs.route in {"c-get", "c-move"} and not pacs.tls):
        yield Finding(
            check="encryption",
            state="note",
            detail="images travel from the PACS to this machine in the clear",
            fix="Ask the PACS team for HTTPS or DICOM TLS, unless both stand in one closed network",
        )


def _place(data: Path) -> Finding:
    """Say whether a pull could write to the data folder, and how much room is there."""
    try:
        with tempfile.NamedTemporaryFile(dir=data, prefix=".pacs-check-"):
            free = shutil.disk_usage(data).free
    except OSError as error:
        return Finding(
            check="folder",
            state="wrong",
            detail=f"cannot write to {data}: {error.strerror}",
            fix="Mount it or make it, give it to the user who runs this, or correct data in "
            "site.yaml",
        )
    if free < _LEAST_FREE:
        return Finding(
            check="folder",
            state="note",
            detail=f"{size(free)} free in {data}",
            fix="Make room, or name a larger disk as data in site.yaml",
        )
    return Finding(check="folder", state="ok", detail=f"{size(free)} free in {data}")


def _reached(pacs: PacsConfig) -> Finding:
    begin = time.monotonic()
    match pacs.route:
        case "dicomweb":
            place = _web(pacs)
        case "c-get" | "c-move":
            place = _echo(pacs)
        case "folder":
            place = str(pacs.folder)
        case never:
            assert_never(never)
    milliseconds = 1000 * (time.monotonic() - begin)
    detail = f"{place} answers in {milliseconds:.0f} ms"
    return Finding(check="connection", state="ok", detail=detail)


def _web(pacs: PacsConfig) -> str:
    import requests

    from client.pacs.connection.web_session import TIMEOUT, refusal, web_session

    with web_session(pacs) as session:
        try:
            url = f"{str(pacs.url).rstrip('/')}/studies"
            headers = {"Accept": "application/dicom+json"}
            session.get(
                url, params={"limit": "1"}, headers=headers, timeout=TIMEOUT
            ).raise_for_status()
        except requests.RequestException as error:
            raise refusal(pacs, error) from error
    return str(pacs.url)


def _echo(pacs: PacsConfig) -> str:
    from client.pacs.cfind import dropped
    from client.pacs.connection.association import VERIFICATION, associate

    with associate(pacs, [VERIFICATION]) as association:
        if association.send_c_echo().get("Status") != 0:
            raise dropped(pacs)
    return f"{pacs.called_title} at {pacs.host}:{pacs.port}"


def _queried(
    source: ImageSource, entries: Sequence[WantedSeries], found: list[RemoteSeries]
) -> Finding:
    """Ask for the first entries; an empty answer to all of them is a fault as well."""
    asked = [one for one in entries if one.question.why_not_asked is None][:_ENTRIES]
    known = 0
    for one in asked:
        fitting = [series for series in source.find(one.question) if one.takes(series)]
        known += bool(fitting)
        found += fitting
    detail = f"{known} of the first {len(asked)} entries of the selection are known to the PACS"
    if known:
        return Finding(check="query", state="ok", detail=f"{detail}, with {len(found)} series")
    return Finding(
        check="query",
        state="wrong",
        detail=detail,
        fix="Compare the table's keys with the PACS's (leading zeros, the issuer of the PatientID) "
        "and pacs.select; if both are right, the PACS shows our title or user nothing: ask the "
        "PACS team to allow queries",
    )


def _counted(found: Sequence[RemoteSeries]) -> Finding:
    silent = sum(series.instances is None for series in found)
    if silent:
        detail = f"no count of images for {silent} of {len(found)} series; they are listed instead"
        return Finding(check="counts", state="note", detail=detail)
    return Finding(check="counts", state="ok", detail="the PACS says how many images a series has")


@dataclass
class _Arrivals:
    """What came of the one image."""

    came: list[Landed] = field(default_factory=list)
    problems: list[UnusableFile] = field(default_factory=list)

    def wait(self) -> None:
        """Take it at once."""

    def landed(self, one: Landed) -> None:
        """Keep it in mind."""
        self.came.append(one)

    def refused(self, problem: UnusableFile) -> None:
        """Keep it in mind."""
        self.problems.append(problem)


def _fetched(source: ImageSource, series: RemoteSeries) -> Finding:
    """Fetch one image."""
    from client.pacs.image_source import SeriesRefused

    arrivals = _Arrivals()
    uids = source.instances(series)
    begin = time.monotonic()
    try:
        source.fetch(series, sorted(uids)[:1], arrivals)
    except SeriesRefused as error:
        return Finding(
            check="retrieval",
            state="wrong",
            detail=f"an image was asked for, and {error}",
            fix="Ask the PACS team to allow retrieval to our title or user, and what its log says",
        )
    if arrivals.came:
        milliseconds = 1000 * (time.monotonic() - begin)
        detail = f"an image of {arrivals.came[0].size} bytes came in {milliseconds:.0f} ms"
        return Finding(check="retrieval", state="ok", detail=detail)
    why = f" ({arrivals.problems[0].reason.name})" if arrivals.problems else ""
    return Finding(
        check="retrieval",
        state="wrong",
        detail=f"an image was asked for and none came{why}",
        fix="Ask the PACS team what its log says of this retrieval",
    )
