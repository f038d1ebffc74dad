"""Inference: a trained model on a hospital's own studies.

Public: TrainedModel, Local, open_model, score_study.

The files go through the reader and the preparation that training uses. Scores are PyTorch's: the
explanations need its gradients, and one computation answers and explains. `open_model` checks that
it computes what the bundle's ONNX file does, which was checked against the trained network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.dicom.reasons import Unusable
from client.inference.answer import Answered, answer_of
from client.inference.calibration.site_calibration import SiteCalibration
from client.inference.explain import explained
from client.inference.study_reading import Item, ScoredStudy, SiteRows, inputs_of, read_study
from client.labels.label_table import Labels
from client.privacy.isolation import Isolation
from client.results.score import ModelName, Score
from client.series.fitting import Aliases
from client.site.extensions_section import AllowedExtension, how_to_allow, is_allowed
from common.bundle.onnx import Deployed, example_inputs, tolerated
from common.bundle.write import Bundle, read_bundle
from common.config.parts.extension import distribution_of
from common.config.run_config import RunConfig
from common.data.weights import load_into
from common.models.bags import pools
from common.models.deep_supervision import is_deep_head
from common.models.run_network import network_of
from common.models.windows import slid
from common.platform.code_hash import RELEASE
from common.platform.errors import ConfigurationError, ExtensionRefused, StateDamaged

#: Part of a label map's voxels that may differ between PyTorch and ONNX: ties.
_TIES = 1e-3


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A bundle that was opened: it answers, and says what it is."""

    name: ModelName
    config: RunConfig  # of the run that made it
    deployed: Deployed  # from prepared inputs to a prediction; in evaluation mode
    seed: int  # of the run
    simulated: bool  # trained in a simulation, whose seed says who was not trained on

    def output(self, items: Sequence[Item]) -> Tensor:
        """Return the network's output of each item, (items, ...), one at a time."""
        return torch.cat(_output_of_each(self, items))

    def outputs(self, items: Sequence[Item]) -> list[Tensor]:
        """Return the network's output of each item, (1, ...): volumes have extents of their own."""
        return _output_of_each(self, items)

    def together(self, items: Sequence[Item], output: Tensor) -> Tensor:
        """Return the output of a patient's items together, (...), of those of each, (items, ...).

        The mean, as it was measured; or the network's own answer where it pools.
        """
        if not pools(self.deployed):
            return output.mean(dim=0)
        each = Isolation(self.deployed)
        with torch.inference_mode():
            return each.alone(functools.partial(_output_of, self, items))[0]


def _output_of_each(model: TrainedModel, items: Sequence[Item]) -> list[Tensor]:
    each = Isolation(model.deployed)
    with torch.inference_mode():
        return [each.alone(functools.partial(_output_of, model, [i])) for i in items]


def _output_of(model: TrainedModel, items: Sequence[Item]) -> Tensor:
    inputs, images = inputs_of(items), model.config.cohort.images
    if model.config.keeps_features:
        features = inputs["image"]
        return model.deployed.of_features(features, inputs.get("table", features[:, :0])).clone()
    if images is None or images.patch is None:
        return _asked(model.deployed, inputs)
    rest = {name: value for name, value in inputs.items() if name != "image"}
    parts = [
        slid(lambda part: _asked(model.deployed, {"image": part, **rest}), image, images.patch)
        for image in torch.split(inputs["image"], 1)
    ]
    return torch.cat(parts)


def _asked(deployed: Deployed, inputs: Mapping[str, Tensor]) -> Tensor:
    # A copy: code of others may answer with memory that it uses again.
    output: Tensor = deployed(**inputs)[1].clone()
    return output


