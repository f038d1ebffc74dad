"""Slides of test patients stand in the report with what each tile counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.site.cache import Cache
from common.models.run_network import network_of
from simulations.comparison.cohorts import load_hospitals
from simulations.comparison.compare import ComparisonPlan, ComparisonProgress, compare
from simulations.report import slides as drawn
from simulations.report.rows import owners
from tests.client.slides.test_slide_cohorts import FROZEN, config_of, site


@pytest.mark.slow
def test_attention_lies_on_the_tiles_of_each_slide(tmp_path: Path) -> None:
    config = config_of(FROZEN)
    folder = site(tmp_path / "data" / "here", 10)
    hospitals = load_hospitals(config, (folder,), Cache(tmp_path / "cache"), lambda _: None)
    plan = ComparisonPlan(seeds=(0,), arms=("pooled",), folder=tmp_path / "out")
    found = compare(config, hospitals.cohorts, plan, ComparisonProgress())
    assert found.shared_model is not None
    arm, seed, weights = found.shared_model
    network = drawn._attending(network_of(drawn.config_of(found, arm), seed), weights)
    assert network is not None
    (cohort,) = found.cohorts
    scores = found.outcomes[arm, seed][0].test[cohort.name]
    chosen = drawn._of_cohort(cohort, owners(found, cohort, seed, 0), scores, network, 8)
    assert chosen
    for one in chosen:
        counts = drawn._map(one)
        assert counts.shape == one.view.picture.shape[:2]
        assert float(one.counts.max()) == 1
        coloured = np.count_nonzero(counts) / counts.size
        assert 0.5 < coloured < 0.8, "three quarters are tissue"
    picture = drawn.slides(found)
    assert picture is not None
    assert picture.png.startswith(b"\x89PNG")
