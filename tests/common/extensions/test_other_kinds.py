"""Losses, transforms, metrics and rules of aggregation of others: their contracts, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from client.governance.extensions import judge_extensions
from client.governance.plain_words import described
from client.privacy.model_guard import check_model
from client.privacy.patient_gradients import LOOP, gradients_by_patient
from client.privacy.patient_sampling import draw
from client.privacy.reachable_state import Reachable
from client.site.extensions_section import AllowedExtension, all_of
from common.config.run_config import RunConfig, parse_config, read_config
from common.extensions.pinning import pinned
from common.extensions.transforms import transforms_of
from common.messages.wire import RefusalReason, SiteUpdate
from common.metrics.statistics import Statistics, merge, with_count_noise
from common.models.extension_network import check_extensions
from common.platform.errors import ConfigurationError, ExtensionRefused, RunFailed
from common.privacy.noise import SimulatedNoise
from common.tasks import task_of
from common.tasks.loss_choice import training_loss
from common.tasks.summary import summarised
from common.tasks.task import Scores
from server.aggregation.rules import Aggregator, aggregator_of
from tests.extensions import on_path, written
from tests.privacy.made_up import ImageNet, Silence, objective_of, patients_of, plan_of, without

CODE = """
import numpy as np, torch, torch.nn.functional as F
from pydantic import BaseModel, Field
from common.extensions.contract import *

CALLS = []
class Nothing(BaseModel, extra="forbid"): pass
class Gamma(BaseModel, extra="forbid"): gamma: float = Field(default=2.0, ge=0)

def focal_loss(given, output, target):
    CALLS.append(1)
    raw = F.binary_cross_entropy_with_logits(output, target, reduction="none")
    return ((1 - torch.exp(-raw)) ** given.gamma * raw).mean()

focal = LossExtension(arguments=Gamma, loss=focal_loss, tasks=frozenset({"diagnosis"}))

def flip_image(given, image, target, generator):
    if torch.rand((), generator=generator) < 0.5:
        return image, target
    return image.flip(-1), None if target is None else target.flip(-1)

flip = TransformExtension(arguments=Nothing, apply=flip_image)

def share_of(given, counts):
    return counts.positive.sum(1) / (counts.positive.sum(1) + counts.negative.sum(1))

share = MetricExtension(arguments=Nothing, compute=share_of)

def with_momentum(given, changes, state):
    total = sum(c.weight for c in changes)
    mean = {n: sum(c.weight * c.delta[n] for c in changes) / total for n in changes[0].delta}
    kept = {n: 0.5 * state[n] + v if n in state else v for n, v in mean.items()}
    return Combined(change=kept, state=kept)

