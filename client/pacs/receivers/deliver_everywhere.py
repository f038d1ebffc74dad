"""Delivery of reports to those whom `results` of site.yaml names, beside the PACS.

Sending again is safe, as to the PACS: what a receiver has, or has acknowledged, is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from client.pacs.receivers.fhir_transaction import deliver_fhir
from client.pacs.receivers.mllp import deliver_hl7
from client.pacs.sending.delivery import Delivered, deliver
from client.results.identity import Kind
from client.results.writing import Result
from client.site.pacs_section import PacsConfig
from client.site.results_section import ResultReceivers
from common.platform.errors import WardroundError


def deliver_everywhere(
    results: Sequence[Result], pacs: PacsConfig | None, receivers: ResultReceivers
) -> tuple[tuple[Delivered, ...], WardroundError | None]:
    """Bring results to the PACS, and each report to every receiver; return what became of them.

    What one result is refused for is said of it. Where somebody cannot be used as a whole
    (Unreachable, TrustRefused, ConfigurationError) the others get theirs all the same, and the
    first such error is returned: the same call then goes on where it ended.
    """
    found: list[Delivered] = []
    fault: WardroundError | None = None
    for step in _steps(results, pacs, receivers):
        try:
            found += step()
        except WardroundError as error:
            fault = fault or error
    return tuple(found), fault


def _steps(
    results: Sequence[Result], pacs: PacsConfig | None, receivers: ResultReceivers
) -> Iterator[Callable[[], Sequence[Delivered]]]:
    if pacs is not None:
        yield partial(deliver, results, pacs)
    reports = [result for result in results if result.kind is Kind.DIAGNOSTIC_REPORT]
    if receivers.fhir is not None:
        yield partial(_each, reports, partial(deliver_fhir, receiver=receivers.fhir))
    if receivers.hl7 is not None:
        yield partial(_each, reports, partial(deliver_hl7, receiver=receivers.hl7))


def _each(
    reports: Sequence[Result], deliver_one: Callable[[Result], Delivered]
) -> Sequence[Delivered]:
    return [deliver_one(report) for report in reports]
