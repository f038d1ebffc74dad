"""Cohorts of strangers through the real command: right results, honest counts, exit status."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.end_to_end import hospitals
from tests.end_to_end.command import compare

pytestmark = pytest.mark.slow

_SMALL = "model: {network: small_cnn, width: 8}"
_SPLIT = "split: {test_fraction: 0.3, validation_fraction: 0.15}"
_END = """
evaluation: {bootstrap: 20}
privacy: none
"""


def _training(rounds: int, more: str = "batch_patients: 8, learning_rate: 0.005") -> str:
    return f"training: {{rounds: {rounds}, local_steps: 6, optimizer: adamw, {more}}}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A cohort, what to learn from it, and what must come out."""

    write: Callable[[Path], None]
    config: str
    metric: str
    above: float
    counted: dict[str, tuple[int, int]]  # patients and images
    arms: str = "pooled,federated"
    not_used: Counter[str] = field(default_factory=Counter)


CASES = {
    "rgb": Case(
        write=hospitals.skin_clinics,
        arms="local,federated",
        metric="auroc",
        above=0.95,
        counted={"by pixel": (30, 30), "by plane": (30, 30), "jpeg": (30, 30)},
        config=f"""
name: skin
task: {{kind: diagnosis, type: binary, target: diagnosis, classes: [naevus, melanoma]}}
cohort:
  images: {{size: [32, 32], channels: 3, intensity: window, window: [0, 255], modalities: [XC]}}
  {_SPLIT}
{_SMALL}
{_training(10)}""",
    ),
    "ct in three syntaxes": Case(
        write=hospitals.ct_centres,
        metric="macro_auroc",
        above=0.95,
        counted={"alpha": (24, 24), "beta": (24, 24), "gamma": (24, 24)},
        config=f"""
name: ct-three
task: {{kind: diagnosis, type: multiclass, target: finding, classes: [healthy, calcium, fat]}}
cohort:
  images: {{size: [8, 32, 32], intensity: window, window: [-200, 500], modalities: [CT]}}
  {_SPLIT}
{_SMALL}
{_training(10)}""",
    ),
    "two findings, MONOCHROME1": Case(
        write=hospitals.chest_departments,
        metric="macro_auroc",
        above=0.95,
        counted={"east": (40, 54), "west": (40, 54)},
        config=f"""
name: xray-labels
task: {{kind: diagnosis, type: multilabel, target: [nodule, effusion]}}
cohort:
  images: {{size: [40, 32], modalities: [DX]}}
  {_SPLIT}
{_SMALL}
{_training(12)}""",
    ),
    "volumes outlined elsewhere": Case(
        write=hospitals.mr_volumes,
        arms="federated",
        metric="dice",
        above=0.9,
        counted={"mr-one": (12, 12), "mr-two": (12, 12)},
        config=f"""
name: mr-outline
task: {{kind: segmentation, mask: outline, structures: {{rim: [1], core: [2]}}}}
cohort:
  images: {{size: [8, 24, 24], intensity: zscore, modalities: [MR]}}
  {_SPLIT}
  smallest_cohort: 5
model: {{network: unet, width: 8}}
{_training(4, "batch_patients: 4, learning_rate: 0.01, schedule: cosine")}""",
    ),
    "SEG at one site, PNG at the other": Case(
        write=hospitals.mr_pictures,
        arms="federated",
        metric="dice",
        above=0.9,
        counted={"png": (16, 16), "seg": (16, 16)},
        config=f"""
name: mixed-masks
task: {{kind: segmentation, structures: {{body: [1]}}}}
cohort:
  images: {{size: [32, 32], modalities: [MR]}}
  {_SPLIT}
  smallest_cohort: 5
model: {{network: unet, width: 8}}
{_training(6, "batch_patients: 4, learning_rate: 0.01, schedule: cosine")}""",
    ),
    "survival in months": Case(
        write=hospitals.survival_centres,
        metric="concordance",
        above=0.7,
        counted={"Klinik Süd": (100, 0), "south": (100, 0), "west": (100, 0)},
        not_used=Counter(VALUE_UNUSABLE=50),
        config=f"""
name: survival-months
task:
  {{kind: prognosis, time: months, event: died, unit: months, intervals: [3, 6, 12, 24, 36, 60]}}
cohort:
  table:
    numbers:
      - {{column: age at diagnosis, center: 60.0, scale: 10.0}}
      - {{column: ldh, center: 5.5, scale: 1.0, transform: log}}
    categories: [{{column: Tumour grade, values: [low, high, not graded]}}]
  {_SPLIT}
model: {{network: table}}
{_training(20, "batch_patients: all, learning_rate: 0.05")}""",
    ),
    "signed mammograms and a marker, a year ahead": Case(
        write=hospitals.breast_units,
        metric="auroc",
        above=0.75,
        counted={"one": (50, 50), "two": (50, 50)},
        config=f"""
name: year-ahead
task:
  {{kind: prognosis, outcome: fixed_horizon, event: event, time: months, unit: months, horizon: 12}}
cohort:
  images: {{size: [40, 32], modalities: [MG]}}
  table:
    numbers: [{{column: marker, center: 2.5, scale: 1.0, transform: log}}]
    categories: [{{column: sex, values: [f, m]}}]
  {_SPLIT}
model: {{network: small_cnn, width: 8, hidden: [16]}}
{_training(20)}""",
    ),
    "clips": Case(
        write=hospitals.clips,
        metric="auroc",
        above=0.95,
        counted={"us-a": (24, 72), "us-b": (24, 72)},
        config=f"""
name: clips
task: {{kind: diagnosis, target: ill}}
cohort:
  images: {{size: [32, 40], modalities: [US]}}
  {_SPLIT}
{_SMALL}
{_training(10)}""",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_strangers_cohort_is_read_learned_and_counted_as_it_is(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.write(tmp_path / "data")
    ran = compare(case.config + _END, tmp_path / "data", "--arms", case.arms)
    assert ran.status == 0, ran.text
    assert ran.results["metric"] == case.metric
    assert ran.counted() == case.counted
    assert ran.not_used() == case.not_used
    assert ran.results["left_out"] == {}
    for arm, value in ran.means().items():
        assert value > case.above, (arm, ran.text)
    page = (ran.folder / "report.html").read_text("utf-8")
    assert all(site in page for site in case.counted)
    assert not re.search(r"\bnan\b", page + ran.text)
