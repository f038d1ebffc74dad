from __future__ import annotations

import pytest

import wardround as wr
from tests.wardround.small_runs import SMALL


@pytest.fixture(scope="session")
def run() -> wr.RunConfig:
    return wr.load(SMALL)


@pytest.fixture(scope="session")
def sites(run: wr.RunConfig, tmp_path_factory: pytest.TempPathFactory) -> wr.Cohorts:
    return wr.cohorts(run, folder=tmp_path_factory.mktemp("sites"), progress=False)