@dataclass(frozen=True, kw_only=True)
class Local:
    """What a site adds to a model that it was given."""

    labels: Labels | None = None  # the site's table, for models that take clinical columns
    withdrawn: frozenset[str] = frozenset()  # PatientIDs that are refused
    #: The site's own words for the series that the model takes (site.yaml, series_aliases).
    aliases: Aliases = field(default_factory=dict)
    calibration: SiteCalibration | None = None  # None: values are as the network gives them
    explain: bool = True  # heatmaps and attributions; they take most of the time
    abstain: bool = True  # False: an answer is given where the calibration advises against it


def open_model(folder: Path, allowed: Iterable[AllowedExtension] = ()) -> TrainedModel:
    """Open a bundle; `allowed` are the extensions that this site lets run.

    StateDamaged when a file is missing, was changed, or does not compute what its ONNX file does;
    ConfigurationError when another release made it, or an extension that is not allowed.
    """
    bundle = read_bundle(folder)
    _check_release(folder, bundle)
    _check_allowed(folder, bundle, allowed)
    network = network_of(bundle.config, 0, start=False)  # all of them come from the bundle
    named = network.named_parameters()
    wanted = {name: value.shape for name, value in named if not is_deep_head(name)}
    held = {name: value.shape for name, value in bundle.weights.items()}
    if wanted != held:
        odd = sorted(n for n in wanted.keys() | held.keys() if wanted.get(n) != held.get(n))
        message = (
            f"{folder} holds weights of another network: {len(odd)} of {len(wanted)} parameters "
            f"differ, {odd[0]} among them. Export the bundle again."
        )
        raise StateDamaged(message)
    load_into(network, bundle.weights)
    deployed = Deployed(network, bundle.config)
    deployed.requires_grad_(requires_grad=False)
    _check_agrees(deployed, bundle)
    return TrainedModel(
        name=ModelName(
            name=bundle.config.name,
            fingerprint=str(_fact(bundle, "run", "fingerprint")),
            weights=str(_fact(bundle, "files", "model.safetensors")),
        ),
        config=bundle.config,
        deployed=deployed,
        seed=int(str(_fact(bundle, "run", "seed"))),
        simulated=bundle.card.get("origin") is None,
    )


def _fact(bundle: Bundle, part: str, name: str) -> object:
    held = bundle.card.get(part)
    value = held.get(name) if isinstance(held, dict) else None
    if not isinstance(value, str | int):
        message = (
            f"{bundle.onnx.parent / 'card.json'} has no {part}.{name}. Export the bundle again."
        )
        raise StateDamaged(message)
    return value


def _check_allowed(folder: Path, bundle: Bundle, allowed: Iterable[AllowedExtension]) -> None:
    """Refuse code of others that nobody here looked at, before any of it is imported."""
    rules = tuple(allowed)
    model = bundle.config.model
    named = {
        *map(distribution_of, (model.network, model.backbone)),
        *map(distribution_of, bundle.config.extension_names({"tasks"})),
    }
    for extension in bundle.config.extensions:
        # A loss, a metric or a rule of aggregation made the weights; a reading runs none of them.
        if extension.distribution in named and not is_allowed(extension, rules):
            message = (
                f"{folder} takes its network, backbone or task from {extension.distribution} "
                f"{extension.version}, which is not in this site's list of extensions. Whoever "
                f"trusts its code adds to extensions: in site.yaml: {how_to_allow(extension)}"
            )
            raise ExtensionRefused(message)


def _check_release(folder: Path, bundle: Bundle) -> None:
    """Refuse another release's bundle: it may have prepared images otherwise."""
    made_by = _fact(bundle, "versions", "wardround")
    if made_by != RELEASE:
        message = (
            f"{folder} was made by Wardround {made_by}; this is {RELEASE}, which may prepare images"
            f" otherwise. Use Wardround {made_by}, or export the bundle with this release."
        )
        raise ConfigurationError(message)


