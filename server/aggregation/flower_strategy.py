"""Any Flower strategy as an aggregation rule over the admitted updates.

A strategy remembers between rounds in its attributes; a round here is state in, state out.
So each round makes the strategy anew, gives back what it remembered, lets it configure and
aggregate once, and takes its arrays and numbers out again. They are saved with the run, and
a resumed run ends where an uninterrupted one does. Names are sorted on the way in and out:
some strategies match arrays by position, and a saved state does not keep an order.

Flower strategies take all sites' weights at once, so every update is held in memory.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

# Before Flower is imported: it reports its use to its makers unless told not to.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore.task_identity import TaskIdentity

from common.config.run_config import Aggregation, ServerOptimizer
from common.data.weights import Weights
from common.messages.wire import SiteUpdate
from common.platform.errors import ConfigurationError, RunFailed
from server.aggregation.rules import Aggregator, Gathering, ServerState, weight_of

_PREFIX = "flower/"


def flower_aggregator(config: Aggregation) -> Aggregator:
    """Return the strategy that `config.strategy` names; ConfigurationError when it cannot be made.

    The name is a class of flwr.serverapp.strategy, or module.Class of anything installed here.
    """
    _check(config)
    make_strategy(config)  # so that wrong arguments are found before the first round

    def add(gathering: Gathering, update: SiteUpdate) -> None:
        gathering.held.append(update)
        gathering.sites += 1

    def finish(
        gathering: Gathering, weights: Weights, state: ServerState, round_number: int
    ) -> tuple[dict[str, Tensor], ServerState]:
        return _finish(config, gathering.held, weights, state, round_number)

    return Aggregator(
        init=lambda _weights: {},
        begin=lambda _weights: Gathering(total={}, control={}, held=[]),
        add=add,
        finish=finish,
    )


def make_strategy(config: Aggregation) -> Strategy:
    """Return a fresh strategy with the configured arguments."""
    name = config.strategy or ""
    module, _, class_name = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module or "flwr.serverapp.strategy"), class_name)
    except (ImportError, AttributeError) as error:
        message = (
            f"aggregation.strategy={name!r} cannot be found ({error}); expected a class of "
            "flwr.serverapp.strategy such as FedAdam, or module.Class of a package installed here."
        )
        raise ConfigurationError(message) from error
    try:
        strategy = found(**config.arguments)
    except TypeError as error:
        message = f"aggregation.arguments={config.arguments} do not fit {name}: {error}"
        raise ConfigurationError(message) from error
    if not isinstance(strategy, Strategy):
        message = f"aggregation.strategy={name!r} is no flwr.serverapp.strategy.Strategy."
        raise ConfigurationError(message)
    return strategy


def _check(config: Aggregation) -> None:
    if config.server != ServerOptimizer():
        message = (
            f"aggregation.server.kind={config.server.kind} does not go with rule: flower, whose "
            "strategy steps itself. Remove aggregation.server."
        )
        raise ConfigurationError(message)


def _finish(
    config: Aggregation,
    updates: list[SiteUpdate],
    weights: Weights,
    state: ServerState,
    round_number: int,
) -> tuple[dict[str, Tensor], ServerState]:
    """Run one round of the strategy; RunFailed when it refuses."""
    strategy, fresh = make_strategy(config), make_strategy(config)
    _restore(strategy, state)
    with _quiet_and_seeded(round_number):
        try:
            _configure(strategy, round_number, weights, len(updates))
            arrays, _ = strategy.aggregate_train(
                round_number, [_reply(config, u, weights, n) for n, u in enumerate(updates, 1)]
            )
        except (AppExitException, ArithmeticError, LookupError, TypeError, ValueError) as error:
            message = f"{config.strategy} failed in round {round_number}: {error}"
            raise RunFailed(message) from error
    if arrays is None or set(arrays) != set(weights):
        message = f"{config.strategy} gave no weights of this model in round {round_number}."
        raise RunFailed(message)
    # Flower's arithmetic turns some arrays to float64; the model keeps its own type.
    after = {n: torch.tensor(arrays[n].numpy()).to(v.dtype) for n, v in weights.items()}
    return after, _remembered(config, strategy, fresh)


def _configure(strategy: Strategy, round_number: int, weights: Weights, sites: int) -> None:
    """Let a strategy note the weights of the round, as some do here; its messages are not sent."""
    settings = ConfigRecord()
    list(strategy.configure_train(round_number, _record(weights), settings, _Crowd(sites)))
    unread = set(settings) - {"server-round"}
    if unread:
        message = (
            f"{type(strategy).__name__} tells its sites {', '.join(sorted(unread))}, which they do "
            "not read. FedProx is training.proximal here."
        )
        raise ConfigurationError(message)


def _record(weights: Weights) -> ArrayRecord:
    return ArrayRecord({name: Array(weights[name].numpy()) for name in sorted(weights)})


def _reply(config: Aggregation, update: SiteUpdate, weights: Weights, node: int) -> Message:
    """Return an update as the message that a Flower client would have sent."""
    _introduce()
    after = {name: value + update.delta[name] for name, value in weights.items()}
    # The public weight of the site stands where Flower's clients report their patients.
    metrics = MetricRecord({"num-examples": weight_of(config, update.site)})
    content = RecordDict({"arrays": _record(after), "metrics": metrics})
    asked = Message(content=RecordDict(), dst_node_id=node, message_type="train")
    return Message(content, reply_to=asked)


def _introduce() -> None:
    """Give this process an identity where it is no task of Flower's: messages want one."""
    try:
        _ = (TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id)
    except RuntimeError:
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


