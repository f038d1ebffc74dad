"""A site's work on a Ray actor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.training.evaluation import evaluate_round
from client.training.kept_between_rounds import MemoryInProcess
from client.training.local_model import LocalModel, open_local_model
from client.training.local_round import train_round
from client.training.training_site import Site
from common.config.run_config import RunConfig
from common.data.weights import Weights
from common.messages.flower_records import from_arrays, from_record, to_arrays, to_record
from common.messages.wire import EvaluationRequest, TrainRequest
from common.platform.errors import RunFailed, WardroundError

if TYPE_CHECKING:
    from ray import ObjectRef

#: Names of records that are no message of common/messages/wire.py.
FAILED = "failed"
MEMORY = "memory"
SITE = "site"
#: Networks that this actor has built, by configuration and seed: once a run, not once a message.
_LOCAL_MODELS: dict[tuple[str, int], LocalModel] = {}


def client_app(sites: Mapping[str, Site], config: RunConfig, seed: int) -> ClientApp:
    """Return Flower's app of all sites; it carries references to their patients, not the data."""
    import ray

    names = tuple(sites)
    stored = [ray.put(replace(site, memory=MemoryInProcess())) for site in sites.values()]
    app = ClientApp()

    def site_of(context: Context) -> Site:
        return _site(stored[int(context.node_config["partition-id"])], context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return _answer(message, lambda: _train(message, site_of(context), context, config, seed))

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return _answer(message, lambda: _evaluate(message, site_of(context), config, seed))

    @app.query()
    def memory(message: Message, context: Context) -> Message:
        name = names[int(context.node_config["partition-id"])]
        return _answer(message, lambda: _recall(message, name, site_of(context)))

    return app


def _answer(message: Message, work: Callable[[], RecordDict]) -> Message:
    """Return what the work gives; an error travels as its text, without a page of traceback."""
    try:
        content = work()
    except WardroundError as error:
        content = RecordDict({FAILED: ConfigRecord({"message": str(error)})})
    except Exception as error:  # noqa: BLE001 - else it would look like a process that ended
        text = f"{type(error).__name__}: {error}. --engine builtin shows where."
        content = RecordDict({FAILED: ConfigRecord({"message": text})})
    return Message(content, reply_to=message)


def _site(stored: ObjectRef[Site], context: Context) -> Site:
    """Return the site with what it kept so far, which Flower carries from message to message."""
    import ray

    site: Site = ray.get(stored)
    memory = MemoryInProcess()
    for name, arrays in context.state.array_records.items():
        run, number = name.rsplit("/", 1)
        memory.keep(run, int(number), from_arrays(arrays))
    return replace(site, memory=memory)


def _local_model(config: RunConfig, seed: int) -> LocalModel:
    key = (config.fingerprint(), seed)
    if key not in _LOCAL_MODELS:
        torch.set_num_threads(1)
        _LOCAL_MODELS.clear()
        _LOCAL_MODELS[key] = open_local_model(config, seed)
    return _LOCAL_MODELS[key]


def _train(
    asked: Message, site: Site, context: Context, config: RunConfig, seed: int
) -> RecordDict:
    request = from_record(asked.content)
    if not isinstance(request, TrainRequest):
        message = f"A {type(request).__name__} came where training was asked for."
        raise RunFailed(message)
    answer = train_round(site, _local_model(config, seed), request)
    _keep(context, request, site.memory.recall(request.run, request.round))
    return to_record(answer)


def _keep(context: Context, request: TrainRequest, kept: Weights) -> None:
    """Let Flower carry what the site keeps; the round before last can no longer be asked for."""
    if kept:
        context.state[f"{request.run}/{request.round}"] = to_arrays(kept)
        context.state.pop(f"{request.run}/{request.round - 2}", None)


def _evaluate(asked: Message, site: Site, config: RunConfig, seed: int) -> RecordDict:
    request = from_record(asked.content)
    if not isinstance(request, EvaluationRequest):
        message = f"A {type(request).__name__} came where a measurement was asked for."
        raise RunFailed(message)
    return to_record(evaluate_round(site, _local_model(config, seed), request))


def _recall(message: Message, name: str, site: Site) -> RecordDict:
    """Return what a site kept of a round, as only a simulation may ask, and its name."""
    asked = message.content.config_records[MEMORY]
    kept = site.memory.recall(str(asked["run"]), int(str(asked["round"])))
    return RecordDict({MEMORY: to_arrays(kept), SITE: ConfigRecord({"name": name})})
