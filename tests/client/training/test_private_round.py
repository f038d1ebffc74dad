from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from client.privacy import model_guard
from client.privacy.ledger import Ledger, Limit
from client.training.local_model import LocalModel, open_local_model
from client.training.local_round import train_round
from client.training.private_round import plan_of
from client.training.training_site import Guard, Site
from common.config.run_config import RunConfig, parse_config
from common.messages.wire import Refusal, RefusalReason, SiteUpdate, TrainRequest
from common.models.run_network import initial_weights
from common.platform.errors import ConfigurationError, PrivacyError, UnsafeModel
from common.privacy.accounting import epsilon_of
from common.privacy.noise import ChaChaNoise, NoiseSource
from common.privacy.plan import LedgerHead
from tests.privacy.made_up import Silence, patients_of

PATIENTS = patients_of((1, 2) * 10, image=(0,))
DELTA = 0.001


def config_of(privacy: str = ", default_patients: 20", training: str = "") -> RunConfig:
    return parse_config(f"""
name: private
task: {{kind: diagnosis, target: ill}}
cohort: {{table: {{numbers: [{{column: age}}, {{column: crp}}]}}}}
model: {{network: table}}
training: {{rounds: 6, optimizer: sgd, learning_rate: 0.1{training}}}
privacy: {{unit: patient, epsilon: 2.0, delta: {DELTA}{privacy}}}
personalisation: {{method: none}}
""")


@dataclass
class Watched:
    """Real noise that writes down how much the ledger held when it was asked."""

    ledger: Ledger
    charged: list[int] = field(default_factory=list)
    simulated: bool = False
    _real: ChaChaNoise = field(default_factory=ChaChaNoise)

    def gaussian(self, shape: tuple[int, ...], standard_deviation: float) -> Tensor:
        """Return real noise, after a look at the ledger."""
        self.charged.append(len(self.ledger.history("patients")))
        return self._real.gaussian(shape, standard_deviation)

    def uniform(self, count: int) -> Tensor:
        """Return real draws."""
        return self._real.uniform(count)

    def of_round(self, run: str, round_number: int) -> Watched:
        """Return this very source."""
        del run, round_number
        return self


def site_of(folder: Path, noise: NoiseSource | None = None, epsilon: float = 50.0) -> Site:
    guard = Guard(
        ledger=Ledger(folder / "ledger.db"),
        limit=Limit(epsilon=epsilon, delta=DELTA),
        cohort="patients",
        noise=noise or ChaChaNoise(),
    )
    return Site(name="here", train=PATIENTS, validation=PATIENTS, test=PATIENTS, guard=guard)


def request_of(config: RunConfig, number: int = 1) -> TrainRequest:
    return TrainRequest(
        run="run", round=number, seed=0, config=config, weights=initial_weights(config, 0)
    )


def update_of(site: Site, local_model: LocalModel, number: int = 1) -> SiteUpdate:
    answer = train_round(site, local_model, request_of(local_model.config, number))
    assert isinstance(answer, SiteUpdate)
    return answer


def history(site: Site) -> int:
    assert site.guard is not None
    return len(site.guard.ledger.history("patients"))


def test_no_noise_is_drawn_before_the_round_is_in_the_ledger(tmp_path: Path) -> None:
    noise = Watched(Ledger(tmp_path / "ledger.db"))
    site, local_model = site_of(tmp_path, noise), open_local_model(config_of(), 0)
    for number in (1, 2, 3):
        update_of(site, local_model, number)
    assert noise.charged == [1, 2, 3]


@pytest.mark.parametrize("asked", [(1, 2, 3), (1, 1, 2, 2, 2)])
def test_rounds_interrupted_or_not_compose_to_exactly_what_was_charged(
    tmp_path: Path, asked: tuple[int, ...]
) -> None:
    site, local_model = (
        site_of(tmp_path),
        open_local_model(config_of(training=", local_steps: 3"), 0),
    )
    for times, number in enumerate(asked, 1):
        spend = update_of(site, local_model, number).spend
        assert spend is not None
        assert spend.mechanism.steps == 3
        assert spend.run_epsilon == epsilon_of([replace(spend.mechanism, steps=3 * times)], DELTA)
    assert history(site) == len(asked)


def test_a_whole_run_spends_its_epsilon_and_no_more(tmp_path: Path) -> None:
    site, local_model = site_of(tmp_path), open_local_model(config_of(), 0)
    spent = [update_of(site, local_model, number).spend for number in range(1, 7)]
    last = spent[-1]
    assert last is not None
    assert 1.999 < last.run_epsilon <= 2.0


def test_a_round_over_the_sites_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    config = config_of()
    noise = Watched(Ledger(tmp_path / "ledger.db"))
    site, local_model = site_of(tmp_path, noise, epsilon=0.1), open_local_model(config, 0)
    answer = train_round(site, local_model, request_of(config))
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.BUDGET
    assert history(site) == 0
    assert noise.charged == []


def test_an_unsafe_network_is_refused_before_anything_is_charged(tmp_path: Path) -> None:
    config = config_of()
    site, local_model = site_of(tmp_path), open_local_model(config, 0)
    local_model.model.add_module("norm", torch.nn.BatchNorm1d(4, affine=False))
    with pytest.raises(UnsafeModel, match="norm"):
        train_round(site, local_model, request_of(config))
    assert history(site) == 0


def test_a_network_is_checked_once_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = model_guard.check_layers

    def counted(model: nn.Module) -> None:
        asked.append(1)
        real(model)

    monkeypatch.setattr(model_guard, "check_layers", counted)
    site, local_model = site_of(tmp_path), open_local_model(config_of(), 0)
    for number in (1, 2, 3):
        update_of(site, local_model, number)
    assert asked == [1]


