from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from client.privacy.model_guard import check_model
from client.privacy.patient_gradients import ItemLoss, Objective
from common.config.run_config import Cohort, Images, Model, NetworkName
from common.models import build_model
from common.platform.errors import UnsafeModel
from tests.privacy.made_up import (
    ImageNet,
    Silence,
    TableNet,
    binary_loss,
    objective_of,
    patients_of,
    plan_of,
    seeded,
    with_images,
)


class FollowsTheData(nn.Module):
    """Keeps the largest value that it has seen."""

    largest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        self.largest = torch.maximum(self.largest, image.detach().amax())
        return image


class SubtractsTheBatchMean(nn.Module):
    """A batch norm by another name."""

    def forward(self, image: Tensor) -> Tensor:
        return image - image.mean(0, keepdim=True)


def frozen(norm: nn.Module) -> nn.Module:
    """Return a norm whose parameters are not trained, in evaluation mode as people leave it."""
    return norm.requires_grad_(requires_grad=False).eval()


TRAPS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "batch norm": (lambda: nn.BatchNorm2d(4), "mixes the patients"),
    "batch norm without parameters": (lambda: nn.BatchNorm2d(4, affine=False), "mixes"),
    "batch norm without statistics": (
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        "mixes",
    ),
    "frozen batch norm": (lambda: frozen(nn.BatchNorm2d(4)), "mixes the patients"),
    "synchronised batch norm": (lambda: nn.SyncBatchNorm(4), "mixes the patients"),
    "instance norm with statistics": (
        lambda: nn.InstanceNorm2d(4, track_running_stats=True),
        "running statistics",
    ),
    "instance norm with statistics, no parameters": (
        lambda: nn.InstanceNorm2d(4, affine=False, track_running_stats=True),
        "running statistics",
    ),
    "a buffer that follows the data": (FollowsTheData, "changes its buffer"),
    "a mean over the batch": (SubtractsTheBatchMean, "beside other items"),
}


def check(model: nn.Module, loss: ItemLoss = binary_loss) -> None:
    objective = objective_of(model, patients_of())
    trial = Objective(
        model=model, item_loss=loss, patients=objective.patients, images_per_patient=4
    )
    check_model(trial, plan_of(), Silence())


@pytest.mark.parametrize("trap", sorted(TRAPS))
def test_a_layer_that_mixes_or_remembers_patients_is_refused_by_name(trap: str) -> None:
    norm, reason = TRAPS[trap]
    with pytest.raises(UnsafeModel, match=rf"^body\.1 .*{reason}"):
        check(seeded(lambda: ImageNet(norm())))


@pytest.mark.parametrize("frozen_body", [False, True])
def test_a_network_of_layers_by_item_passes_and_stays_as_it_was(*, frozen_body: bool) -> None:
    model = seeded(lambda: ImageNet(frozen_body=frozen_body))
    before = {n: v.clone() for n, v in model.state_dict().items()}
    check(model)
    check(seeded(TableNet))
    assert model.training
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_batch_norms_that_monais_norm_argument_leaves_are_refused() -> None:
    from monai.networks.nets.resnet import resnet18

    # norm= reaches the first norm only; nineteen BatchNorms stay.
    body = resnet18(
        spatial_dims=2,
        n_input_channels=1,
        num_classes=1,
        norm=("group", {"num_groups": 8, "num_channels": 64}),
    )

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, image: Tensor, table: Tensor) -> Tensor:
            del table
            output: Tensor = self.body(image)
            return output

    with pytest.raises(UnsafeModel, match=r"body\.layer1\.0\.bn1 \(BatchNorm2d\)"):
        check(Network())


def test_a_frozen_batch_norm_below_a_trained_head_is_refused() -> None:
    with pytest.raises(UnsafeModel, match="BatchNorm2d"):
        check(seeded(lambda: ImageNet(nn.BatchNorm2d(4), frozen_body=True)))


@pytest.mark.parametrize("shape", ["[items, 1]", "one number", "twice the items"])
def test_a_loss_that_is_not_one_number_an_item_is_refused(shape: str) -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        losses = nn.functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        match shape:
            case "[items, 1]":
                return losses
            case "one number":
                return losses.mean()
            case _:
                return torch.cat([losses, losses]).flatten()

    with pytest.raises(UnsafeModel, match="expected \\(3,\\)"):
        check(seeded(TableNet), loss)


def test_a_loss_that_compares_patients_with_each_other_is_refused() -> None:
    def partial_likelihood(output: Tensor, target: Tensor) -> Tensor:
        del target  # Cox: everybody's risk is in everybody's denominator
        return torch.logsumexp(output.flatten(), 0) - output.flatten()

    with pytest.raises(UnsafeModel, match="discrete-time hazard"):
        check(seeded(TableNet), partial_likelihood)


NETWORKS: list[tuple[NetworkName, tuple[int, ...]]] = [("small_cnn", (16, 16)), ("unet", (16, 16))]
SLOW: list[tuple[NetworkName, tuple[int, ...]]] = [
    ("resnet18", (32, 32)),
    ("densenet121", (32, 32)),
    ("efficientnet_b0", (32, 32)),
    ("vit", (32, 32)),
    ("segresnet", (32, 32)),
    ("dynunet", (32, 32)),
    ("swin_unetr", (32, 32)),
]


@pytest.mark.parametrize(
    ("network", "size"), [*NETWORKS, *(pytest.param(*c, marks=pytest.mark.slow) for c in SLOW)]
)
def test_every_network_that_ships_passes(network: NetworkName, size: tuple[int, ...]) -> None:
    cohort = Cohort(images=Images.model_validate({"size": size}))
    model = build_model(Model(network=network, width=12), cohort, 1, seed=0)
    patients = patients_of((1, 2, 1), image=(1, *size))
    seen = with_images(patients, patients.image, torch.zeros(len(patients.image), 0))

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output.flatten(1) - target).square().mean(1)

    objective = Objective(model=model, item_loss=loss, patients=seen, images_per_patient=2)
    check_model(objective, plan_of(), Silence())
