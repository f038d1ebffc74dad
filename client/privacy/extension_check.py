"""Check of an installed extension: every guard that a run would put it through, on made-up input.

No site, no patient and no configuration is needed. What a run's own cohort and arguments change
is tried again when the run is planned.

Public: told, check_extension, Check.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import yaml
from pydantic import BaseModel

from client.privacy.model_guard import check_model
from client.privacy.patient_gradients import Objective
from common.bundle.backbone_check import check_backbone
from common.config.network_sizes import SizeRule
from common.config.parts.extension import (
    ExtensionArguments,
    ExtensionKind,
    ExtensionUse,
    distribution_of,
    is_extension,
    meant,
    nearest,
)
from common.config.run_config import PatientPrivacy, RunConfig, read_config
from common.config.yaml import read_yaml
from common.data.sample import Patients
from common.extensions.aggregators import combine_of
from common.extensions.content import Installed, installed, offered
from common.extensions.contract import (
    BackboneExtension,
    LossExtension,
    NetworkExtension,
    TaskExtension,
)
from common.extensions.loading import checked_arguments, load
from common.extensions.pinning import said
from common.extensions.tasks import class_remarks, task_shape
from common.models.extension_network import check_extensions
from common.models.run_network import network_of
from common.platform.errors import ConfigurationError, ExtensionRefused, PrivacyError
from common.privacy.noise import ChaChaNoise
from common.privacy.noise_calibration import make_plan
from common.tasks import task_of
from common.tasks.loss_choice import training_loss

_TASKS: Mapping[str, Mapping[str, object]] = {
    "diagnosis": {"kind": "diagnosis", "target": "label"},
    "prognosis": {
        "kind": "prognosis",
        "event": "event",
        "time": "time",
        "intervals": [1.0, 2.0, 3.0],
    },
    "segmentation": {"kind": "segmentation"},
}
_OURS = {"diagnosis": "small_cnn", "prognosis": "small_cnn", "segmentation": "unet"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was tried, and what came of it."""

    name: str
    kind: ExtensionKind
    tried: str
    refused: ConfigurationError | PrivacyError | None  # None: it holds
    remarks: Sequence[str] = ()  # what its author may not have meant


def told(name: str, arguments: str, size: str, content: str | None = None) -> Iterator[str]:
    """Yield lines for people about what was tried, as they wrote it; then raise the first refusal.

    ConfigurationError where arguments or size are not to be read, and before anything is imported
    where `content` is given and is not what is installed.
    """
    _check_name(name)
    given, sides = _arguments(name, arguments), _sides(size)
    here, refused = _installed(name), None
    if content is not None and content != here.extension.content:
        message = (
            f"{here.extension.distribution} is installed as {said(here.extension)}, expected "
            f"{content}. Nothing of it was run. Install the build that has this content, or look "
            "at what was changed."
        )
        raise ExtensionRefused(message)
    yield f"{here.extension.distribution} {here.extension.version}"
    yield f"  content  {here.extension.content}"
    yield from (f"  between hospitals it is refused: {doubt}" for doubt in here.doubts)
    for check in check_extension(name, given, sides):
        word = "holds  " if check.refused is None else "REFUSED"
        yield f"  {word}  {check.name} ({check.kind}): {check.tried}"
        yield from (f"  remark   {check.name} ({check.kind}): {one}" for one in check.remarks)
        refused = refused or check.refused
    if refused is not None:
        raise refused
    yield "What its code does beside, such as keep or send what it sees, no trial can tell."


def check_extension(
    name: str, arguments: ExtensionArguments, size: tuple[int, ...] = (32, 32)
) -> Iterator[Check]:
    """Yield what holds of DISTRIBUTION/NAME, or of everything that a distribution offers.

    `size` is that of made-up images, brought to the nearest that a network takes.
    ExtensionRefused where nothing of that name is installed.
    """
    here = _installed(name)
    wanted = [one for one in here.offers if one[1] == name or not is_extension(name)]
    if not wanted:
        offers = ", ".join(other for _, other in here.offers) or "nothing"
        near = nearest(name, (other for _, other in here.offers))
        message = f"{here.extension.distribution} offers {offers}, and no {name}.{near}"
        raise ExtensionRefused(message)
    for kind, found in wanted:
        yield from _checks(kind, ExtensionUse(name=found, arguments=arguments), here, size)