@contextmanager
def _quiet_and_seeded(round_number: int) -> Iterator[None]:
    """Seed the global generators that strategies draw from by the round, and put them back."""
    _introduce()
    log = logging.getLogger("flwr")
    level, python, numpy = log.level, random.getstate(), np.random.get_state()  # noqa: NPY002
    log.setLevel(logging.WARNING)
    random.seed(round_number)
    np.random.seed(round_number)  # noqa: NPY002 - Flower's own choice of generator
    try:
        yield
    finally:
        log.setLevel(level)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


class _Crowd(Grid):
    """The sites that answered, for strategies that count them; nothing can be sent."""

    def __init__(self, sites: int) -> None:
        self._sites = sites
        self._asked = 0

    def get_node_ids(self) -> Iterable[int]:
        """Return one number a site.

        RunFailed when asked again and again: the strategy then waits for sites that will
        not come, as Flower's `sample_nodes` does.
        """
        self._asked += 1
        if self._asked > 3:
            message = (
                f"the strategy waits for more than the {self._sites} sites that answered; "
                "lower min_train_nodes and min_available_nodes in aggregation.arguments"
            )
            raise RunFailed(message)
        return range(1, self._sites + 1)

    def _refuse(self, *_arguments: object, **_named: object) -> NoReturn:
        raise RunFailed("a strategy may aggregate here, not talk to sites itself")

    @property
    def run(self) -> NoReturn:
        """Refuse."""
        self._refuse()

    set_run = create_message = _refuse
    push_messages = pull_messages = send_and_receive = _refuse


# --- what a strategy remembers, as named tensors: flower/ATTRIBUTE:KIND/NAME ----------------


def _remembered(config: Aggregation, strategy: Strategy, fresh: Strategy) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    for attribute, value in vars(strategy).items():
        first = vars(fresh).get(attribute)
        if value is first or (isinstance(value, str | int | float) and value == first):
            continue
        parts = _encode(value)
        if parts is None:
            message = (
                f"{config.strategy} remembers {attribute} of type {type(value).__name__}, which "
                "cannot be saved with the run; arrays, lists and names of arrays, and numbers can."
            )
            raise RunFailed(message)
        kept |= {f"{_PREFIX}{attribute}:{part}": tensor for part, tensor in parts.items()}
    return kept


def _encode(value: object) -> dict[str, Tensor] | None:
    match value:
        case bool() | int() | float():
            return {f"{type(value).__name__}/": torch.tensor(value, dtype=_NUMBERS[type(value)])}
        case np.ndarray() | np.generic():
            return {"array/": torch.tensor(value)}
        case ArrayRecord():
            return {f"record/{n}": torch.tensor(a.numpy()) for n, a in value.items()}
        case list() if all(isinstance(item, np.ndarray) for item in value):
            return {f"list/{n:06d}": torch.tensor(item) for n, item in enumerate(value)}
        case dict() if all(isinstance(item, np.ndarray) for item in value.values()):
            return {f"dict/{n}": torch.tensor(item) for n, item in value.items()}
        case _:
            return None


_NUMBERS: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}


def _restore(strategy: Strategy, state: ServerState) -> None:
    """Give a fresh strategy what `_remembered` took out."""
    found: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key in sorted(k for k in state if k.startswith(_PREFIX)):
        attribute, _, rest = key.removeprefix(_PREFIX).partition(":")
        kind, _, name = rest.partition("/")
        found.setdefault((attribute, kind), {})[name] = state[key]
    for (attribute, kind), parts in found.items():
        setattr(strategy, attribute, _decode(kind, parts))


def _decode(kind: str, parts: Mapping[str, Tensor]) -> object:
    arrays = {name: value.numpy().copy() for name, value in parts.items()}
    match kind:
        case "record":
            return ArrayRecord({name: Array(value) for name, value in arrays.items()})
        case "dict":
            return arrays
        case "list":
            return list(arrays.values())
        case "array":
            return arrays[""]
        case _:
            return arrays[""].item()
