"""Two homes on the same patients are refused; one that is gone, or has other data, is in no way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from client.site.cohort_claim import claim_cohort
from client.site.home import Home
from client.site.site_config import SiteConfig, write_site_config
from common.platform.errors import ConfigurationError


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def home_on(data: Path, folder: Path) -> Home:
    """Return a home that has claimed a folder of images."""
    data.mkdir(parents=True, exist_ok=True)
    home = Home(folder)
    claim_cohort(home, data)
    write_site_config(home.site_yaml, SiteConfig(name="north", data=data))
    return home


@pytest.mark.parametrize("how", ["same", "within", "around", "link"])
def test_a_second_home_on_the_same_patients_is_refused(tmp_path: Path, how: str) -> None:
    data = tmp_path / "images" / "chest"
    first = home_on(data, tmp_path / "one")
    (data / "deep").mkdir()
    (tmp_path / "link").symlink_to(data)
    there = {
        "same": data,
        "within": data / "deep",
        "around": data.parent,
        "link": tmp_path / "link",
    }
    with pytest.raises(ConfigurationError, match=r"is the cohort of another home.*--federation"):
        claim_cohort(Home(tmp_path / "two"), there[how])
    claim_cohort(first, data)  # its own, as often as it likes
    claim_cohort(first.of("lung"), data)


def test_other_patients_and_claims_of_homes_that_are_gone_are_in_no_way(tmp_path: Path) -> None:
    first = home_on(tmp_path / "chest", tmp_path / "one")
    home_on(tmp_path / "chest-2", tmp_path / "two")
    shutil.move(first.folder, tmp_path / "moved")
    claim_cohort(Home(tmp_path / "moved"), tmp_path / "chest")
    with pytest.raises(ConfigurationError, match="moved"):
        claim_cohort(Home(tmp_path / "three"), tmp_path / "chest")
    write_site_config(
        tmp_path / "moved" / "site.yaml", SiteConfig(name="north", data=tmp_path / "else")
    )
    claim_cohort(Home(tmp_path / "three"), tmp_path / "chest")