def _checks(
    kind: ExtensionKind, use: ExtensionUse, here: Installed, size: tuple[int, ...]
) -> Iterator[Check]:
    """Yield each trial of one part until one fails: what comes after stands on it."""
    tried = "it is what was hashed, and of its kind"
    try:
        for what, work in _TRIALS[kind](use, here, size):
            tried = what
            remarks = work() or ()
            yield Check(name=use.name, kind=kind, tried=tried, refused=None, remarks=remarks)
    except (ConfigurationError, PrivacyError) as refused:
        yield Check(name=use.name, kind=kind, tried=tried, refused=refused)


def _installed(name: str) -> Installed:
    here = installed(distribution_of(name))
    if here is None:
        known = ", ".join(one.extension.distribution for one in offered()) or "none"
        message = (
            f"{distribution_of(name)} is not installed here (extensions that are: {known}). "
            f"Install it beside Wardround: pip install {distribution_of(name)}"
        )
        raise ExtensionRefused(message)
    return here


def _check_name(name: str) -> None:
    if not is_extension(name if "/" in name else f"{name}/any"):
        near = meant(name) or meant(f"{name}/any").replace("/any", "")
        message = f"NAME is {name!r}, expected DISTRIBUTION or DISTRIBUTION/NAME{near or '.'}"
        raise ConfigurationError(message)


def _arguments(name: str, text: str) -> ExtensionArguments:
    """Return the arguments as a configuration would write them."""
    try:
        content = read_yaml(text)
        return ExtensionUse.model_validate(
            {"name": f"{distribution_of(name)}/any", "arguments": content or {}}
        ).arguments
    except (yaml.YAMLError, ValueError) as error:
        message = (
            f"--arguments {text!r} is not what a configuration takes as arguments; expected e.g. "
            "'{width: 8}'."
        )
        raise ConfigurationError(message) from error


def _sides(text: str) -> tuple[int, ...]:
    """Return the sides of made-up images."""
    try:
        sides = tuple(int(side) for side in text.split(","))
    except ValueError:
        sides = ()
    if len(sides) not in {2, 3} or not all(1 <= side <= 512 for side in sides):
        message = f"--size {text!r} must be two or three sides from 1 to 512, such as 64,64."
        raise ConfigurationError(message)
    return sides


# --- trials by kind ------------------------------------------------------------------------

#: What is tried, and what tries it; it may return remarks.
_Trial = tuple[str, Callable[[], Sequence[str] | None]]


def _network(use: ExtensionUse, here: Installed, size: tuple[int, ...]) -> Iterator[_Trial]:
    kind: NetworkExtension[BaseModel] = load(
        (here.extension,), "networks", use.name, NetworkExtension
    )
    sides = tuple(kind.size.nearest(side) for side in size)
    for task in sorted(kind.tasks):
        run = _run(here, task, sides, model=_written(use, "network"))
        what = f"{task}, images {' x '.join(map(str, sides))}"
        yield f"{what}: the same seed builds the same network; its outputs fit", partial(_seed, run)
        yield f"{what}: one patient's gradient is that patient's alone", partial(_guard, run)


def _task(use: ExtensionUse, here: Installed, size: tuple[int, ...]) -> Iterator[_Trial]:
    kind: TaskExtension[BaseModel] = load((here.extension,), "tasks", use.name, TaskExtension)
    arguments = checked_arguments(kind.arguments, use)
    columns, classes = task_shape(use.name, kind, arguments)
    task = {
        "kind": "extension",
        **_written(use),
        "columns": [
            {"column": f"column {number}", "values": [f"value {n}" for n in range(values)]}
            for number, values in enumerate(columns)
        ],
        "classes": [f"class {number}" for number in range(classes)],
    }
    sides = tuple(SizeRule(smallest=16, multiple=16).nearest(side) for side in size)
    run = _run(here, "diagnosis", sides, task=task)
    several = "s" * (len(columns) != 1)
    what = f"{classes} classes of {len(columns)} column{several}: their record and the loss's do "
    yield f"{what}what the code does", partial(_classes, run)
    yield "one patient's gradient is that patient's alone", partial(_guard, run)


def _backbone(use: ExtensionUse, here: Installed, size: tuple[int, ...]) -> Iterator[_Trial]:
    kind: BackboneExtension[BaseModel] = load(
        (here.extension,), "backbones", use.name, BackboneExtension
    )
    sides = tuple(kind.size.nearest(side) for side in size)
    model = {"network": "frozen_features", **_written(use, "backbone")}
    run = _run(here, "diagnosis", sides, model=model)
    what = f"images {' x '.join(map(str, sides))}"
    yield (
        f"{what}: its record does what the code does, of each image alone; features are finite",
        partial(_seed, run),
    )
    yield f"{what}: a bundle can hold it (ONNX, TorchScript)", partial(check_backbone, run)