def test_a_site_without_a_ledger_takes_no_part_in_a_private_run(tmp_path: Path) -> None:
    config = config_of()
    site = replace(site_of(tmp_path), guard=None)
    with pytest.raises(PrivacyError, match="no ledger"):
        train_round(site, open_local_model(config, 0), request_of(config))


def test_an_empty_draw_is_charged_noised_and_released(tmp_path: Path) -> None:
    class Nobody(Watched):
        def uniform(self, count: int) -> Tensor:
            return torch.full((count,), 0.99, dtype=torch.float64)

    config = config_of(", default_patients: 20, sampling_rate: 0.2")
    site = site_of(tmp_path, Nobody(Ledger(tmp_path / "ledger.db")))
    local_model = open_local_model(config, 0)
    update = update_of(site, local_model)
    assert history(site) == 1
    assert all(float(change.abs().sum()) > 0 for change in update.delta.values())


def test_what_leaves_is_the_trained_tensors_and_nothing_that_counts_patients(
    tmp_path: Path,
) -> None:
    config = config_of(", default_patients: 40")
    site, local_model = site_of(tmp_path), open_local_model(config, 0)
    update = update_of(site, local_model)
    shapes = {n: v.shape for n, v in initial_weights(config, 0).items()}
    assert {n: v.shape for n, v in update.delta.items()} == shapes
    assert update.steps == 1
    assert update.control_delta is None
    assert update.spend is not None
    assert update.spend.mechanism.divisor == 40.0


@pytest.mark.parametrize(
    ("agreed", "divisor"),
    [
        (", default_patients: declared", 20.0),
        (", default_patients: 64", 64.0),
        (", public_patients: {here: 30}", 30.0),
        (", public_patients: {there: 30}, default_patients: 50", 50.0),
        (", default_patients: 64, sampling_rate: 0.25", 16.0),
    ],
)
def test_the_divisor_is_what_was_agreed_in_public(
    tmp_path: Path, agreed: str, divisor: float
) -> None:
    config, site = config_of(agreed), site_of(tmp_path)
    assert site.guard is not None
    assert config.privacy != "none"
    plan = plan_of(site, open_local_model(config, 0), config.privacy, site.guard)
    assert plan.mechanism.divisor == divisor


def test_the_same_round_asked_for_twice_gets_other_noise(tmp_path: Path) -> None:
    site, local_model = site_of(tmp_path), open_local_model(config_of(), 0)
    first, second = update_of(site, local_model), update_of(site, local_model)
    assert not any(torch.equal(first.delta[n], second.delta[n]) for n in first.delta)


def test_simulated_noise_is_stamped_on_what_leaves(tmp_path: Path) -> None:
    local_model = open_local_model(config_of(), 0)
    for noise in (Silence(), ChaChaNoise()):
        spend = update_of(site_of(tmp_path, noise), local_model).spend
        assert spend is not None
        assert spend.simulated_noise is noise.simulated


def test_a_private_round_leaves_the_global_generator_as_it_was(tmp_path: Path) -> None:
    site, local_model = site_of(tmp_path), open_local_model(config_of(), 0)
    before = torch.get_rng_state()
    update_of(site, local_model)
    assert torch.equal(before, torch.get_rng_state())


def answers_with(patients: int, home: Path, privacy: str) -> tuple[object, ...]:
    """Return all that an update says beside its tensors, from a site with so many patients."""
    config = config_of(privacy)
    site = site_of(home)
    site = replace(site, train=patients_of((1,) * patients, image=(0,)))
    update = train_round(site, open_local_model(config, 0), request_of(config))
    if isinstance(update, Refusal):
        return (update.reason,)
    assert update.spend is not None
    facts = replace(update.spend, ledger=LedgerHead(charges=1, hash=""))  # holds no patient
    return (facts, update.steps, update.control_delta, [v.shape for v in update.delta.values()])


@pytest.mark.parametrize("more", ["", ", sampling_rate: 0.5"])
def test_nothing_beside_the_noised_sum_depends_on_how_many_patients_a_site_has(
    tmp_path: Path, more: str
) -> None:
    """From one patient to many, fewer than the smallest cohort too."""
    found = [
        answers_with(patients, tmp_path / str(patients), ", public_patients: {here: 50}" + more)
        for patients in (1, 9, 10, 49, 50, 51, 300)
    ]
    assert all(facts == found[0] for facts in found)
    assert not isinstance(found[0][0], RefusalReason)


def test_a_declared_count_does_show(tmp_path: Path) -> None:
    """The fault put in: what the test above looks at moves with the patients."""
    declared = ", default_patients: declared"
    found = [answers_with(n, tmp_path / str(n), declared) for n in (20, 21)]
    assert found[0] != found[1]


def test_a_site_that_the_run_agreed_on_no_number_for_takes_no_part(tmp_path: Path) -> None:
    config = config_of(", public_patients: {there: 30}")
    with pytest.raises(ConfigurationError, match="public_patients names there, expected here too"):
        train_round(site_of(tmp_path), open_local_model(config, 0), request_of(config))


def test_a_site_whose_agreed_number_is_below_the_smallest_cohort_refuses(tmp_path: Path) -> None:
    config = config_of(", public_patients: {here: 9}")
    answer = train_round(site_of(tmp_path), open_local_model(config, 0), request_of(config))
    assert isinstance(answer, Refusal)
    assert answer.reason is RefusalReason.TOO_FEW_PATIENTS
