"""Choice of where a run's sites work: here, on processes, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol, assert_never, get_args

from client.training.local_model import LocalModel
from client.training.training_site import Site
from common.config.run_config import RunConfig
from common.platform.errors import ConfigurationError
from server.rounds.run_rounds import Sites
from simulations.engines.in_process import InProcessSites
from simulations.engines.workers import WorkerSites

EngineKind = Literal["builtin", "ray"]
_KINDS: tuple[EngineKind, ...] = get_args(EngineKind)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What runs the sites of a round; results are the same to the last bit on one thread."""

    kind: EngineKind = "builtin"
    #: Processes that the sites are shared among; None: one, or all that Ray finds.
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuse what there is not."""
        if self.kind not in _KINDS or (self.workers is not None and self.workers < 1):
            message = (
                f"Expected engine={self.kind!r} to be one of {', '.join(_KINDS)}, and "
                f"workers={self.workers} to be at least 1, or None."
            )
            raise ConfigurationError(message)


class InspectableSites(Sites, Protocol):
    """Sites that can also be looked at when the run is over, as only a simulation can."""

    @property
    def local_model(self) -> LocalModel:
        """A network of this process, for what is measured after the run."""
        ...

    def bring_memory(self, run: str, round_number: int) -> None:
        """Make what the sites kept of a round known to this process's sites, too."""
        ...


def open_members(
    sites: Mapping[str, Site], config: RunConfig, seed: int, engine: Engine
) -> AbstractContextManager[InspectableSites]:
    """Return the sites at work; they end with the context."""
    match engine.kind:
        case "builtin" if (engine.workers or 1) == 1 or len(sites) == 1:
            return nullcontext(InProcessSites(sites, config, seed))
        case "builtin":
            return WorkerSites(sites, config, seed, engine.workers or 1)
        case "ray" if len(sites) == 1:
            return nullcontext(InProcessSites(sites, config, seed))  # nobody to share with
        case "ray":
            # Imported here: Ray and Flower take seconds, and few have them.
            from simulations.engines.flower_ray import RaySites

            return RaySites(sites, config, seed, engine.workers)
    assert_never(engine.kind)
