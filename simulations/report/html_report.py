"""report.html: what a comparison found.

Public: write_report.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from common.config.run_config import without_privacy
from common.platform.durable_files import replace_durably
from common.platform.html_page import page
from simulations.comparison.compare import Comparison, peak_rss_mb
from simulations.report.bundle_output import privacy_of, write_shared_model
from simulations.report.calibration import calibration
from simulations.report.confounder import confounder
from simulations.report.confusion import confusion_tables, confusion_words
from simulations.report.examples import examples
from simulations.report.pictures import Picture, curves, metric_name, shown, spread
from simulations.report.results import versions
from simulations.report.rows import main_arm
from simulations.report.seed_intervals import Intervals, intervals
from simulations.report.slides import slides
from simulations.report.tables import (
    arm_rows,
    constant_text,
    constants,
    left_out,
    metric_table,
    summary,
    told_of,
    verdict_rows,
)


def write_report(out: Path, found: Comparison) -> list[str]:
    """Write report.html, pictures/*.png and bundle/; return what it says beside the constant."""
    pictures = {picture.name: picture for picture in _drawn(found) if picture is not None}
    for picture in pictures.values():
        replace_durably(out / "pictures" / f"{picture.name}.png", picture.png)
    has_bundle = write_shared_model(out / "bundle", found)
    ends = intervals(found)
    lines = constants(found, ends)
    text = page_of(found, pictures, ends, lines, has_bundle=has_bundle)
    replace_durably(out / "report.html", text.encode())
    return lines


def _drawn(found: Comparison) -> Iterator[Picture | None]:
    yield from (curves(found), spread(found), calibration(found), examples(found), slides(found))


def page_of(
    found: Comparison,
    pictures: dict[str, Picture],
    ends: Intervals,
    lines: list[str],
    *,
    has_bundle: bool,
) -> str:
    """Return the page; everything that came from outside is escaped."""
    values = dict[str, object](
        found=found,
        config=found.config,
        without=without_privacy(found.config),
        summary=summary(found),
        arms=arm_rows(found, ends),
        metric_table=metric_table(found),
        confusion=confusion_tables(found),
        confusion_words=confusion_words(found.config),
        verdicts=verdict_rows(found),
        pictures=pictures,
        uri=data_uri,
        confounder=confounder(found),
        statements=_statements(found),
        left_out=left_out(found),
        configuration=_yaml(found),
        versions=versions(),
        timing=_timing(found),
        main=shown(main_arm(found)),
        has_bundle=has_bundle,
        folds=found.config.cohort.split.folds,
        shown=shown,
        isnan=math.isnan,
        constant=constant_text(found),
        constant_lines=lines,
        metric=metric_name(found),
        invented=_invented(found),
        told=told_of(found),
        sizes=[(c.name, len(c.items), len(c.items.patient)) for c in found.cohorts],
    )
    return page("simulations.report", "page.html", values)


def data_uri(png: bytes) -> str:
    """Return a picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


#: How `simulations.synthetic.hospitals` names the patients it makes up.
_MADE_UP = re.compile(r"SIM[0-9A-F]{12}")


def _invented(found: Comparison) -> bool:
    """Return whether every patient is made up."""
    return found.config.synthetic is not None and all(
        _MADE_UP.fullmatch(name) for c in found.cohorts for name in c.items.pseudonyms
    )


def _statements(found: Comparison) -> tuple[tuple[str, str], ...]:
    """Return the privacy statement of each arm that has a shared model."""
    return tuple(
        (shown(arm), privacy_of(found, arm))
        for arm in found.arms
        if arm in {"federated", "federated_dp"}
    )


def _yaml(found: Comparison) -> str:
    content = json.loads(found.config.canonical_json())
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _timing(found: Comparison) -> tuple[tuple[str, str], ...]:
    ratio = found.round_seconds / found.bare_round_seconds if found.bare_round_seconds else math.nan
    lines = [("whole comparison", f"{found.seconds:.1f} s")]
    if not math.isnan(found.round_seconds):
        lines.append(("federated round, median, with validation", f"{found.round_seconds:.4f} s"))
    if not math.isnan(found.bare_round_seconds):
        lines.append(("the same steps in a bare loop", f"{found.bare_round_seconds:.4f} s"))
    if not math.isnan(ratio):
        lines.append(("round / bare loop", f"{ratio:.2f}"))
    lines.append(("most memory of this process", f"{peak_rss_mb():.0f} MB"))
    return tuple(lines)
