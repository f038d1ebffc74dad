"""Made-up hospitals and requests that the tests of rounds at a site share."""

from __future__ import annotations

from dataclasses import replace

import torch

from client.training.batches import batches
from client.training.kept_between_rounds import MemoryInProcess, SiteMemory
from client.training.local_model import LocalModel, open_local_model
from client.training.local_round import train_round
from client.training.training_site import Site, data_order
from common.config.learning_rate import learning_rate
from common.config.run_config import RunConfig, parse_config
from common.data.sample import Patients
from common.data.weights import Weights, load_into, trainable
from common.messages.wire import SiteUpdate, TrainRequest
from common.models.run_network import initial_weights
from tests.privacy.made_up import patients_of

#: Patients with one item and with several.
ITEMS = (1, 2, 3, 1) * 4


def config_of(
    more: str = "",
    training: str = "",
    *,
    steps: int = 3,
    batch: int | str = 4,
    cohort: str = "",
    model: str = "{network: table}",
) -> RunConfig:
    """Return a run of a network on two clinical numbers; plain gradient steps where not said."""
    optimizer = "" if "optimizer" in training else ", optimizer: sgd"
    return parse_config(f"""
name: local
task: {{kind: diagnosis, target: ill}}
cohort: {{table: {{numbers: [{{column: age}}, {{column: crp}}]}}{cohort}}}
model: {model}
training: {{rounds: 6, local_steps: {steps}, batch_patients: {batch}, learning_rate: 0.1
  {optimizer}{training}}}
privacy: none
{more}
""")


def image_config_of(more: str = "", training: str = "", *, dropout: float = 0.0) -> RunConfig:
    """Return a run of a small convolutional network, which has a head to keep."""
    model = f"{{network: small_cnn, width: 4, dropout: {dropout}}}"
    return config_of(more, training, cohort=", images: {size: [16, 16]}", model=model)


def learnable(patients: Patients) -> Patients:
    """Return the patients with a target that follows from the table of each one's first item."""
    items = torch.bincount(patients.patient)
    first = items.cumsum(0) - items
    ill = patients.table[first, 0] + 0.5 * patients.table[first, 1] > 0
    return replace(patients, target=ill.float()[patients.patient][:, None])


def nobody() -> Patients:
    """Return a split without patients."""
    some = patients_of((1,), (0,))
    return Patients(
        image=some.image[:0],
        table=some.table[:0],
        target=some.target[:0],
        patient=some.patient[:0],
        pseudonyms=(),
    )


def weights_of(config: RunConfig) -> dict[str, torch.Tensor]:
    """Return shared weights some way into a run; a head's first ones are all zero."""
    draw = torch.Generator().manual_seed(5)
    return {
        name: value + 0.2 * torch.randn(value.shape, generator=draw)
        for name, value in initial_weights(config, 0).items()
    }


def site_of(
    train: Patients | None = None,
    validation: Patients | None = None,
    test: Patients | None = None,
    *,
    memory: SiteMemory | None = None,
    image: tuple[int, ...] = (0,),
) -> Site:
    """Return a hospital; sixteen made-up patients in each split that is not given."""
    made = [learnable(patients_of(ITEMS, image, seed)) for seed in (1, 2, 3)]
    return Site(
        name="here",
        train=made[0] if train is None else train,
        validation=made[1] if validation is None else validation,
        test=made[2] if test is None else test,
        memory=memory or MemoryInProcess(),
    )


def request_of(
    config: RunConfig, round_number: int = 1, *, seed: int = 0, control: Weights | None = None
) -> TrainRequest:
    """Return a round's request; with SCAFFOLD a control of zeros where none is given."""
    weights = weights_of(config)
    if config.aggregation.rule == "scaffold" and control is None:
        control = {name: value * 0 for name, value in weights.items()}
    return TrainRequest(
        run="run", round=round_number, seed=seed, config=config, weights=weights, control=control
    )


def update_of(site: Site, local_model: LocalModel, request: TrainRequest) -> SiteUpdate:
    """Return a round's update, which is no refusal."""
    answer = train_round(site, local_model, request)
    assert isinstance(answer, SiteUpdate)
    return answer


def copied(weights: Weights) -> dict[str, torch.Tensor]:
    """Return tensors of their own."""
    return {name: value.clone() for name, value in weights.items()}


def assert_close(found: Weights, expected: Weights) -> None:
    """Raise where tensors differ by more than another order of additions explains."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def twin(
    site: Site, config: RunConfig, request: TrainRequest, control: Weights | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the weights after a round and the mean gradient of its steps, line by line.

    Loss of a step: the mean over its patients of the mean over their items, plus FedProx's
    mu / 2 |w - w_round|^2 (Li et al. 2020, eq. 2). A step of SCAFFOLD: y - rate (g - c_i + c)
    (Karimireddy et al. 2020, eq. 3).
    """
    local_model, rules = open_local_model(config, 0), config.training
    load_into(local_model.model, request.weights)
    parameters = dict(local_model.model.named_parameters())
    rate = learning_rate(rules, request.round)
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    order = data_order(request.seed, site.name, request.round)
    for batch in batches(
        site.train, rules.batch_patients, rules.images_per_patient, rules.local_steps, order
    ):
        losses = local_model.task.item_loss(
            local_model.model(batch.image, batch.table), batch.target
        )
        by_patient = [losses[batch.patient == p].mean() for p in batch.patient.unique()]
        loss = torch.stack(by_patient).mean()
        for name, value in parameters.items():
            loss = loss + rules.proximal / 2 * ((value - request.weights[name]) ** 2).sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
                total[name] += gradient / rules.local_steps
                pull = request.control[name] - control[name] if request.control and control else 0.0
                value.sub_(rate * (gradient + pull))
    return copied(trainable(local_model.model)), total