def _check_agrees(deployed: Deployed, bundle: Bundle) -> None:
    """Refuse a network that does not compute what the exported one does."""
    import onnxruntime

    asked = example_inputs(bundle.config, items=1, seed=2)
    session = onnxruntime.InferenceSession(bundle.onnx, providers=["CPUExecutionProvider"])
    theirs = session.run(["prediction", "output"], {n: v.numpy() for n, v in asked.items()})
    tried = Isolation(deployed)
    with torch.inference_mode():
        prediction, output = tried.alone(lambda: [v.clone().numpy() for v in deployed(**asked)])
    worst = float(np.max(np.abs(output - theirs[1]) / np.maximum(1, np.abs(output))))
    labels = bundle.config.task.outlines
    other = float(np.mean(prediction != theirs[0])) if labels else 0.0
    largest = tried.alone(lambda: tolerated(deployed, asked))
    if not worst <= largest or other > _TIES:
        message = (
            f"The weights and the ONNX file in {bundle.onnx.parent} compute different answers "
            f"(by {worst:.2g}, expected at most {largest:.2g}). Export the bundle again."
        )
        raise StateDamaged(message)


def _to_nobody(_problem: Unusable) -> None:
    return


def score_study(
    files: Sequence[Path],
    model: TrainedModel,
    local: Local = Local(),
    tell: Callable[[Unusable], None] = _to_nobody,
) -> tuple[Score, ...]:
    """Return what the model says of one study; what cannot be used is told and left out.

    One score a series (3-D) or image (2-D). Where a patient's items were scored together when
    the model was measured (evaluation.unit: patient), one score a series, whose first values are
    the whole study's: the mean of the outputs, as in the measurement, or what a network that pools
    (model.pool) says of all of them; each image's own follow.

    CohortError when nothing in the study can be scored, or the files are of several studies.
    """
    if model.config.cohort.table is not None and local.labels is None:
        message = (
            f"{model.config.name} takes clinical columns, and this site has no table. Give one in "
            "site.yaml (labels)."
        )
        raise ConfigurationError(message)
    study = read_study(
        files,
        model.config,
        SiteRows(labels=local.labels, withdrawn=local.withdrawn, aliases=local.aliases),
    )
    for problem in study.unusable:
        tell(problem)
    output = model.outputs(study.items)
    return tuple(
        _score(model, local, _answered(model, study, output, chosen))
        for chosen in _together(study, model.config)
    )


def _together(study: ScoredStudy, config: RunConfig) -> list[list[int]]:
    """Return which items get one score: a file's frames, a series', or each by itself."""
    if not config.task.outlines and config.evaluation.unit == "image":
        return [[i] for i in range(len(study.items))]
    groups: dict[tuple[Path, ...] | str, list[int]] = {}
    for i, item in enumerate(study.items):
        outlined = config.task.outlines and item.place is not None
        groups.setdefault(
            item.place.sources if outlined and item.place else item.series, []
        ).append(i)
    return list(groups.values())


def _answered(
    model: TrainedModel, study: ScoredStudy, output: list[Tensor], chosen: list[int]
) -> Answered:
    """Return what the network said of these items, and of those that were measured with them."""
    task, unit = model.config.task, model.config.evaluation.unit
    whole = not task.outlines and unit == "patient"
    items, own = tuple(study.items[i] for i in chosen), torch.cat([output[i] for i in chosen])
    return Answered(
        model=model.name,
        config=model.config,
        items=items,
        output=own,
        sources=study.sources,
        measured=study.items if whole else items,
        together=model.together(study.items, torch.cat(output)) if whole else own.mean(dim=0),
    )


def _score(model: TrainedModel, local: Local, answered: Answered) -> Score:
    score = answer_of(answered, local.calibration, abstain=local.abstain)
    if not local.explain or model.config.task.outlines:
        return score
    # Asked many times with one patient's images, of which nothing is to stay either.
    each = Isolation(model.deployed)
    found = each.alone(lambda: explained(model.deployed, answered))
    return replace(score, heatmap=found.heatmap, attributions=found.attributions)
