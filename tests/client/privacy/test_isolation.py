"""What a network of others remembers of one patient reaches nobody else, wherever it is kept."""

from __future__ import annotations

import random
import sys
import types
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.inference.fit_calibration import _outputs
from client.inference.study_reading import Item
from client.inference.trained_model import TrainedModel
from client.privacy.isolation import Isolation
from client.privacy.reachable_state import Reachable
from client.training.fine_tuning import fine_tune
from client.training.local_model import LocalModel, open_local_model
from client.training.local_round import train_round
from client.training.step_timing import round_seconds
from common.data.sample import take
from common.extensions.global_state import Switches, generators
from common.messages.wire import SiteUpdate, TrainRequest
from tests.client.local_runs import config_of, site_of, weights_of
from tests.client.training.test_fine_tuning import rules_of
from tests.privacy.made_up import seeded
from tests.privacy.remembering import (
    IN_THE_GRADIENT,
    IN_THE_PROCESS,
    INSIDE,
    PLACES,
    check_gradients_alone,
    check_scores_alone,
    network_with,
    worlds,
)


@pytest.mark.parametrize("place", PLACES | IN_THE_GRADIENT)
def test_gradients_of_others_keep_their_bits(place: str) -> None:
    check_gradients_alone((PLACES | IN_THE_GRADIENT)[place])


@pytest.mark.parametrize("place", PLACES)
def test_predictions_of_others_keep_their_bits(place: str) -> None:
    check_scores_alone(PLACES[place])


class Deployed(nn.Module):
    """What a bundle opens as, around a network of others."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, image: Tensor, table: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output: Tensor = self.network(image, table)
        return output, output


def opened(place: str) -> TrainedModel:
    deployed = Deployed(network_with(PLACES[place]))
    return cast("TrainedModel", SimpleNamespace(deployed=deployed, config=config_of()))


@pytest.mark.parametrize("place", ["an attribute", "a list of the module", "torch's generator"])
def test_an_answer_and_a_calibration_do_not_depend_on_who_was_scored_before(place: str) -> None:
    loud, fewer = worlds()
    items = [SimpleNamespace(inputs=lambda one=one: {"image": one[None]}) for one in loud.image]
    asked = cast("list[Item]", items)
    model = opened(place)
    TrainedModel.output(model, asked[:1])
    after = TrainedModel.output(model, asked[1:])
    assert torch.equal(after, TrainedModel.output(opened(place), asked[1:]))
    both = [
        _outputs(opened(place), take(some, torch.arange(len(some.patient))))
        for some in (loud, fewer)
    ]
    assert torch.equal(both[0][1:], both[1])


def remembering() -> tuple[LocalModel, list[float]]:
    """Return a network of ours that was given a hook of others, and what the hook remembers."""
    seen: list[float] = []
    local_model = open_local_model(config_of(), 0)

    def remember(_module: nn.Module, _given: object, output: Tensor) -> Tensor:
        seen.append(float(output.detach().mean()))
        return output * (1 + len(seen))

    local_model.model.register_forward_hook(remember)
    return local_model, seen


def test_nothing_is_remembered_of_a_round_of_fine_tuning_or_of_a_trial() -> None:
    config, site = config_of(), site_of()
    local_model, seen = remembering()
    request = TrainRequest(run="r", round=1, seed=0, config=config, weights=weights_of(config))
    first, second = (train_round(site, local_model, request) for _ in range(2))
    assert isinstance(first, SiteUpdate)
    assert isinstance(second, SiteUpdate)
    assert all(torch.equal(first.delta[n], second.delta[n]) for n in first.delta)
    assert any(bool(value.any()) for value in first.delta.values())
    fine_tune(site, local_model, weights_of(config), rules_of(), 0)
    round_seconds(local_model, site, 10)
    assert seen == []


def test_the_process_is_left_as_it_was_found() -> None:
    switches, before, hooks = Switches(), generators(), nn.modules.module._global_forward_hooks
    threads = torch.get_num_threads()
    for memory in IN_THE_PROCESS.values():
        check_gradients_alone(memory)
    assert switches.changed() == []
    assert generators() == before
    assert not hooks
    assert torch.get_num_threads() == threads


def test_what_is_done_alone_may_fail_and_leaves_nothing_either() -> None:
    network = network_with(INSIDE["an attribute"])
    each = Isolation(network)

    def fail() -> None:
        network.attribute = torch.ones(())
        torch.set_default_dtype(torch.float64)
        message = "it failed"
        raise ValueError(message)

    with pytest.raises(ValueError, match="it failed"):
        each.alone(fail)
    assert network.attribute == 0.0
    assert torch.get_default_dtype() == torch.float32


def test_parameters_stay_the_objects_that_an_optimiser_knows() -> None:
    network = network_with(INSIDE["a parameter in place"])
    before = dict(network.named_parameters())

    def replaced() -> None:
        network.head = nn.Linear(4, 1)

    Isolation(network).alone(replaced)
    after = dict(network.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_networks_of_ours_run_as_they_are() -> None:
    local_model = open_local_model(config_of(), 0)
    each = Isolation(local_model.model, local_model.task.item_loss)
    assert not each.needed
    torch.manual_seed(3)
    drawn = each.alone(lambda: (torch.rand(()), random.random(), np.random.random()))  # noqa: NPY002
    torch.manual_seed(3)
    assert torch.equal(drawn[0], torch.rand(()))


class Called(nn.Module):
    """Calls a function of others."""

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        del image
        return counted(table)


SEEN: list[float] = []


@torch.fx.wrap
def counted(table: Tensor) -> Tensor:
    """Follow what was seen before."""
    SEEN.append(float(table.sum()))
    return table.sum(1, keepdim=True) * len(SEEN)


def test_a_record_of_torchs_operations_is_nobodys_code_and_one_that_calls_others_is() -> None:
    pair = (torch.ones(2, 1), torch.ones(2, 1))
    loss = torch.export.export(Squared(), pair, strict=False).module(check_guards=False)
    found = Reachable(nn.Linear(1, 1), loss)
    assert (found.packages, found.opaque) == (set(), [])
    traced = torch.fx.symbolic_trace(Called())
    each = Isolation(traced)
    answers = [each.alone(lambda: traced(*pair)) for _ in range(2)]
    assert torch.equal(*answers)
    assert SEEN == []


class Squared(nn.Module):
    """A loss by item."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean(1)


def test_an_iterator_among_the_globals_of_its_code_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("counting_nets")
    monkeypatch.setitem(sys.modules, "counting_nets", module)
    exec(  # noqa: S102 - a module of nobody's
        "import itertools\nfrom torch import nn\n"
        "numbers = itertools.count()\nclass Net(nn.Module): pass\n",
        vars(module),
    )
    found = Reachable(module.Net()).opaque
    assert [(one.where, one.kind) for one in found] == [("numbers", "itertools.count")]


def test_what_cannot_be_put_back_is_found_by_its_name() -> None:
    def build() -> nn.Module:
        network = nn.Sequential(nn.Linear(1, 1))
        network[0].numbers = (n for n in range(9))
        return network

    found = Reachable(seeded(build)).opaque
    assert [(one.where, one.kind) for one in found] == [("0.numbers", "builtins.generator")]
