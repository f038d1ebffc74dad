"""Delivery of results to the PACS: each is sent, read back and compared.

Sending again is safe. What the PACS holds already is not sent again, since a result's UIDs
follow from what it says; after a PACS that died in between, the rest is sent and nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from pydicom import dcmread
from pydicom.dataset import Dataset

from client.dicom.index.copies import differences, made_at, uncompressed
from client.dicom.quiet import quiet
from client.results.writing import Result
from client.site.pacs_section import PacsConfig


class State(Enum):
    """What became of a result; the value says it in words."""

    STORED = "stored, read back and found equal"
    ALREADY_THERE = "was there already, and is equal"
    CHANGED = "the PACS holds it, but not as it was sent"
    UNCHECKED = "stored, but it could not be read back"
    TAKEN = "taken, as the receiver says"
    TAKEN_BEFORE = "taken before, as its receipt says"
    FAILED = "not stored"


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """One result, and what the PACS or another receiver did with it."""

    result: Result
    state: State
    detail: str = ""  # why, and what to do; empty where all went well
    where: str = ""  # which receiver; empty: the PACS

    @property
    def name(self) -> str:
        """The file, and where it went to if that is not the PACS."""
        return f"{self.result.path.name} ({self.where})" if self.where else self.result.path.name

    @property
    def arrived(self) -> bool:
        """Whether the PACS holds it as it was written, as far as could be seen."""
        return self.state not in {State.FAILED, State.CHANGED}


class NotReadable(Exception):
    """The PACS does not let us read back; the message says why."""


class Route(Protocol):
    """A way to the PACS."""

    def fetch(self, result: Result) -> Dataset | None:
        """Return the PACS's copy, None where it has none; NotReadable where it gives none."""

    def send(self, results: Sequence[Result]) -> Mapping[str, str]:
        """Send results; return SOPInstanceUID -> why, of those that were refused."""


def deliver(results: Sequence[Result], pacs: PacsConfig) -> tuple[Delivered, ...]:
    """Bring the DICOM results into the PACS, in their order; a FHIR report stays a file.

    By STOW-RS where the route is dicomweb, else by C-STORE. What one object is refused for is
    said of that object. An error is raised (Unreachable, TrustRefused, ConfigurationError) when
    the PACS as a whole cannot be used; the same call then goes on where it ended.
    """
    dicom = [result for result in results if result.sop_instance is not None]
    if not dicom:
        return ()
    with quiet(), ExitStack() as stack:
        route = _route(pacs, dicom, stack)
        before = {
            _uid(r): uncompressed(held) for r in dicom if (held := _held(route, r)) is not None
        }
        refused = {_uid(result): why for result in dicom if (why := _damaged(result))}
        refused |= route.send([r for r in dicom if _uid(r) not in {*before, *refused}])
        return tuple(
            _delivered(route, result, before.get(_uid(result)), refused) for result in dicom
        )


def _route(pacs: PacsConfig, results: Sequence[Result], stack: ExitStack) -> Route:
    if pacs.route == "dicomweb":
        from client.pacs.sending.stow import Stow

        return stack.enter_context(Stow(pacs))
    from client.pacs.sending.cstore import Storing

    return stack.enter_context(Storing(pacs, [str(result.sop_class) for result in results]))


def _damaged(result: Result) -> str:
    """Return why a file is not the one that was written; empty where it is."""
    try:
        dataset = dcmread(result.path)
        whole = dataset.get("SOPInstanceUID") == result.sop_instance and len(list(dataset)) > 0
    except Exception as error:  # noqa: BLE001  # whatever a broken file makes the parser raise
        return f"{result.path} cannot be read ({type(error).__name__}). Score the study again."
    return "" if whole else f"{result.path} is not the object it was. Score the study again."


def _held(route: Route, result: Result) -> Dataset | None:
    try:
        return route.fetch(result)
    except NotReadable:
        return None  # it is sent; a PACS takes a second copy for the first


def _delivered(
    route: Route, result: Result, before: Dataset | None, refused: Mapping[str, str]
) -> Delivered:
    if _uid(result) in refused:
        return Delivered(result=result, state=State.FAILED, detail=refused[_uid(result)])
    sent = dcmread(result.path)
    if before is not None:
        # Written elsewhere, the same finding has another time of writing, and nothing else.
        unlike = differences(made_at(sent, before), before)
        return _compared(result, State.ALREADY_THERE, unlike)
    try:
        held = route.fetch(result)
    except NotReadable as reason:
        return Delivered(result=result, state=State.UNCHECKED, detail=str(reason))
    if held is None:
        detail = (
            "The PACS said that it stored it, but does not have it. It may file it later or have "
            "put it into quarantine: send again, and ask the PACS team if it stays away."
        )
        return Delivered(result=result, state=State.FAILED, detail=detail)
    return _compared(result, State.STORED, differences(sent, uncompressed(held)))


def _compared(result: Result, state: State, unlike: Sequence[str]) -> Delivered:
    if not unlike:
        return Delivered(result=result, state=state)
    detail = (
        f"It differs in {', '.join(unlike[:8])}{' and more' if len(unlike) > 8 else ''}. Ask the "
        "PACS team which rule changes what it files."
    )
    return Delivered(result=result, state=State.CHANGED, detail=detail)


def _uid(result: Result) -> str:
    return str(result.sop_instance)
