from __future__ import annotations

from pathlib import Path

import pytest
import torch

from client.privacy.ledger import Ledger, Limit
from client.training.evaluation import evaluate_round, site_statistics
from client.training.local_model import open_local_model
from client.training.training_site import Guard, Site
from common.config.run_config import RunConfig, parse_config
from common.data.sample import Patients
from common.messages.wire import EvaluationRequest, Refusal, SiteReport
from common.models.run_network import initial_weights
from common.platform.errors import PrivacyError
from common.privacy.accounting import epsilon_of
from common.privacy.noise import ChaChaNoise

CONFIG = """
name: counted
task: {kind: diagnosis, target: ill}
cohort: {table: {numbers: [{column: age}]}}
model: {network: table}
training: {rounds: 1}
selection: {rule: best, by: metric}
evaluation: {count_noise: 8.0}
privacy: none
"""


def patients(count: int) -> Patients:
    return Patients(
        image=torch.zeros(count, 0),
        table=torch.randn(count, 2, generator=torch.Generator()),
        target=(torch.arange(count) % 2).float()[:, None],
        patient=torch.arange(count),
        pseudonyms=tuple(str(i) for i in range(count)),
    )


def site(folder: Path, limit: float) -> Site:
    guard = Guard(
        ledger=Ledger(folder / "ledger.db"),
        limit=Limit(epsilon=limit, delta=1e-3),
        cohort="p",
        noise=ChaChaNoise(),
    )
    few, many = patients(4), patients(60)
    return Site(name="north", train=few, validation=many, test=few, guard=guard)


def request(config: RunConfig) -> EvaluationRequest:
    return EvaluationRequest(
        run="r",
        round=1,
        seed=0,
        config=config,
        weights=initial_weights(config, 0),
        split="validation",
    )


def test_noised_counts_are_charged_and_differ_from_the_true_ones(tmp_path: Path) -> None:
    config = parse_config(CONFIG)
    here, local_model = site(tmp_path, limit=50.0), open_local_model(config, 0)
    report = evaluate_round(here, local_model, request(config))
    assert isinstance(report, SiteReport)
    assert report.spend is not None
    assert here.guard is not None
    history = here.guard.ledger.history("p")
    assert len(history) == 1
    assert report.spend.cohort_epsilon == pytest.approx(epsilon_of(history, 1e-3))
    true = site_statistics(local_model, here.validation)
    found = report.statistics
    assert (found.cells["histogram"] != true.cells["histogram"]).all()
    assert float(found.patients) == pytest.approx(found.cells["histogram"].sum())
    assert not found.sums
    assert found.noise == 8.0**2


def test_counts_that_the_ledger_does_not_allow_stay(tmp_path: Path) -> None:
    config = parse_config(CONFIG)
    here, local_model = site(tmp_path, limit=0.01), open_local_model(config, 0)
    answer = evaluate_round(here, local_model, request(config))
    assert isinstance(answer, Refusal)
    assert here.guard is not None
    assert here.guard.ledger.history("p") == ()


def test_noise_on_counts_needs_a_ledger() -> None:
    config = parse_config(CONFIG)
    here = Site(name="north", train=patients(4), validation=patients(60), test=patients(4))
    with pytest.raises(PrivacyError, match="ledger"):
        evaluate_round(here, open_local_model(config, 0), request(config))
