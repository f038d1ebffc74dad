"""The hospitals of a run: read from folders, invented, or dealt from one source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from client.cohort.site_cohort import SiteCohort
from client.site.cache import Cache
from common.config.run_config import RunConfig
from common.platform.errors import ConfigurationError
from simulations.comparison.cohorts import Hospitals, hospital_folders, load_hospitals, what_is_read
from simulations.comparison.not_used import not_used_rows
from simulations.comparison.virtual_sites import SKEWS, Deal, Skew, deal
from wardround.progress import reading
from wardround.showing import as_html, as_text, frame, table_of_rows

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


@dataclass(frozen=True, kw_only=True, repr=False)
class Cohorts:
    """Hospitals that were read for a run. They hold patients: keep them where the data may be."""

    run: RunConfig  # that they were read for; others that read the same may use them
    hospitals: Hospitals
    folder: Path  # for the cache of prepared images, ledgers, and what an interruption leaves

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the hospitals that can be used: those of their folders."""
        return tuple(cohort.name for cohort in self.hospitals.cohorts)

    @property
    def left_out(self) -> dict[str, str]:
        """Hospitals that cannot be used at all, and why."""
        return dict(self.hospitals.left_out)

    def __len__(self) -> int:
        """Return how many hospitals can be used."""
        return len(self.names)

    def __getitem__(self, name: str) -> Cohorts:
        """Return one hospital alone; ConfigurationError where there is none of that name."""
        chosen = tuple(c for c in self.hospitals.cohorts if c.name == name)
        if not chosen:
            message = f"There is no hospital {name!r}; expected one of {', '.join(self.names)}."
            raise ConfigurationError(message)
        return _those(self, chosen)

    def __iter__(self) -> Iterator[str]:
        """Yield the hospitals' names."""
        return iter(self.names)

    def frame(self) -> pd.DataFrame:
        """Return a row for each hospital: site, patients, images (0 without), not_used.

        not_used counts files, rows and patients that were left out; `not_used()` lists them.
        """
        return frame(
            ("site", "patients", "images", "not_used"),
            [self._facts(c) for c in self.hospitals.cohorts],
        )

    def not_used(self) -> pd.DataFrame:
        """Return a row for each file, row and patient that was left out.

        Columns: site, reason (its code), what, detail, meaning (in words, with the remedy). It
        names files and patients, so it belongs beside the data and nowhere else.
        """
        columns = ("site", "reason", "what", "detail", "meaning")
        rows = [dict(zip(columns, row, strict=True)) for row in not_used_rows(self.hospitals)]
        return frame(columns, rows)

    def _facts(self, cohort: SiteCohort) -> dict[str, object]:
        return {
            "site": cohort.name,
            "patients": len(cohort.items),
            "images": len(cohort.items.patient) if self.run.cohort.images is not None else 0,
            "not_used": len(cohort.unusable),
        }

    def _table(self) -> Table:
        rows = [[str(value) for value in self._facts(c).values()] for c in self.hospitals.cohorts]
        title = f"{self.run.name}: {len(self)} hospital{'s' * (len(self) != 1)}"
        found = table_of_rows(title, ("site", "patients", "images", "not used"), rows)
        reasons = Counter(r.name for c in self.hospitals.cohorts for r in c.reasons().elements())
        notes = [f"not used: {n} x {reason}" for reason, n in reasons.most_common(4)]
        notes += [f"{name} is left out: {why}" for name, why in self.left_out.items()]
        found.caption = "\n".join(notes) or None
        found.caption_justify = "left"
        return found

    def __repr__(self) -> str:
        return as_text(self._table())

    def _repr_html_(self) -> str:
        return as_html(self._table())


