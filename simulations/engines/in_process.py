"""Sites in this process; nothing is copied or serialised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from client.training.evaluation import evaluate_round
from client.training.local_model import LocalModel, open_local_model
from client.training.local_round import train_round
from client.training.training_site import Site
from common.config.run_config import RunConfig
from common.messages.wire import EvaluationRequest, Refusal, SiteReport, SiteUpdate, TrainRequest


class InProcessSites:
    """The `Sites` of server/rounds/run_rounds.py, one after another on one network in memory."""

    def __init__(self, sites: Mapping[str, Site], config: RunConfig, seed: int) -> None:
        self._sites = dict(sorted(sites.items()))
        self._local_model = open_local_model(config, seed)

    @property
    def local_model(self) -> LocalModel:
        """The network that all sites of this process take turns at."""
        return self._local_model

    def available(self) -> tuple[str, ...]:
        """Return every site's name."""
        return tuple(self._sites)

    def bring_memory(self, run: str, round_number: int) -> None:
        """Do nothing: what the sites kept is in this process."""

    def train(self, request: TrainRequest, sites: Sequence[str]) -> Iterator[SiteUpdate | Refusal]:
        """Yield each site's update when it is asked for: one update in memory at a time."""
        for name in sites:
            yield train_round(self._sites[name], self._local_model, request)

    def evaluate(
        self, request: EvaluationRequest, sites: Sequence[str]
    ) -> Iterator[SiteReport | Refusal]:
        """Yield each site's report."""
        for name in sites:
            yield evaluate_round(self._sites[name], self._local_model, request)