momentum = AggregatorExtension(arguments=Nothing, combine=with_momentum)
"""
POINTS = {
    "losses": ["focal"],
    "transforms": ["flip"],
    "metrics": ["share"],
    "aggregators": ["momentum"],
}
CONFIG = """
name: example
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [8, 8]}}
model: {network: small_cnn}
training: {rounds: 1}
privacy: none
"""
LOSS = CONFIG.replace("rounds: 1", "rounds: 1, loss: acme-parts/focal")
FLIP = CONFIG.replace("rounds: 1", "rounds: 1, transforms: [acme-parts/flip]")
SHARE = CONFIG + "evaluation: {metrics: [acme-parts/share]}\n"
RULE = CONFIG + "aggregation: {rule: acme-parts/momentum}\n"
PRIVATE = "privacy: {unit: patient, epsilon: 3, default_patients: 20}"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    folder = written(tmp_path / "site-packages", "acme-parts", CODE, POINTS)
    with on_path(folder):
        yield folder


def config(text: str) -> RunConfig:
    return pinned(parse_config(text))


def changed(place: Path, old: str, new: str) -> None:
    """Put another piece of code in."""
    module = place / "acme_parts" / "__init__.py"
    assert old in CODE
    module.write_text(CODE.replace(old, new))


# --- losses --------------------------------------------------------------------------------


def test_an_extensions_loss_is_its_own_item_by_item_and_is_called_no_more(place: Path) -> None:
    assert place.is_dir()
    run = config(
        LOSS.replace("acme-parts/focal", "{name: acme-parts/focal, arguments: {gamma: 1}}")
    )
    loss = training_loss(run, task_of(run.task))
    output, target = torch.randn(5, 1, requires_grad=True), torch.tensor([[0.0], [1]] * 2 + [[1]])
    raw = torch.nn.functional.binary_cross_entropy_with_logits(output, target, reduction="none")
    expected = ((1 - torch.exp(-raw)) * raw).mean(1)
    assert torch.allclose(loss(output, target), expected, atol=1e-6)
    import acme_parts  # type: ignore[import-not-found]  # written above

    assert "acme_parts" not in Reachable(loss).packages
    calls = len(acme_parts.CALLS)
    for items in (1, 2, 5):
        loss(output[:items], target[:items])
    assert len(acme_parts.CALLS) == calls
    one, other = (loss(torch.stack([output[0], output[0] * k]), target[:2])[0] for k in (1, 99))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("{kind: diagnosis, target: a, type: multiclass, classes: [x, y, z]}", "output"),
        (
            "{kind: prognosis, event: e, time: t, intervals: [1, 2, 3]}",
            "output * target[3:6] * torch.tensor([1.0, 2.0, 3.0])",
        ),
        (
            "{kind: prognosis, event: e, time: t, outcome: fixed_horizon, horizon: 1}",
            "output - target",
        ),
        ("{kind: segmentation, structures: {a: [1]}}", "output * target"),
    ],
)
def test_a_loss_is_tried_with_the_outputs_and_targets_of_every_task(
    place: Path, task: str, body: str
) -> None:
    changed(place, "CALLS.append(1)", f"return ({body}).square().mean()")
    module = place / "acme_parts" / "__init__.py"
    kinds = '{"diagnosis", "prognosis", "segmentation"}'
    module.write_text(module.read_text().replace('{"diagnosis"}', kinds))
    text = LOSS.replace("{kind: diagnosis, target: ill}", task)
    network = "unet" if "segmentation" in task else "small_cnn"
    check_extensions(config(text.replace("small_cnn", network).replace("[8, 8]", "[16, 16]")))


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("if output.sum() > 0: return output.sum()", "cannot be recorded"),
        ("return output.sum() * float(output.sum())", "cannot be recorded|none of torch's own"),
        ("return torch.tensor(output.detach().numpy().sum())", "cannot be recorded|does otherwise"),
        ("output = output.clone(); output[0] = 0", "changes a tensor in place"),
        ("return (output * torch.rand(1)).sum()", "draws by chance"),
        ("return F.dropout(output, 0.5).sum()", "draws by chance"),
        ("return (output * torch.empty(1)).sum()", "as it finds it"),
        ("return (output * output.new_empty(1)).sum()", "as it finds it"),
        ("return (output + 0 * torch.empty_like(output)).sum()", "as it finds it"),
        ("CALLS.append(1); return output.sum() * len(CALLS)", "does otherwise"),
        ("return output", r"gives \(1,\) of torch.float32 for one item"),
        ("return output.sum() / 0", "not finite"),
        ("return output.double().sum()", "float64"),
        ("return 3.0", "cannot be recorded|fails"),
        ("raise KeyError('dice')", "cannot be recorded: KeyError"),
        ("W = globals().setdefault('W', torch.zeros(1)); W += output.detach()", "in place"),
    ],
)
def test_a_loss_that_does_not_keep_its_contract_is_refused(
    place: Path, new: str, words: str
) -> None:
    changed(place, "CALLS.append(1)", new)
    with pytest.raises(ExtensionRefused, match=words):
        check_extensions(config(LOSS))


def test_a_loss_with_a_backward_pass_of_its_own_is_refused(place: Path) -> None:
    changed(
        place,
        "def focal_loss(given, output, target):",
        """class Odd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.sum()
    @staticmethod
    def backward(ctx, g): CALLS.append(1); return g * 7 * torch.ones(1)

def focal_loss(given, output, target):
    return Odd.apply(output)
