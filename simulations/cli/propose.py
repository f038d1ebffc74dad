"""`propose`: what a coordinator would propose, from the counts that these hospitals would tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from client.cohort.quality_refusals import CohortPaths
from client.cohort.site_cohort import SiteCohort
from client.cohort_statistics.description import account_of, facts_of, tables_of
from client.cohort_statistics.released_counts import released
from client.site.cache import Cache
from common.config.run_config import RunConfig, load_config
from common.messages.cohort_statistics import CohortStatistics
from server.planning.planned_run import PlannedRun, check_plannable, proposed
from simulations.comparison.cohorts import hospital_folders, load_hospitals, sites_of


def propose(
    config: Path, data: Path, out: Path, memory_gb: float, tell: Callable[[str], None]
) -> PlannedRun:
    """Plan from counts under the rule for small cells, without noise; `out` keeps the cache."""
    run = load_config(config)
    check_plannable(run)
    folders = {folder.name: folder for folder in hospital_folders(run, data, out)}
    cache = Cache(out / "cache")
    hospitals = load_hospitals(run, tuple(folders.values()), cache, tell)
    told = {one.name: _told(one, run, folders[one.name], cache) for one in hospitals.cohorts}
    return proposed(config, told, memory_gb)


def _told(cohort: SiteCohort, run: RunConfig, folder: Path, cache: Cache) -> CohortStatistics:
    (site,) = sites_of((cohort,), run, 0, 0).values()
    labels = folder / "labels.csv"
    paths = CohortPaths(data=folder, labels=labels, index=cache.index, cache=cache.folder)
    facts = facts_of(cohort, site, run)
    tables = tables_of(run, account_of(paths, facts), facts, {})
    return released(tables, run.evaluation.smallest_cell)