def _loss(use: ExtensionUse, here: Installed, size: tuple[int, ...]) -> Iterator[_Trial]:
    kind: LossExtension[BaseModel] = load((here.extension,), "losses", use.name, LossExtension)
    sides = tuple(SizeRule(smallest=16, multiple=16).nearest(side) for side in size)
    for task in sorted(kind.tasks):
        run = _run(here, task, sides, training={"loss": _written(use)})
        yield f"{task}: the record does what the code does", partial(check_extensions, run)
        yield f"{task}: one patient's gradient is that patient's alone", partial(_guard, run)


def _transform(use: ExtensionUse, here: Installed, size: tuple[int, ...]) -> Iterator[_Trial]:
    sides = tuple(SizeRule(smallest=16, multiple=16).nearest(side) for side in size)
    for task in ("diagnosis", "segmentation"):
        run = _run(here, task, sides, training={"transforms": [_written(use)]})
        what = "an image" if task == "diagnosis" else "an image with its map of structures"
        yield f"{what}: finite, of its shape, the same from a seed", partial(check_extensions, run)


def _metric(use: ExtensionUse, here: Installed, _size: tuple[int, ...]) -> Iterator[_Trial]:
    run = _run(here, "diagnosis", (32, 32), evaluation={"metrics": [_written(use)]})
    what = "each row of counts gives its own number, inside lowest to highest"
    yield what, partial(check_extensions, run)


def _rule(use: ExtensionUse, here: Installed, _size: tuple[int, ...]) -> Iterator[_Trial]:
    what = "the same updates and state give the same change, of their shapes"
    yield what, partial(_combines, use, here)


_TRIALS: Mapping[
    ExtensionKind, Callable[[ExtensionUse, Installed, tuple[int, ...]], Iterator[_Trial]]
] = {
    "networks": _network,
    "tasks": _task,
    "backbones": _backbone,
    "losses": _loss,
    "transforms": _transform,
    "metrics": _metric,
    "aggregators": _rule,
}


def _written(use: ExtensionUse, key: str = "name") -> dict[str, object]:
    return {key: use.name, "arguments": use.arguments}


def _run(
    here: Installed, task: str, size: tuple[int, ...], /, **sections: Mapping[str, object]
) -> RunConfig:
    """Return a run on made-up images, and a clinical number where the task takes one."""
    cohort: dict[str, object] = {"images": {"size": list(size)}}
    if task != "segmentation":
        cohort["table"] = {"numbers": [{"column": "number"}]}
    training: dict[str, object] = {"rounds": 1, **sections.get("training", {})}
    written = {
        "name": "check",
        "task": _TASKS[task],
        "cohort": cohort,
        "model": {"network": _OURS[task], "width": 4},
        "privacy": "none",
        "extensions": [here.extension.model_dump()],
        **sections,
        "training": training,
    }
    return read_config(json.dumps(written), source="what is tried")


def _combines(use: ExtensionUse, here: Installed) -> None:
    combine_of(use, (here.extension,))


def _classes(run: RunConfig) -> Sequence[str]:
    check_extensions(run)
    return class_remarks(run)


def _seed(run: RunConfig) -> None:
    network_of(run, 0)


def _guard(run: RunConfig) -> None:
    """Put network and loss through what a private run tries before its first charge."""
    task, network = task_of(run.task), network_of(run, 0)
    privacy = PatientPrivacy(unit="patient", epsilon=3.0, default_patients=100)
    plan = make_plan(privacy, run.training, 100, 100.0, simulated=False)
    objective = Objective(
        model=network,
        item_loss=training_loss(run, task),
        patients=_nobody(run),
        images_per_patient=1,
    )
    check_model(objective, plan, ChaChaNoise(), foreign=True)


def _nobody(run: RunConfig) -> Patients:
    """Return what shapes a cohort would have; the guard makes its own items of them."""
    images, table = run.cohort.images, run.cohort.table
    size = () if images is None else tuple(images.size)
    target = torch.from_numpy(task_of(run.task).blank_target(size))
    return Patients(
        image=torch.zeros((1, 1, *size)),
        table=torch.zeros((1, 0 if table is None else table.width)),
        target=target[None],
        patient=torch.zeros(1, dtype=torch.int64),
        pseudonyms=("nobody",),
    )
