"""nnU-Net's rules, on published cohorts and on what sites tell of theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.config.parts.ranges import bin_of, bins
from common.config.run_config import load_config, parse_config
from common.messages.cohort_statistics import (
    AXES,
    AXIS_EXTENTS,
    AXIS_SPACINGS,
    CohortStatistics,
    StatisticsTable,
    extent_table,
    merge_cohorts,
    spacing_table,
)
from common.platform.errors import CohortError, ConfigurationError
from server.planning.patch_plan import Fingerprint, Triple, fingerprint_of, plan
from server.planning.planned_run import proposed

#: Medians of the Medical Segmentation Decathlon and ACDC (spacing in mm, shape in voxels), volumes,
#: structures; and the spacing and patch of nnU-Net (2021, supplement): those of brain tumour, lung
#: and vessels were looked up, the others stand as remembered.
PUBLISHED: dict[str, tuple[Triple, Triple, float, int, Triple, Triple]] = {
    "brain tumour": ((1, 1, 1), (138, 170, 138), 484, 3, (1, 1, 1), (128, 128, 128)),
    "heart": ((1.37, 1.25, 1.25), (115, 320, 232), 20, 1, (1.37, 1.25, 1.25), (80, 192, 160)),
    "liver": ((1, 0.77, 0.77), (482, 512, 512), 131, 2, (1, 0.77, 0.77), (128, 128, 128)),
    "hippocampus": ((1, 1, 1), (36, 50, 35), 260, 2, (1, 1, 1), (40, 56, 40)),
    "prostate": ((3.6, 0.62, 0.62), (20, 320, 319), 32, 2, (3.6, 0.62, 0.62), (20, 320, 256)),
    "lung": ((1.24, 0.78, 0.78), (252, 512, 512), 63, 1, (1.24, 0.78, 0.78), (80, 192, 160)),
    "pancreas": ((2.5, 0.8, 0.8), (96, 512, 512), 282, 2, (2.5, 0.8, 0.8), (40, 224, 224)),
    "vessels": ((1.5, 0.8, 0.8), (150, 512, 512), 303, 2, (1.5, 0.8, 0.8), (64, 192, 192)),
    "spleen": ((1.6, 0.79, 0.79), (187, 512, 512), 41, 1, (1.6, 0.79, 0.79), (64, 192, 160)),
    "colon": ((3, 0.78, 0.78), (150, 512, 512), 126, 1, (3, 0.78, 0.78), (56, 192, 160)),
    # Thick slices: the tenth percentile of the coarse axis, not its median of 10 mm.
    "cardiac cine": ((10, 1.56, 1.56), (9, 256, 216), 200, 3, (5, 1.56, 1.56), (20, 256, 224)),
}


def exact(spacing: Triple, shape: Triple, volumes: float) -> Fingerprint:
    fine = (5.0, spacing[1], spacing[2]) if spacing[0] == 10 else spacing
    a, b, c = (mm * n for mm, n in zip(spacing, shape, strict=True))
    return Fingerprint(
        spacing=spacing, fine_spacing=fine, extent=(a, b, c), shape=shape, volumes=volumes
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_plans_are_those_that_nnunet_published(name: str) -> None:
    """Spacing exactly; the patch within one halving of the network."""
    spacing, shape, volumes, structures, expected, patch = PUBLISHED[name]
    found = plan(exact(spacing, shape, volumes), structures)
    assert found.spacing == expected
    for side, published, halved in zip(found.patch, patch, found.poolings, strict=True):
        assert abs(side - published) <= 2**halved
        assert side % 2**halved == 0
        assert side / 2**halved >= 4
    assert found.batch >= 2


def test_all_published_patches_but_one_are_met_to_the_voxel() -> None:
    plans = {n: plan(exact(s, v, c), k).patch for n, (s, v, c, k, _, _) in PUBLISHED.items()}
    assert [n for n, p in plans.items() if p != PUBLISHED[n][5]] == ["colon"]


def test_small_volumes_go_whole_and_many_a_step_and_less_memory_is_a_smaller_patch() -> None:
    hippocampus = exact((1, 1, 1), (36, 50, 35), 260)
    assert plan(hippocampus, 2).batch == 9  # as published
    assert plan(exact((1, 1, 1), (36, 50, 35), 8), 2).batch == 2  # 5 % of the voxels
    large = exact((1, 0.77, 0.77), (482, 512, 512), 131)
    few, many = (np.prod(plan(large, 2, gb).patch) for gb in (2.0, 8.0))
    assert few < many


# --- from counts -------------------------------------------------------------------------------


def told(spacings: np.ndarray, extents: np.ndarray, noise: float = 0.0) -> CohortStatistics:
    """Return what a site tells of volumes, (volumes, 3) of mm each."""
    draw, tables = np.random.default_rng(0), {}
    for axis, name in enumerate(AXES):
        for table, values, edges in (
            (spacing_table(name), spacings[:, axis], AXIS_SPACINGS),
            (extent_table(name), extents[:, axis], AXIS_EXTENTS),
        ):
            rows: dict[str, float | None] = dict.fromkeys(bins(edges), 0.0)
            for value in values:
                rows[bin_of(float(value), edges)] = (rows[bin_of(float(value), edges)] or 0.0) + 1
            noised = {r: (n or 0.0) + noise * draw.standard_normal() for r, n in rows.items()}
            tables[table] = StatisticsTable(unit="patients", rows=noised)
    used: dict[str, float | None] = {"found": None, "used": len(spacings), "left out": 0.0}
    tables["patients"] = StatisticsTable(unit="patients", rows=used)
    return CohortStatistics(smallest=5, noise=noise, tables=tables)


def cohort(volumes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    spacings = np.array([1.24, 0.78, 0.78]) * np.exp(0.2 * draw.standard_normal((volumes, 3)))
    extents = np.array([312, 400, 400]) * np.exp(0.1 * draw.standard_normal((volumes, 3)))
    return spacings, extents


@pytest.mark.parametrize("noise", [0.0, 10.0])
def test_medians_of_counts_are_within_one_range_of_the_truth(noise: float) -> None:
    spacings, extents = cohort(300)
    parts = {
        "a": told(spacings[:150], extents[:150], noise),
        "b": told(spacings[150:], extents[150:]),
    }
    found = fingerprint_of(merge_cohorts(parts), 300)
    for truth, guess, edges in (
        (np.median(spacings, 0), found.spacing, AXIS_SPACINGS),
        (np.quantile(spacings, 0.1, axis=0), found.fine_spacing, AXIS_SPACINGS),
        (np.median(extents, 0), found.extent, AXIS_EXTENTS),
    ):
        for one, other in zip(truth, guess, strict=True):
            places = [list(bins(edges)).index(bin_of(float(v), edges)) for v in (one, other)]
            assert abs(places[0] - places[1]) <= 1


def test_where_nothing_is_told_of_an_axis_nothing_is_planned() -> None:
    spacings, extents = cohort(20)
    held = told(spacings, extents)
    silent = StatisticsTable(
        unit="patients", rows=dict.fromkeys(held.tables["row spacing (mm)"].rows)
    )
    parts = {
        "a": CohortStatistics(
            smallest=5, noise=0.0, tables={**held.tables, "row spacing (mm)": silent}
        )
    }
    with pytest.raises(CohortError, match="No site told the table row spacing"):
        fingerprint_of(merge_cohorts(parts), 20)


RUN = """
name: patches
task: {kind: segmentation}
cohort: {images: {patch: [16, 16, 16], spacing: [2.0, 2.0, 2.0]}}
model: {network: unet, width: 4}
training: {rounds: 1}
PRIVACY
"""
PRIVATE = "privacy: {unit: patient, epsilon: 2.0, default_patients: 20}"


def test_a_proposal_is_a_run_to_look_at_and_changes_no_file(tmp_path: Path) -> None:
    path, out = tmp_path / "run.yaml", tmp_path / "new.yaml"
    path.write_text(before := RUN.replace("PRIVACY", "privacy: none"))
    found = proposed(path, {"a": told(*cohort(60)), "b": told(*cohort(60, 1), noise=3.0)})
    assert found.text.startswith("# PROPOSED, not in force")
    assert "b told counts with noise of 3 patients, which it charged." in found.text
    found.written(out)
    read = load_config(out)
    assert read == found.config
    assert read.cohort.images is not None
    assert read.cohort.images.patch is not None
    assert all(side % 8 == 0 for side in read.cohort.images.patch)  # what the U-Net takes
    assert (read.training.batch_patients, read.training.patches_per_patient) == (
        found.plan.batch,
        1,
    )
    assert read.fingerprint() != parse_config(before).fingerprint()
    assert path.read_text() == before
    with pytest.raises(ConfigurationError, match="a proposal replaces nothing"):
        found.written(out)


def test_a_private_run_keeps_its_batch(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(RUN.replace("PRIVACY", PRIVATE))
    found = proposed(path, {"a": told(*cohort(60), noise=3.0)})
    assert found.config.training == load_config(path).training
    assert "the batch is left as it was" in found.text


def test_a_run_without_patches_of_volumes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        RUN.replace("PRIVACY", "privacy: none").replace("patch: [16, 16, 16]", "size: [16, 16, 16]")
    )
    with pytest.raises(ConfigurationError, match="there is no patch to plan"):
        proposed(path, {})
