"""What a run's training must be for its task, images and privacy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.config.aggregation import Aggregation, scaffold_misfit
from common.config.cohort import Cohort
from common.config.parts.extension import is_extension
from common.config.tasks import Task
from common.config.tasks.extension_task import ExtensionTask
from common.config.tasks.forms import IncidenceCurves, LabelProbabilities
from common.config.training import Flip, Model, Training

if TYPE_CHECKING:
    from common.config.run_config import RunConfig


def check_training(config: RunConfig) -> None:
    """Refuse training that does not fit the task, its images, or the run's privacy."""
    _check_transforms(config.cohort, config.model, config.training)
    _check_precision(config)
    _check_loss(config)
    _check_emphasis(config)
    _check_flips(config)
    fault = scaffold_misfit(config.training, config.aggregation)
    if fault is not None:
        raise ValueError(fault)
    if config.privacy != "none":
        _check_private_split(config.cohort)
        _check_private_training(config.privacy.training or config.training)
        _check_private_aggregation(config.privacy.aggregation or config.aggregation)


def _check_private_split(cohort: Cohort) -> None:
    """Refuse folds: a patient who is tested in one trains in all others, each a run of its own."""
    if cohort.split.folds is not None:
        message = (
            f"a private run takes no cohort.split.folds={cohort.split.folds}: each patient would "
            "train in all folds but one, and be charged for one; write cohort.split."
            "test_fraction: 0.2 in place of folds, or privacy: none"
        )
        raise ValueError(message)


def _check_private_training(training: Training) -> None:
    """Refuse what the private step does not do, rather than leave it out unsaid."""
    wanted = {
        "proximal": training.proximal > 0,
        "augment": bool(training.augment),
        "transforms": bool(training.transforms),
    }
    asked = [name for name, here in wanted.items() if here]
    if asked:
        message = (
            f"a private run takes no {' and no '.join(asked)}; give privacy.training a section "
            "of its own without"
        )
        raise ValueError(message)


def _check_private_aggregation(aggregation: Aggregation) -> None:
    """Refuse SCAFFOLD, whose correction of the gradients the private step does not make."""
    if aggregation.rule == "scaffold":
        message = (
            "a private run takes no aggregation.rule=scaffold; give privacy.aggregation a section "
            "of its own, e.g. {rule: mean}"
        )
        raise ValueError(message)


def _check_precision(config: RunConfig) -> None:
    """Refuse bfloat16 for code of others, which is tried in float32."""
    foreign = [model.network for model in config.models if is_extension(model.network)]
    if foreign and any(training.precision == "bf16" for training in config.trainings):
        message = (
            f"training.precision=bf16 goes with networks of ours; {foreign[0]} is tried in float32 "
            "alone: remove precision"
        )
        raise ValueError(message)


def _check_transforms(cohort: Cohort, model: Model, training: Training) -> None:
    """Refuse changes of images where no image is there when a network is trained."""
    if cohort.images is not None and model.network != "frozen_features":
        return
    for name in ("transforms", "augment"):
        if getattr(training, name):
            message = (
                f"training.{name} acts on images, which network: {model.network} does not take; "
                "remove it"
            )
            raise ValueError(message)


def _check_loss(config: RunConfig) -> None:
    """Refuse a loss beside that of a task that brings its own."""
    for training in config.trainings:
        if isinstance(config.task, ExtensionTask) and training.loss:
            message = (
                f"training.loss={training.loss.name} stands beside task.name={config.task.name}, "
                "which is learned by its own loss; remove training.loss"
            )
            raise ValueError(message)


def _check_flips(config: RunConfig) -> None:
    """Refuse flips of what has one side alone, and of axes that are not there."""
    images, steps = config.cohort.images, config.training.augment
    if images is None or not steps:
        return
    axes = {"columns"} if steps is True else set()
    for step in steps if isinstance(steps, tuple) else ():
        axes |= set(step.axes) if isinstance(step, Flip) else set()
    if "slices" in axes and images.dimensions == 2:
        message = "training.augment flips slices, which 2-D images have none of"
        raise ValueError(message)
    one_sided = images.laterality is not None or images.laterality_column is not None
    if one_sided and "columns" in axes:
        message = (
            "training.augment flips columns, which makes a left side of a right one, and the run "
            "is of one side (cohort.images.laterality); give a list of steps without that flip"
        )
        raise ValueError(message)


def _check_emphasis(config: RunConfig) -> None:
    """Refuse weights of labels where the loss has no such labels, or is an extension's."""
    for training in config.trainings:
        given = {
            "class_weights": bool(training.class_weights),
            "focal": training.focal is not None,
            "tversky": training.tversky is not None,
        }
        named = [name for name, used in given.items() if used]
        if named and (training.loss is not None or isinstance(config.task, ExtensionTask)):
            message = f"training.{named[0]} changes a loss of ours; an extension's is given"
            raise ValueError(message)
        _check_own_loss(config.task, training, named)
        _check_emphasis_of_task(config.task, training, named)


def _check_own_loss(task: Task, training: Training, named: list[str]) -> None:
    """Refuse losses of classes without an order, or of one event: grades and causes have others."""
    form = task.predicts
    if isinstance(form, IncidenceCurves) and training.loss:
        message = (
            "training.loss is of one event's hazards, and outcome: competing has several causes; "
            "remove it"
        )
        raise ValueError(message)
    if not isinstance(form, LabelProbabilities) or not form.ordered:
        return
    for name in (*named, *(["loss"] if training.loss else [])):
        message = (
            f"training.{name} is a loss of classes without an order, and type: ordinal is learned "
            "cut by cut; remove it, or take type: multiclass"
        )
        raise ValueError(message)


def _check_emphasis_of_task(task: Task, training: Training, named: list[str]) -> None:
    if not isinstance(task.predicts, LabelProbabilities):
        named = [name for name in named if name != "tversky" or not task.outlines]
        if named:
            takes = "tversky" if task.outlines else "none of them"
            message = f"training.{named[0]} goes with labels; task.kind={task.kind} takes {takes}"
            raise ValueError(message)
        return
    if "tversky" in named:
        message = f"training.tversky goes with outlines; for task.kind={task.kind} take focal"
        raise ValueError(message)
    known = {*task.labels, *(name for named in task.named_values.values() for name in named)}
    odd = sorted(training.class_weights.keys() - known)
    if odd:
        message = f"training.class_weights names {odd[0]!r}, expected {', '.join(sorted(known))}"
        raise ValueError(message)
