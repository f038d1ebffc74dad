"""A configuration with planned spacing, patch and batch, for people to look at and approve.

Public: PlannedRun, check_plannable, proposed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.config.network_sizes import SizeRule, rule_of
from common.config.run_config import RunConfig, load_config
from common.messages.cohort_statistics import CohortStatistics, merge_cohorts
from common.platform.durable_files import replace_durably
from common.platform.errors import ConfigurationError
from server.planning.patch_plan import PatchPlan, fingerprint_of, plan, usual_share

#: GB of the memory that nnU-Net plans for.
MEMORY_GB = 8.0


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """What was planned, and the run that would take it."""

    plan: PatchPlan
    config: RunConfig
    remarks: tuple[str, ...]  # a line each: from what, and what it means

    @property
    def text(self) -> str:
        """The configuration as YAML, the remarks above it."""
        return "".join(f"# {line}\n" for line in self.remarks) + self.config.to_yaml()

    def written(self, path: Path) -> None:
        """Write the text to a file that is not there yet; ConfigurationError where one is."""
        if path.exists():
            message = (
                f"{path} is there already, and a proposal replaces nothing. Give another name."
            )
            raise ConfigurationError(message)
        replace_durably(path, self.text.encode())


def check_plannable(config: RunConfig) -> None:
    """Refuse a run that takes no patches of volumes: its sites tell nothing to plan from."""
    images = config.cohort.images
    if images is None or images.patch is None or images.dimensions != 3 or not config.task.outlines:
        message = (
            f"{config.name} takes no patches of volumes, so there is no patch to plan. Give its "
            "configuration cohort.images.patch (three voxels) and spacing, of any size, in place "
            "of size; the proposal has other ones."
        )
        raise ConfigurationError(message)


def proposed(
    path: Path, sites: Mapping[str, CohortStatistics], memory_gb: float = MEMORY_GB
) -> PlannedRun:
    """Return the run in a file with planned values, from what sites told of their cohorts."""
    config = load_config(path)
    check_plannable(config)
    tables = merge_cohorts(sites)
    people = tables.get("patients")
    volumes = 0.0 if people is None else people.rows["used"].told
    structures = len(config.task.labels) - 1  # without the background
    found = plan(fingerprint_of(tables, volumes), structures, memory_gb)
    share = usual_share(tables)
    patch = [_rule(config).nearest(side) for side in found.patch]
    changes: dict[str, object] = {
        "cohort.images.spacing": [round(mm, 3) for mm in found.spacing],
        "cohort.images.patch": patch,
    }
    if config.privacy == "none":
        changes |= {"training.batch_patients": found.batch, "training.patches_per_patient": 1}
    remarks = (
        "PROPOSED, not in force: look at it, then propose it to the sites as any run.",
        f"By nnU-Net's rules, for {memory_gb:g} GB, from counts of {', '.join(sorted(sites))}.",
        *_remarks(found, config, patch),
        *([f"In a median volume a share of {share} lies in structures."] if share else []),
        *(
            f"{site} told counts with noise of {told.noise:g} patients, which it charged."
            for site, told in sorted(sites.items())
            if told.noise > 0
        ),
    )
    return PlannedRun(plan=found, config=load_config(path, changes), remarks=remarks)


def _remarks(found: PatchPlan, config: RunConfig, patch: list[int]) -> Iterator[str]:
    yield "Counts are of public ranges; a median is the middle of the range that holds it."
    yield f"A median volume has {_times(found.shape)} voxels at this spacing."
    yield (
        f"nnU-Net's patch would be {_times(found.patch)}, its axes halved {_times(found.poolings)} "
        f"times ({found.levels} levels), {found.batch} a step."
    )
    if list(found.patch) != patch:
        yield (
            f"{config.model.network} takes sides that are multiples of {_rule(config).multiple}: "
            f"the patch is {_times(patch)}."
        )
    if config.privacy != "none":
        yield "Who is in a step is part of the run's privacy, so the batch is left as it was."


def _rule(config: RunConfig) -> SizeRule:
    return rule_of(config.model, 3) or SizeRule()


def _times(values: tuple[int, ...] | list[int]) -> str:
    return " x ".join(map(str, values))
