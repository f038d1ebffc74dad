"""A site's cohort: all usable items, and the part of each patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from client.cohort.split import Part, SplitKey, part_of
from client.dicom.reasons import Reason, Unusable
from client.slides.tiles import SlideView
from common.config.run_config import Split
from common.data.kept_items import Items, taken
from common.data.sample import Patients


@dataclass(frozen=True, kw_only=True)
class SiteCohort:
    """All usable items of a site, before they are split; stays at the site."""

    name: str
    items: Patients
    given: Mapping[str, Part]  # by pseudonym: the split that labels.csv gives
    confounder: tuple[str, ...]  # of each item; empty strings where there is none
    unusable: tuple[Unusable, ...]
    sources: tuple[str, ...] = ()  # of each item: its file (2-D) or series (3-D)
    #: Of whole slides, by source: their small pictures, with a box a tile in the items' order.
    views: Mapping[str, SlideView] = field(default_factory=dict)
    #: Why the run cannot learn here, where it has privacy and goes on all the same; else empty.
    doubt: str = ""
    #: By rule of cohort.images.series, by how it fared (matched, ambiguous, missing): patients.
    fared: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    #: By pseudonym: (channel, *spatial), the first image of a few patients, for people to look at.
    examples: Mapping[str, Tensor] = field(default_factory=dict)

    def with_images(self, image: Items) -> SiteCohort:
        """Return the cohort with other image tensors, such as features, one per item."""
        return replace(self, items=replace(self.items, image=image))

    def parts(self, rules: Split, key: SplitKey, fold: int = 0) -> dict[str, Part]:
        """Return each patient's part, by pseudonym."""
        given = self.given
        return {p: part_of(p, given.get(p), rules, key, fold) for p in self.items.pseudonyms}

    def split(self, rules: Split, key: SplitKey, fold: int = 0) -> dict[Part, Patients]:
        """Return the patients of each part."""
        parts = self.parts(rules, key, fold)
        found: dict[Part, Patients] = {}
        for part in ("train", "validation", "test"):
            members = [i for i, p in enumerate(self.items.pseudonyms) if parts[p] == part]
            found[part] = patients_at(self.items, members)
        return found

    def reasons(self) -> Counter[Reason]:
        """Return how often each reason left something out."""
        return Counter(problem.reason for problem in self.unusable)


def patients_at(patients: Patients, positions: list[int]) -> Patients:
    """Return the patients at these positions, renumbered."""
    wanted = torch.tensor(positions, dtype=torch.int64)
    number = torch.full((len(patients),), -1, dtype=torch.int64)
    number[wanted] = torch.arange(len(positions))
    owner = number[patients.patient]
    keep = torch.nonzero(owner >= 0).flatten()
    # Items of one patient must stand together, in the order of `positions`.
    keep = keep[owner[keep].argsort(stable=True)]
    return Patients(
        image=taken(patients.image, keep),
        table=patients.table[keep],
        target=taken(patients.target, keep),
        patient=owner[keep],
        pseudonyms=tuple(patients.pseudonyms[i] for i in positions),
    )
