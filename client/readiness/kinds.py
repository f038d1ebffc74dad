"""Images of a folder by modality, with their peculiarities."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median

from client.dicom.headers.instance import Instance
from client.dicom.index.series_remarks import series_remarks
from client.readiness.report import KindRow


def remarks(rows: Sequence[Instance]) -> tuple[tuple[str, int, str], ...]:
    """Return what is peculiar, on how many images, and what was done about it."""
    series = series_remarks(rows)
    counts = Counter(
        remark for row in rows for remark in row.remarks | series.get(row.series, frozenset())
    )
    return tuple((remark.name, count, remark.value) for remark, count in counts.most_common())


def kinds(rows: Sequence[Instance]) -> tuple[KindRow, ...]:
    """Return a line for each modality."""
    by_kind: dict[str, list[Instance]] = defaultdict(list)
    for row in rows:
        by_kind[row.modality or "unknown"].append(row)
    return tuple(_kind(name, by_kind[name]) for name in sorted(by_kind))


def _kind(name: str, rows: Sequence[Instance]) -> KindRow:
    spacings = [row.spacing[0] for row in rows if row.spacing]
    spacing = "not told"
    if spacings:
        spacing = f"{median(spacings):.3g} ({min(spacings):.3g} to {max(spacings):.3g})"
    sizes = Counter(f"{row.rows} x {row.columns}" for row in rows)
    makers = Counter(row.manufacturer or "not told" for row in rows)
    return KindRow(
        modality=name,
        patients=len({row.patient for row in rows}),
        studies=len({row.study for row in rows}),
        series=len({row.series for row in rows}),
        images=len(rows),
        spacing=spacing,
        size=sizes.most_common(1)[0][0],
        makers=", ".join(f"{maker} {count}" for maker, count in makers.most_common(3)),
    )