def cohorts(
    run: RunConfig,
    data: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    *,
    folder: str | PathLike[str] | None = None,
    progress: bool = True,
) -> Cohorts:
    """Read the hospitals of a run: DICOM headers and pixels, table of labels, joined by patient.

    data: a folder with one folder for each hospital, or one hospital's folder, or a list of
        hospitals' folders. A hospital's folder holds DICOM files anywhere below it and a
        labels.csv (docs/researcher.md). None stands for the run's invented hospitals.
    folder: where prepared images, invented hospitals and ledgers are kept, by default runs/NAME
        as the command does: what was read once is not read again.
    progress: whether to tell of each hospital as it is read.

    What cannot be used is left out and listed (`Cohorts.not_used()`); a hospital that cannot be
    used at all is in `Cohorts.left_out`. Images become float32 tensors (items, channels, *size),
    size in pixels as cohort.images says, or features (items, features) where the network is
    frozen_features.

    Raises CohortError where there is no folder, no hospital in it, or none that can be used, and
    ConfigurationError without data for a run that has no invented hospitals.
    """
    place = Path("runs") / run.name if folder is None else Path(folder)
    folders = _folders(run, data, place)
    with reading(shown=progress, ends="All hospitals were read.") as tell:
        found = load_hospitals(run, folders, Cache(place / "cache"), tell)
    return Cohorts(run=run, hospitals=found, folder=place)


def _folders(
    run: RunConfig, data: str | PathLike[str] | Sequence[str | PathLike[str]] | None, place: Path
) -> tuple[Path, ...]:
    """Return one folder a hospital."""
    if data is None:
        return hospital_folders(run, None, place)
    if isinstance(data, str | PathLike):
        one = Path(data)
        return (one,) if (one / "labels.csv").is_file() else hospital_folders(run, one, place)
    folders = tuple(Path(each) for each in data)
    names = Counter(path.resolve().name for path in folders)
    if not folders or max(names.values()) > 1:
        twice = ", ".join(name for name, count in names.items() if count > 1) or "no folder at all"
        message = (
            f"data has {twice}; expected hospitals' folders, each with a name of its own. Rename "
            "one of them."
        )
        raise ConfigurationError(message)
    return folders


def partition(
    source: Cohorts,
    sites: int,
    *,
    by: Skew = "label",
    alpha: float = 0.5,
    mixing: float = 0.0,
    seed: int = 0,
    smallest: int = 2,
) -> Cohorts:
    """Deal one hospital's patients to several sites: virtual ones, and say so beside any figure.

    source: one hospital, such as `cohorts(run, data="one-hospital")` or `sites["north"]`.
    sites: how many; they are called NAME-1, NAME-2, ...
    by: "label" gives each its own mix of outcomes, "quantity" its own number of patients; "group"
        keeps patients together who have the same value of cohort.confounder, such as the scanner.
    alpha: of label and quantity: shares are of a Dirichlet distribution; above 0, less is more
        skew.
    mixing: of group: the part of all patients, 0 to 1, that is dealt evenly all the same.
    seed: the same seed gives the same sites.
    smallest: patients that each site has at least.

    Every patient is at exactly one site, with all of their images. What could not be used stays
    listed with the source.

    Raises ConfigurationError where there is more than one hospital, or too few patients.
    """
    if len(source) != 1:
        message = (
            f"partition takes one hospital, found {len(source)}: {', '.join(source.names)}. Give "
            "one of them, such as sites[NAME]."
        )
        raise ConfigurationError(message)
    if by not in SKEWS:
        message = f"by={by!r}, expected one of {', '.join(SKEWS)}."
        raise ConfigurationError(message)
    wanted = Deal(sites=sites, by=by, alpha=alpha, mixing=mixing, seed=seed, smallest=smallest)
    return _those(source, deal(source.hospitals.cohorts[0], source.run, wanted))


def _those(of: Cohorts, cohorts: tuple[SiteCohort, ...]) -> Cohorts:
    found = Hospitals(cohorts=cohorts, left_out={})
    return Cohorts(run=of.run, hospitals=found, folder=of.folder)


def check_read_for(sites: Cohorts, run: RunConfig, *, with_privacy: bool = True) -> None:
    """Refuse hospitals that were read for a run that reads otherwise; ConfigurationError."""
    ours, theirs = (what_is_read(each, with_privacy=with_privacy) for each in (run, sites.run))
    odd = [name for name in ours if ours[name] != theirs[name]]
    if odd:
        message = (
            f"The hospitals were read for run {sites.run.name}, which reads otherwise than "
            f"{run.name}: {', '.join(odd)}. Read them for this run: cohorts(run, ...)."
        )
        raise ConfigurationError(message)
