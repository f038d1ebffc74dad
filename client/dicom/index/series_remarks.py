"""Remarks on a series as a whole, from its slices' headers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from client.dicom.headers.instance import Instance
from client.dicom.remarks import Remark

#: Slices that move sideways by more than this part of their way are sheared: half a degree.
_STRAIGHT = 0.0087


def series_remarks(images: Iterable[Instance]) -> Mapping[str, frozenset[Remark]]:
    """Return the remarks on each series, by SeriesInstanceUID; series without any are left out."""
    series: dict[str, list[Instance]] = defaultdict(list)
    for image in images:
        series[image.series].append(image)
    found: dict[str, frozenset[Remark]] = {}
    for name, slices in series.items():
        seen = {
            Remark.RESCALE_VARIES: len({(s.slope or 1, s.intercept or 0) for s in slices}) > 1,
            Remark.GANTRY_TILT: _is_tilted(slices),
        }
        remarks = frozenset(remark for remark, true in seen.items() if true)
        if remarks:
            found[name] = remarks
    return found


def _is_tilted(slices: list[Instance]) -> bool:
    """Return whether slices move sideways on their way, all of them alike (PS3.3 C.7.6.2.1.1)."""
    places = [p for s in slices for p in s.positions]
    turns = [o for s in slices for o in s.orientations]
    if len(places) < 2 or len(set(turns)) > 1:
        return False
    normal = np.cross(turns[0][:3], turns[0][3:])
    order = np.argsort(np.array(places) @ normal)
    way = np.array(places)[order[-1]] - np.array(places)[order[0]]
    along = abs(float(way @ normal))
    aside = float(np.linalg.norm(way - (way @ normal) * normal))
    return along > 0 and aside / along > _STRAIGHT
