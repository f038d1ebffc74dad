"""A frozen backbone of others: its features follow one image alone, or it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.models import foreign_backbone
from common.platform.errors import ExtensionRefused
from tests.privacy.remembering_backbones import (
    HARMLESS,
    REMEMBERED,
    check_features_alone,
    features_of,
    run_with,
)

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: Patch) -> None:
    monkeypatch.setenv("WARDROUND_TEST_LAST", "0")


@pytest.mark.parametrize("place", REMEMBERED)
def test_features_of_an_image_depend_on_that_image_alone(tmp_path: Path, place: str) -> None:
    check_features_alone(tmp_path, REMEMBERED[place])
    if place not in HARMLESS:
        with (
            run_with(tmp_path, REMEMBERED[place]) as run,
            pytest.raises(ExtensionRefused, match="acme-backs/it") as refused,
        ):
            features_of(run)
        print(place, refused.value)


@pytest.mark.parametrize("place", REMEMBERED)
def test_a_record_remembers_nothing_where_no_trial_looks(
    tmp_path: Path, monkeypatch: Patch, place: str
) -> None:
    monkeypatch.setattr(foreign_backbone, "_check_code", lambda *_: None)
    check_features_alone(tmp_path, REMEMBERED[place])


@pytest.mark.parametrize("place", REMEMBERED)
def test_off(tmp_path: Path, monkeypatch: Patch, place: str) -> None:
    monkeypatch.setattr(foreign_backbone, "recorded_network", lambda _name, network, _images: network)
    monkeypatch.setattr(foreign_backbone, "_check_code", lambda *_: None)
    monkeypatch.setattr(foreign_backbone, "_check_record", lambda *_: 4)
    with pytest.raises(AssertionError, match="moved"):
        check_features_alone(tmp_path, REMEMBERED[place])
