"""Measurements as people read them: lines for a terminal, a page for a browser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from client.dicom.reasons import NOTICES, Unusable
from client.measurement.plan import MeasurePlan
from client.measurement.site_measurements import SiteMeasurements
from client.radiomics.feature import Feature
from client.radiomics.measured import MeasuredStructure
from client.site.terminal import as_text, say, table
from common.config.parts.units import after_number
from common.platform.code_hash import RELEASE
from common.platform.html_page import page

_HEAD = ("patient", "mask", "structure", "volume", "diameter", "sphericity", "mean")
#: Structures that a terminal shows without being asked for all.
_SHOWN = 20
_NAMED = 5  # patients that a reason is shown with


@dataclass(frozen=True, kw_only=True)
class ReasonLine:
    """What several patients have in common that were not measured, or are worth a look."""

    code: str
    meaning: str
    count: int
    examples: tuple[str, ...]


def lines_of(found: SiteMeasurements) -> Iterator[tuple[str, ...]]:
    """Yield a line for each structure that was measured, as in _HEAD."""
    for row in found.rows:
        who = row.patient or f"line {found.labels.lines[row.row]}"
        for mask in row.masks:
            for one in mask.structures:
                yield who, mask.name or "-", one.name, *_shown(one)
        for structure, value in row.fractions.items():
            yield who, "-", structure, f"ejection fraction {value:.1f} %", "", "", ""


def _shown(one: MeasuredStructure) -> tuple[str, str, str, str]:
    held = one.features
    spread = (
        f"{held[Feature.MEAN]:.4g} ± {held[Feature.STANDARD_DEVIATION]:.3g}"
        + after_number(one.unit)
        if Feature.MEAN in held
        else "-"
    )
    return (
        f"{one.volume / 1000:.2f} mL",
        f"{held[Feature.DIAMETER]:.1f} mm" if Feature.DIAMETER in held else "-",
        f"{held[Feature.SPHERICITY]:.3f}" if Feature.SPHERICITY in held else "-",
        spread,
    )


def reason_lines(problems: Iterable[Unusable]) -> list[ReasonLine]:
    """Return problems by reason, the most frequent first."""
    held = list(problems)
    return [
        ReasonLine(
            code=reason.name,
            meaning=reason.value,
            count=count,
            examples=tuple(
                f"{one.what}: {one.detail}" if one.detail else one.what
                for one in held
                if one.reason is reason
            )[:_NAMED],
        )
        for reason, count in Counter(one.reason for one in held).most_common()
    ]


def summary(found: SiteMeasurements) -> str:
    """Return in a sentence of how many rows anything was measured."""
    rows, held = len(found.rows), len(found.labels.rows)
    masks = sum(len(row.masks) for row in found.rows)
    return f"{found.name}: {masks} masks of {rows} of the table's {held} rows were measured."


def show(found: SiteMeasurements, *, every: bool) -> None:
    """Show what was measured, what was not, and why."""
    lines = [tuple(map(as_text, line)) for line in lines_of(found)]
    shown = lines if every else lines[:_SHOWN]
    if shown:  # a table without rows has no widths
        table([_HEAD, *shown])
    if len(shown) < len(lines):
        say(f"... and {len(lines) - len(shown)} more; --all shows each.")
    say(summary(found))
    _say_reasons("Not measured", reason_lines(found.left_out))
    odd = [problem for problem in found.unusable if problem.reason in NOTICES]
    _say_reasons("Measured, and worth a look", reason_lines(odd))


def _say_reasons(head: str, reasons: Sequence[ReasonLine]) -> None:
    for one in reasons:
        say(f"{head}: {one.count} x {one.code}. {one.meaning}")
        say(f"  {as_text(one.examples[0])}{' and others' if one.count > 1 else ''}")


def html_of(found: Sequence[SiteMeasurements], plan: MeasurePlan) -> str:
    """Return the page of one or several sites; it names patients, and stays where they are."""
    sites = [
        {
            "summary": summary(one),
            "lines": list(lines_of(one)),
            "left_out": reason_lines(one.left_out),
            "notices": reason_lines(p for p in one.unusable if p.reason in NOTICES),
        }
        for one in found
    ]
    values = {"sites": sites, "head": _HEAD, "release": RELEASE, "plan": plan.fingerprint[:12]}
    return page("client.measurement", "measurements.html", values)
