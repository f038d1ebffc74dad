"""Runs on Flower's Ray engine and in one process, in a process that Ray may leave untidy.

    python tests/simulations/ray_run.py CASE ...

Says of each case whether both are alike.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.platform.errors import RunFailed
from simulations.engines.flower_ray import RaySites
from simulations.engines.in_process import InProcessSites
from tests.server.hospitals import same_bits
from tests.simulations.engines.test_workers import (
    NAMES,
    TABLE,
    config_of,
    filed,
    run,
    sites_of,
    told,
)

#: Both have sites keep something between rounds.
KEPT = "aggregation: {rule: scaffold}\npersonalisation: {method: personal_head}"
PRIVATE = "{unit: patient, epsilon: 2.0, default_patients: 20, delta: 0.001}"


def same() -> None:
    """Check weights, records and what sites keep, to the last bit; images lie in files."""
    config, one = config_of(more=KEPT), sites_of()
    expected = run(config, InProcessSites(one, config, 0))
    with tempfile.TemporaryDirectory() as folder:
        spread = filed(sites_of(), Path(folder))
        with RaySites(spread, config, 0, 2) as sites:
            found = run(config, sites)
            sites.bring_memory("r", 3)
    assert same_bits(found.weights, expected.weights)
    assert told(found) == told(expected)
    for name in NAMES:
        kept = one[name].memory.recall("r", 3)
        assert kept
        assert same_bits(spread[name].memory.recall("r", 3), kept)


def same_privately() -> None:
    """Check a private run, and that the ledgers hold its charges."""
    config = config_of(TABLE, PRIVATE)
    with tempfile.TemporaryDirectory() as folder:
        one, spread = (sites_of((0,), Path(folder) / name) for name in ("one", "ray"))
        expected = run(config, InProcessSites(one, config, 0))
        with RaySites(spread, config, 0, 2) as sites:
            found = run(config, sites)
        assert same_bits(found.weights, expected.weights)
        for name in NAMES:
            first, second = one[name].guard, spread[name].guard
            assert first is not None
            assert second is not None
            assert second.ledger.history(name) == first.ledger.history(name) != ()


def failing() -> None:
    """Check that a site's own message arrives: here a private run without any ledger."""
    config = config_of(TABLE, PRIVATE)
    with (
        RaySites(sites_of((0,)), config, 0, 1) as sites,
        pytest.raises(RunFailed, match="has no ledger"),
    ):
        run(config, sites)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in sys.argv[1:]:
        try:
            match case:
                case "private":
                    same_privately()
                case "failing":
                    failing()
                case _:
                    same()
        except Exception:  # noqa: BLE001 - the others shall be tried, too
            sys.stdout.write(f"{case}: {traceback.format_exc()}\n")
        else:
            sys.stdout.write(f"{case}: as in one process\n")
