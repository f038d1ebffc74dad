"""What a run's inputs, network and answers must be for each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.config.cohort import Cohort, Images
from common.config.network_sizes import misfit
from common.config.parts.extension import distribution_of, is_extension
from common.config.privacy import Evaluation
from common.config.start_weights import DIMENSIONS, ONE_CHANNEL
from common.config.tasks import Task
from common.config.tasks.forms import LabelProbabilities
from common.config.tasks.task_config import MOST_GRADES
from common.config.training import SEGMENTATION_NETWORKS, Model

if TYPE_CHECKING:
    from common.config.run_config import RunConfig


def check_network(config: RunConfig) -> None:
    """Refuse inputs, networks and metrics that do not fit each other or the task."""
    _check_extensions(config)
    _check_inputs(config.task, config.cohort)
    _check_slides(config.task, config.cohort)
    for model in config.models:
        _check_network(config.task, config.cohort, model)
    _check_metrics(config.task, config.evaluation)
    _check_threshold(config.task, config.evaluation)
    _check_pool(config)


def _check_extensions(config: RunConfig) -> None:
    """Refuse two contents of one distribution, and distributions that nothing names."""
    given = [extension.distribution for extension in config.extensions]
    named = {distribution_of(name) for name in config.extension_names()}
    for distribution in given:
        if given.count(distribution) > 1:
            message = f"extensions names {distribution} twice; expected one version and content"
            raise ValueError(message)
        if distribution not in named:
            message = (
                f"extensions names {distribution}, which nothing in the run takes anything from; "
                f"remove it, or write e.g. model.network: {distribution}/NAME"
            )
            raise ValueError(message)


def _check_slides(task: Task, cohort: Cohort) -> None:
    """Refuse outlines of tiles, which no mask is of."""
    if task.outlines and cohort.images is not None and cohort.images.slide is not None:
        message = "cohort.images.slide goes with one answer a patient; remove it, or the outlines"
        raise ValueError(message)


def _check_inputs(task: Task, cohort: Cohort) -> None:
    """Refuse a column that is predicted and given: the network would read off its answer."""
    table = cohort.table
    for name in () if table is None else table.columns:
        if name in task.outcome_columns:
            message = (
                f"cohort.table takes column {name}, which task is to predict: the "
                "network would read its answer off its input; remove it from cohort.table, or "
                "predict another column"
            )
            raise ValueError(message)


def _check_metrics(task: Task, evaluation: Evaluation) -> None:
    """Refuse metrics where no counts by probability are released, and one that is named twice."""
    names = [use.name for use in evaluation.metrics]
    form = task.predicts
    counted = isinstance(form, LabelProbabilities) and not form.ordered
    for name in names:
        if names.count(name) > 1:
            message = f"evaluation.metrics names {name} twice, whose values have one place"
            raise ValueError(message)
        if not counted:
            message = (
                f"evaluation.metrics takes {name}: extensions' metrics are of counts by predicted "
                f"probability, and {task.kind} of this kind releases none; remove it"
            )
            raise ValueError(message)


def _check_threshold(task: Task, evaluation: Evaluation) -> None:
    """Refuse a threshold where nothing is decided by it."""
    threshold, form = evaluation.threshold, task.predicts
    if threshold is None:
        return
    if not isinstance(form, LabelProbabilities):
        fault = f"{task.kind} of this kind predicts no labels; remove it"
    elif form.ordered:
        fault = "grades are decided by the middle one, and always measured so; remove it"
    elif form.exclusive and threshold != "most_probable":
        fault = "of classes that exclude each other one is predicted; write most_probable"
    elif form.exclusive and len(task.labels) > MOST_GRADES:
        fault = f"a matrix is told of at most {MOST_GRADES} classes, not {len(task.labels)}"
    elif not form.exclusive and threshold == "most_probable":
        fault = "each label is predicted or not by itself; write a probability, such as 0.5"
    else:
        return
    message = f"evaluation.threshold={threshold}: {fault}"
    raise ValueError(message)


def _check_pool(config: RunConfig) -> None:
    """Refuse a pool where there is nothing to pool, or where each picture is measured alone."""
    for model in config.models:
        if model.pool is None:
            continue
        if model.network == "table" or model.network in SEGMENTATION_NETWORKS:
            message = (
                f"model.pool={model.pool} makes one answer of a patient's pictures, and "
                f"{model.network} gives none of a picture; remove pool"
            )
            raise ValueError(message)
        if config.evaluation.unit == "image":
            message = (
                f"model.pool={model.pool} gives one answer a patient, and evaluation.unit=image "
                "measures each picture by itself; write evaluation.unit: patient, or remove pool"
            )
            raise ValueError(message)


def _check_network(task: Task, cohort: Cohort, model: Model) -> None:
    if is_extension(model.network):
        if task.outlines and cohort.table is not None:
            message = "segmentation takes images only; remove cohort.table"
            raise ValueError(message)
        return  # what else it takes, it says itself, once a site's policy let it be loaded
    segments = model.network in SEGMENTATION_NETWORKS
    if segments != task.outlines:
        fits = "densenet121" if segments else "unet"
        message = (
            f"model.network={model.network} does not fit task.kind={task.kind}; take e.g. {fits}"
        )
        raise ValueError(message)
    if (model.network == "table") != (cohort.images is None):
        message = (
            f"model.network={model.network} does not fit the cohort:"
            " network: table goes with a cohort without images, and only with it"
        )
        raise ValueError(message)
    if segments and cohort.table is not None:
        message = "segmentation takes images only; remove cohort.table"
        raise ValueError(message)
    images = cohort.images
    if model.network == "frozen_features" and images is not None and len(images.series) > 1:
        message = (
            "model.network=frozen_features takes one series, as its backbone saw pictures of one; "
            f"cohort.images.series has {len(images.series)}"
        )
        raise ValueError(message)
    if images is not None and images.time is not None:
        _check_phases(task)
    if model.network == "frozen_features" and images is not None:
        _check_backbone(images, model)
    fault = misfit(model, images)
    if fault is not None:
        raise ValueError(fault)


def _check_backbone(images: Images, model: Model) -> None:
    """Refuse images of other dimensions or channels than a backbone of ours takes."""
    if is_extension(model.backbone):
        return
    start, channels = model.start, images.input_channels
    dimensions = 2 if start is None else DIMENSIONS.get(start.names, images.dimensions)
    if dimensions != images.dimensions:
        form = "[rows, columns]" if dimensions == 2 else "[slices, rows, columns]"
        message = (
            f"frozen_features with backbone {model.backbone} is {dimensions}-D; give "
            f"cohort.images.size as {form}"
        )
        raise ValueError(message)
    grey = start is not None and start.names in ONE_CHANNEL
    if channels not in ({1} if grey else {1, 3}):
        takes = "1 channel" if grey else "1 or 3 channels"
        message = (
            f"frozen_features with backbone {model.backbone} takes {takes}, cohort.images gives "
            f"{channels}; write e.g. channels: 1, or with cohort.images.time as: difference with "
            "frames: 2"
        )
        raise ValueError(message)


def _check_phases(task: Task) -> None:
    """Refuse pictures of several times where a task takes one."""
    if task.outlines:
        message = "segmentation takes one picture of each place; remove cohort.images.time"
        raise ValueError(message)
