"""Sweep: the same comparison with each of several values of a configuration, in one table.

    simulate what each combination of values gives, on the same patients and splits
    choose   by the loss on validation patients; test patients are shown and choose nothing

The best of many on test patients would be too good: by chance one of them always is.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from common.config.changes import Changes, changes_of, parted, value_of
from common.platform.durable_files import replace_durably
from common.platform.errors import ConfigurationError, StateDamaged
from simulations.comparison.arms import Arm
from simulations.comparison.compare import Comparison

#: More would not be looked at, and take days.
_MOST = 200
#: Sections that decide whose losses they are, and what a loss is: such rows are not compared.
_OTHER_LOSSES = ("task", "cohort", "evaluation", "synthetic")
#: Arms by which a row is chosen, the first that was run.
_CHOOSING: tuple[Arm, ...] = ("federated", "federated_dp", "personalised", "pooled", "local")


@dataclass(frozen=True, kw_only=True)
class ArmFound:
    """What an arm gave with one combination of values, over all seeds and folds."""

    validation_loss: float | None  # mean over validation patients; None: there are none
    test: float | None  # headline metric on test patients; None: no value
    test_std: float  # over seeds
    epsilon: float | None  # the largest of the sites'
    sites: Mapping[str, float | None] = field(default_factory=dict)  # headline at each, as `test`


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One combination of values, and what it gave."""

    values: Mapping[str, object]  # by key
    folder: str  # below the sweep's
    arms: Mapping[Arm, ArmFound]  # none where the combination failed


def combinations(varied: Sequence[str]) -> tuple[dict[str, object], ...]:
    """Return every combination of the values of options KEY=A,B,...; the last key varies fastest.

    ConfigurationError where there is none, or more than 200.
    """
    if not varied:
        message = (
            "Nothing is varied. Give --vary KEY=A,B,... such as training.learning_rate=0.01,0.1"
        )
        raise ConfigurationError(message)
    axes = [[(key, value) for value in values] for key, values in map(_axis, varied)]
    keys = [axis[0][0] for axis in axes]
    if len(set(keys)) < len(keys):
        message = f"A key is varied twice in {', '.join(keys)}. Give all of its values at once."
        raise ConfigurationError(message)
    count = math.prod(map(len, axes))
    if count > _MOST:
        message = f"{count} combinations, expected at most {_MOST}. Vary fewer values at once."
        raise ConfigurationError(message)
    return tuple(dict(chosen) for chosen in itertools.product(*axes))


def _axis(given: str) -> tuple[str, list[object]]:
    key, text = parted(given)
    listed = value_of(key, text if text.startswith("[") else f"[{text}]")
    if not isinstance(listed, list) or not listed:
        message = f"{given!r} names no values: write {key}=A,B,... or {key}=[A, B]."
        raise ConfigurationError(message)
    if len({json.dumps(value, sort_keys=True, default=str) for value in listed}) < len(listed):
        message = f"{given!r} names a value twice."
        raise ConfigurationError(message)
    return key, listed


def with_set(values: Mapping[str, object], given: Sequence[str]) -> Changes:
    """Return the changes of one combination and of options --set, which hold for all."""
    beside = changes_of(given)
    twice = sorted(values.keys() & beside.keys())
    if twice:
        message = f"{twice[0]} is both set and varied. Give it once."
        raise ConfigurationError(message)
    return {**beside, **values}


def row_of(found: Comparison, values: Mapping[str, object], folder: str) -> SweepRow:
    """Return the row of a comparison."""
    return SweepRow(
        values=dict(values), folder=folder, arms={arm: _found(found, arm) for arm in found.arms}
    )


def _found(found: Comparison, arm: Arm) -> ArmFound:
    outcomes = [o for seed in found.seeds for o in found.outcomes[arm, seed]]
    losses = [loss for outcome in outcomes for loss in outcome.validation.values()]
    together = torch.cat(losses) if losses else torch.zeros(0)
    values = [v for seed in found.seeds if math.isfinite(v := found.value(arm, seed))]
    each = {
        cohort.name: [found.site_value(arm, seed, cohort.name) for seed in found.seeds]
        for cohort in found.cohorts
    }
    spent = [epsilon for outcome in outcomes for epsilon in outcome.epsilon.values()]
    return ArmFound(
        validation_loss=_known(float(together.double().mean())) if len(together) else None,
        test=statistics.fmean(values) if values else None,
        test_std=statistics.stdev(values) if len(values) > 1 else 0.0,
        epsilon=max(spent) if spent else None,
        sites={name: _known(statistics.fmean(several)) for name, several in each.items()},
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def chosen(rows: Sequence[SweepRow]) -> tuple[SweepRow, Arm] | None:
    """Return the row of the smallest validation loss, and the arm that it was chosen by.

    Each row is chosen by the first of its arms in that order. None where no row has a loss, or
    where the rows' losses are not of one kind: those of other tasks or other patients say nothing
    of each other.
    """
    if any(key.partition(".")[0] in _OTHER_LOSSES for row in rows for key in row.values):
        return None
    losses: list[tuple[float, int, Arm]] = []
    for number, row in enumerate(rows):
        arm = next((arm for arm in _CHOOSING if arm in row.arms), None)
        loss = None if arm is None else row.arms[arm].validation_loss
        if arm is not None and loss is not None:
            losses.append((loss, number, arm))
    if not losses:
        return None
    _, number, arm = min(losses)
    return rows[number], arm


# --- rows that are done ------------------------------------------------------------------


def keep_row(path: Path, key: str, row: SweepRow) -> None:
    """Keep a row that is done, under what it follows from."""
    text = json.dumps({"key": key, "row": asdict(row)}, indent=1, allow_nan=False)
    replace_durably(path, (text + "\n").encode())


def kept_row(path: Path, key: str) -> SweepRow | None:
    """Return the row that was done of the very same; None where there is none.

    StateDamaged where the file is none of ours.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["key"] != key:
            return None
        row = held["row"]
        arms = {arm: ArmFound(**found) for arm, found in row["arms"].items()}
        return SweepRow(values=row["values"], folder=row["folder"], arms=arms)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path} cannot be read ({error}). Remove it to do that combination again."
        raise StateDamaged(message) from error