""",
    )
    with pytest.raises(
        ExtensionRefused,
        match=r"does otherwise when it is recorded|cannot be recorded|none of torch",
    ):
        check_extensions(config(LOSS))


def test_a_loss_of_another_task_or_with_odd_arguments_is_refused(place: Path) -> None:
    assert place.is_dir()
    horizon = "{kind: prognosis, event: e, time: t, outcome: fixed_horizon, horizon: 1}"
    with pytest.raises(ExtensionRefused, match=r"task.kind=prognosis; it is made for diagnosis"):
        check_extensions(config(LOSS.replace("{kind: diagnosis, target: ill}", horizon)))
    odd = LOSS.replace("acme-parts/focal", "{name: acme-parts/focal, arguments: {gama: 1}}")
    with pytest.raises(
        ExtensionRefused, match=r"training.loss.arguments of acme-parts/focal.*gama"
    ):
        check_extensions(config(odd))
    with pytest.raises(ExtensionRefused, match="acme-parts/flip is not offered"):
        config(LOSS.replace("acme-parts/focal", "acme-parts/flip"))


def test_a_private_step_takes_an_extensions_loss_patient_by_patient(place: Path) -> None:
    assert place.is_dir()
    run = config(LOSS.replace("privacy: none", PRIVATE))
    assert read_config(run.canonical_json()) == run
    item_loss = training_loss(run.in_force(), task_of(run.task))
    objective = replace(objective_of(ImageNet(), patients_of()), item_loss=item_loss)
    check_model(objective, plan_of(), Silence(), foreign=True)
    parameters = list(objective.model.parameters())
    everyone = draw(objective.patients, 1.0, 2, Silence())
    found = list(gradients_by_patient(objective, parameters, everyone, LOOP))
    fewer = replace(objective, patients=without(objective.patients, 0))
    rest = draw(fewer.patients, 1.0, 2, Silence())
    for one, other in zip(
        found[1:], gradients_by_patient(fewer, parameters, rest, LOOP), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- transforms ----------------------------------------------------------------------------


def test_a_transform_changes_each_image_by_its_own_chance_and_the_cohort_stays(place: Path) -> None:
    assert place.is_dir()
    apply = transforms_of(config(FLIP))
    assert apply is not None
    image, target = torch.randn(16, 1, 8, 8), torch.ones(16, 1)
    before, state = image.clone(), torch.random.get_rng_state()
    first, same = apply(image, target, drawn(1))
    again, _ = apply(image, target, drawn(1))
    assert torch.equal(image, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert same is target
    flipped = [torch.equal(one, old.flip(-1)) for one, old in zip(first, image, strict=True)]
    assert 0 < sum(flipped) < 16
    assert all(
        f or torch.equal(one, old) for f, one, old in zip(flipped, first, image, strict=True)
    )


def test_torchs_global_generator_is_seeded_for_each_image(place: Path) -> None:
    changed(
        place,
        "    if torch.rand((), g",
        "    return image + torch.rand(()), target\n    if torch.rand((), g",
    )
    apply = transforms_of(config(FLIP))
    assert apply is not None
    made = [apply(torch.zeros(4, 1, 8, 8), torch.ones(4, 1), drawn(k))[0] for k in (1, 1, 2)]
    assert torch.equal(made[0], made[1])
    assert len(torch.unique(torch.cat([made[0], made[2]]))) == 8


def test_a_map_of_structures_moves_with_its_image(place: Path) -> None:
    assert place.is_dir()
    text = FLIP.replace(
        "{kind: diagnosis, target: ill}", "{kind: segmentation, structures: {a: [1]}}"
    )
    apply = transforms_of(config(text.replace("small_cnn", "unet").replace("[8, 8]", "[16, 16]")))
    assert apply is not None
    target = torch.randint(0, 2, (8, 16, 16), dtype=torch.uint8)
    moved, maps = apply(target[:, None].float(), target, drawn(1))
    assert torch.equal(moved[:, 0], maps.float())
    assert not torch.equal(maps, target)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("return image / 0, target", "not finite"),
        ("return image[:, :4], target", r"expected \(1, 8, 8\)"),
        ("return image.double(), target", "float64"),
        ("return image, image", "map of structures, where there was none"),
        ("return image.numpy(), target", "ndarray, expected a tensor"),
        ("return image", "fails"),
        ("return image * (1 + len(CALLS)), CALLS.append(1)", "another image from the same seed"),
        ("import random; return image + random.random(), target", "from the same seed"),
        ("raise KeyError('dice')", "fails: KeyError"),
    ],
)
def test_a_transform_that_does_not_keep_its_contract_is_refused(
    place: Path, new: str, words: str
) -> None:
    changed(place, "    if torch.rand((), g", f"    {new}\n    if torch.rand((), g")
    with pytest.raises(ExtensionRefused, match=words):
        check_extensions(config(FLIP))


def test_a_private_run_takes_no_transform_and_a_table_has_no_image() -> None:
    with pytest.raises(ConfigurationError, match="takes no transforms"):
        parse_config(FLIP.replace("privacy: none", PRIVATE))
    table = FLIP.replace("images: {size: [8, 8]}", "table: {numbers: [{column: age}]}")
    with pytest.raises(ConfigurationError, match="acts on images"):
        parse_config(table.replace("small_cnn", "table"))


# --- metrics -------------------------------------------------------------------------------


def counts(run: RunConfig, noise: float = 0.0) -> Statistics:
    """Return merged counts of two sites, 60 patients of 120 with the outcome."""
    task, rules = task_of(run.task), run.evaluation.model_copy(update={"count_noise": noise})
    parts = []
    for seed in (0, 1):
        target = (torch.arange(60) % 2).float()[:, None]
        drawn = torch.rand((60, 1), generator=torch.Generator().manual_seed(seed))
        found = task.statistics(Scores(drawn, target, torch.zeros(60)), rules)
        parts.append(found if not noise else with_count_noise(found, noise, SimulatedNoise(seed)))
    return merge(parts)


def test_a_metric_is_computed_from_released_counts_with_an_interval(place: Path) -> None:
    assert place.is_dir()
    run = config(SHARE)
    found = summarised(run, counts(run))["acme-parts/share"]
    assert found.value == pytest.approx(0.5)
    # Binomial, of 120 patients: 1.96 x sqrt(0.25 / 120).
    assert found.high - found.value == pytest.approx(0.0895, rel=0.15)
    assert "auroc" in summarised(run, counts(run))


def test_a_private_run_has_it_from_noised_counts_which_were_charged(place: Path) -> None:
    assert place.is_dir()
    text = SHARE.replace("privacy: none", PRIVATE).replace("metrics:", "count_noise: 1.0, metrics:")
    run = config(text)
    found = summarised(run, counts(run, noise=1.0))["acme-parts/share"]
    assert found.value == pytest.approx(0.5, abs=0.1)
    assert found.low < 0.5 < found.high
    hidden = summarised(run, counts(run, noise=40.0))["acme-parts/share"]
    assert np.isnan(hidden.value)
    assert "hides it" in hidden.reason


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("return 0.5", r"gives \(\), expected \(5,\)"),
        ("return np.full(len(counts.positive), 2.0)", "gives 2, expected 0 to 1"),
        ("return np.full(len(counts.positive), np.inf)", "gives inf"),
        (
            "return np.full(len(counts.positive), counts.positive.sum() % 1)",
            "each row alone gives its number",
        ),
        (
            "global N; N = globals().get('N', 0) + 0.01; return N + 0 * counts.positive[:, 0]",
            "each",
        ),
        ("raise KeyError('dice')", "fails: KeyError"),
    ],
)
def test_a_metric_that_does_not_keep_its_contract_is_refused(
    place: Path, new: str, words: str
) -> None:
    changed(
        place, "    return counts.positive.sum(1)", f"    {new}\n    return counts.positive.sum(1)"
    )
    with pytest.raises(ExtensionRefused, match=words):
        check_extensions(config(SHARE))


def test_a_metric_that_fails_at_the_end_is_not_told_and_says_why(place: Path) -> None:
    changed(
        place,
        "def share_of(given, counts):",
        "def share_of(given, counts):\n    if len(counts.edges) > 9: raise KeyError('dice')",
    )
    run = config(SHARE)
    found = summarised(run, counts(run))
    assert np.isnan(found["acme-parts/share"].value)
    assert "fails: KeyError" in found["acme-parts/share"].reason
    assert not np.isnan(found["auroc"].value)


def test_tasks_without_counts_by_probability_take_no_metric() -> None:
    for task, network in (
        ("{kind: segmentation, structures: {a: [1]}}", "unet"),
        ("{kind: prognosis, event: e, time: t, intervals: [1, 2]}", "small_cnn"),
    ):
        text = SHARE.replace("{kind: diagnosis, target: ill}", task).replace("small_cnn", network)
        text = text.replace("[8, 8]", "[16, 16]")
        with pytest.raises(ConfigurationError, match="releases none"):
            parse_config(text)


# --- rules of aggregation ------------------------------------------------------------------


def changes(scale: float = 1.0) -> list[SiteUpdate]:
    return [
        SiteUpdate(
            run="r",
            round=1,
            site=name,
            delta={"w": torch.full((2,), scale * number)},
            control_delta=None,
            steps=1,
            spend=None,
        )
        for number, name in enumerate(("east", "north"), 1)
    ]


def round_of(
    rule: Aggregator, state: dict[str, Tensor], number: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    weights = {"w": torch.zeros(2)}
    gathering = rule.begin(weights)
    for update in changes():
        rule.add(gathering, update)
    after, kept = rule.finish(gathering, weights, state, number)
    return after, dict(kept)


def rule_of(run: RunConfig) -> Aggregator:
    return aggregator_of(run.aggregation, 2, run.extensions)


def test_a_rule_combines_updates_by_weight_and_carries_its_state(place: Path) -> None:
    assert place.is_dir()
    rule = rule_of(config(RULE.replace("momentum}", "momentum, weights: {north: 3.0}}")))
    first, state = round_of(rule, dict(rule.init({"w": torch.zeros(2)})), 1)
    assert torch.allclose(first["w"], torch.full((2,), 1.75))
    second, _ = round_of(rule, state, 2)
    assert torch.allclose(second["w"], torch.full((2,), 1.75 + 0.5 * 1.75))
    again, _ = round_of(rule, state, 2)  # as after a crash
    assert torch.equal(again["w"], second["w"])


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("return mean", "gives dict, expected Combined"),
        ("return Combined(change={}, state={})", "other parameters than the updates"),
        ("mean['scale'] = mean['scale'] / 0", "scale is no tensor of finite numbers"),
        ("mean = {n: v.double() for n, v in mean.items()}", "of torch.float64"),
        ("changes[0].delta['scale'].add_(1)", "changes the updates|from the same updates"),
        ("import random; mean['scale'] += random.random()", "from the same updates"),
        ("global N; N = globals().get('N', 0) + 1; mean['scale'] += N", "from the same updates"),
        ("raise KeyError('dice')", "fails: KeyError"),
    ],
)
def test_a_rule_that_does_not_keep_its_contract_is_refused(
    place: Path, new: str, words: str
) -> None:
    changed(place, "    kept = {n: 0.5", f"    {new}\n    kept = {{n: 0.5")
    with pytest.raises(ExtensionRefused, match=words):
        rule_of(config(RULE))


def test_a_rule_that_fails_in_a_round_ends_the_run_with_its_name(place: Path) -> None:
    changed(place, "    kept =", "    if 'w' in mean: raise KeyError('dice')\n    kept =")
    with pytest.raises(RunFailed, match=r"Round 3 .*acme-parts/momentum fails: KeyError"):
        round_of(rule_of(config(RULE)), {}, 3)


def test_an_unknown_rule_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        ConfigurationError, match=r"DISTRIBUTION/NAME of an installed extension. Did you mean mean"
    ):
        parse_config(RULE.replace("acme-parts/momentum", "meen"))
    with pytest.raises(ConfigurationError, match="go with rule: flower or an extension's"):
        parse_config(RULE.replace("acme-parts/momentum", "mean, arguments: {a: 1}"))


# --- what a hospital says ------------------------------------------------------------------


def reason(run: RunConfig, *rules: AllowedExtension) -> RefusalReason | None:
    found = judge_extensions(run, rules)
    return None if found is None else found.reason


@pytest.mark.parametrize("text", [SHARE, RULE])
def test_what_runs_at_the_coordinator_is_allowed_and_need_not_be_installed(
    place: Path, text: str
) -> None:
    run = config(text)
    (extension,) = run.extensions
    told = dict(described(run))["code of others"]
    assert "It runs at the coordinator alone" in told
    assert extension.content in told
    (place / "acme_parts-1.0.0.dist-info" / "METADATA").unlink()
    (place / "acme_parts-1.0.0.dist-info").rename(place / "gone")
    assert reason(run) == RefusalReason.EXTENSION_NOT_ALLOWED
    assert reason(run, all_of(extension)) is None
    assert pinned(run, at_site=True) == run
    with pytest.raises(ExtensionRefused, match="not installed here"):
        pinned(run)


@pytest.mark.parametrize(("text", "kind"), [(LOSS, "loss"), (FLIP, "transform of training")])
def test_what_runs_at_a_site_is_installed_and_allowed_there(
    place: Path, text: str, kind: str
) -> None:
    run = config(text)
    (extension,) = run.extensions
    assert f"({kind}" in dict(described(run))["code of others"]
    assert "could read every image" in dict(described(run))["code of others"]
    assert reason(run, all_of(extension)) is None
    assert reason(run) == RefusalReason.EXTENSION_NOT_ALLOWED
    (place / "acme_parts" / "more.py").write_text("")
    assert reason(run, all_of(extension)) == RefusalReason.EXTENSION_OTHER_CONTENT
    (place / "acme_parts-1.0.0.dist-info").rename(place / "gone")
    assert reason(run, all_of(extension)) == RefusalReason.EXTENSION_NOT_INSTALLED
