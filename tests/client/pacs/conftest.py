"""The PACS that a module's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.pacs.orthanc import Pacs, free_port, orthanc


@pytest.fixture(scope="module")
def own_port() -> int:
    """Where the site's own SCP listens, as the PACS knows it."""
    return free_port()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, own_port: int) -> Iterator[Pacs]:
    """Return a plain PACS that knows WARDROUND, empty at first."""
    folder = tmp_path_factory.mktemp("pacs")
    with orthanc(folder, peers={"WARDROUND": ("127.0.0.1", own_port)}) as running:
        yield running
