"""Simulation of a federation's run, over the folders and with the keys of its hospitals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from client.cohort.split import site_key
from client.site.cache import Cache
from common.config.run_config import RunConfig
from server.aggregation.rules import aggregator_of
from server.rounds.run_rounds import RunRecords, begin, run_rounds
from server.rounds.run_state import RunState
from simulations.comparison.cohorts import load_hospitals, sites_of
from simulations.engines.in_process import InProcessSites
from tests.end_to_end.federation import SiteAt


def simulated(config: RunConfig, sites: Mapping[str, SiteAt], cache: Path) -> RunState:
    """Return what a simulation of the run ends in, of the seed 0 and with one thread as sites."""
    folders = tuple(site.data for site in sites.values())
    found = load_hospitals(config, folders, Cache(cache), lambda _text: None)
    # The hospitals' own keys: with those of a seed, other patients would train.
    keys = {name: site_key(site.home.identity_key) for name, site in sites.items()}
    here = sites_of(found.cohorts, config, 0, 0, keys)
    aggregator = aggregator_of(config.aggregation, len(here), config.extensions)
    state = begin(config, "run", 0, aggregator)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run_rounds(config, InProcessSites(here, config, 0), aggregator, state, RunRecords())
    finally:
        torch.set_num_threads(threads)
