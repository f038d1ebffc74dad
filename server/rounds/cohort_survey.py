"""cohort.json: what sites said of their cohorts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from common.messages.cohort_statistics import CohortStatistics, MergedTable, merge_cohorts
from common.platform.errors import StateDamaged


@dataclass(frozen=True, kw_only=True)
class Survey:
    """All that was said."""

    run: str
    asked_at: str  # ISO time, UTC
    sites: Mapping[str, CohortStatistics]  # by site that told
    not_told: Mapping[str, str] = field(default_factory=dict)  # by site that did not: why
    epsilon: Mapping[str, float] = field(default_factory=dict)  # by site whose counts are noised

    def merged(self) -> dict[str, MergedTable]:
        """Return the sum over the sites that told."""
        return merge_cohorts(self.sites)

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        found: dict[str, object] = _SURVEY.dump_python(self, mode="json")
        return found


_SURVEY = TypeAdapter(Survey)


def parse_survey(text: str) -> Survey:
    """Return what `to_json` gave, as JSON text; StateDamaged where it is something else."""
    try:
        return _SURVEY.validate_json(text)
    except ValidationError as error:
        message = f"The service said something else of the cohorts: {str(error)[:200]}"
        raise StateDamaged(message) from error


def read_survey(path: Path) -> Survey | None:
    """Return what was kept; None where nothing was, StateDamaged where it cannot be read."""
    try:
        return _SURVEY.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        message = f"{path} is damaged: {str(error)[:200]}. Restore it; the run itself needs it not."
        raise StateDamaged(message) from error
