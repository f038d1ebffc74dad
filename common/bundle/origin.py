"""Origin of a bundle's model: run, sites, rounds, hashes.

Public: Origin, SiteShare, origin_json, origin_text, count_text, KINDS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from common.config.privacy import Known

#: What stands beside a number of patients.
KINDS = (
    "Agreed: a round number fixed in public before the run, the exact one stays at the site. "
    "Noised: counted, with noise that was charged. Exact: counted."
)
Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | float | int | bool | None"


@dataclass(frozen=True, kw_only=True)
class SiteShare:
    """What a site put in, as far as it told; None: not told, or fewer than the smallest cell."""

    rounds: int  # whose sums hold its update
    training_patients: int | None
    test_patients: int | None
    epsilon: float | None
    delta: float | None
    common_epsilon: float | None = None  # of training, at delta 1e-5
    training_patients_are: Known = "exact"
    test_patients_are: Known = "exact"
    #: What measuring the model cost each test patient, at delta 1e-5.
    test_common_epsilon: float | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model of a run between hospitals comes from."""

    run: str
    finished: bool  # False: the run was stopped before its last round
    journal: str  # hash of the last line of the run's journal
    code: str  # hash of the code that wrote the bundle, `common.platform.code_hash.bundle_hash`
    sites: Mapping[str, SiteShare]
    rounds: tuple[Mapping[str, Json], ...]  # round by round, as in the journal


def origin_json(origin: Origin) -> dict[str, Json]:
    """Return plain values."""
    return {
        "run": origin.run,
        "finished": origin.finished,
        "journal": origin.journal,
        "code": origin.code,
        "sites": {name: asdict(share) for name, share in origin.sites.items()},
        "rounds": origin.rounds,
    }


def origin_text(origin: Origin) -> str:
    """Return the section of README.md; it ends with a blank line."""
    state = "finished" if origin.finished else "stopped before its last round"
    rows = "\n".join(
        f"| {name} | {share.rounds} | "
        f"{count_text(share.training_patients, share.training_patients_are)} | "
        f"{count_text(share.test_patients, share.test_patients_are)} | "
        f"{_figure(share.epsilon)} | {_figure(share.common_epsilon)} | "
        f"{_figure(share.test_common_epsilon)} |"
        for name, share in sorted(origin.sites.items())
    )
    return f"""\
## Where it comes from

Run `{origin.run}`, {state}, {len(origin.rounds)} rounds. SHA-256 of the last line of its
journal: `{origin.journal}`; of the code that wrote this: `{origin.code}`.

| site | rounds | training patients | test patients | epsilon | at delta 1e-5 | measuring |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

A dash: the site does not tell, or there are too few to be told. {KINDS}
Epsilon is for each training patient; measuring is epsilon at delta 1e-5 for each test patient, who
trains nothing. `card.json` has every round.

"""


def count_text(number: int | None, known: Known) -> str:
    """Return a number of patients and what it is; a dash where there is none."""
    return "-" if number is None else f"{number} {known}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
