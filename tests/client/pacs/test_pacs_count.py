"""The PACS's own count decides whether a study has arrived; asked of a real one, on two routes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import dcmread

from client.inference.arrivals.pacs_count import missing
from client.site.pacs_section import PacsConfig
from common.platform.errors import Unreachable
from tests.client.dicom_files import noise, placed, save, slices
from tests.client.pacs.orthanc import Pacs, free_port
from tests.client.pacs.reaching import reaching

pytestmark = pytest.mark.processes

ROUTES = pytest.mark.parametrize("route", ["dicomweb", "c-get"])


def files_of(
    folder: Path, name: str, series: str, modality: str = "CT", images: int = 4
) -> list[Path]:
    found = []
    for number, item in enumerate(slices(noise(images, 8, 8, seed=1), patient=name, series=series)):
        placed(item, (0, 0, 2.0 * number)).Modality = modality
        found.append(save(folder / f"{series}-{number}.dcm", item))
    return found


def counts(files: Sequence[Path]) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in files:
        name = str(dcmread(path, stop_before_pixels=True).SeriesInstanceUID)
        found[name] = found.get(name, 0) + 1
    return found


def asked(
    pacs: PacsConfig,
    files: Sequence[Path],
    *,
    own: Sequence[Path] = (),
    modalities: tuple[str, ...] = (),
) -> str:
    study = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
    return missing(pacs, counts(files), frozenset(counts(own)), study, modalities)


@ROUTES
def test_what_the_pacs_has_more_of_is_missing(tmp_path: Path, pacs: Pacs, route: str) -> None:
    reached = reaching(pacs, route)
    first, second = (files_of(tmp_path, f"COUNT-{route}", series) for series in ("1", "2"))
    assert asked(reached, first) == "the PACS does not list the study yet"
    pacs.store(first[:2])
    assert asked(reached, first[:2]) == ""
    assert asked(reached, first) == "4 images came, the PACS has 2, in 1 series"
    pacs.store([*first, *second])
    assert asked(reached, first) == "4 images came, the PACS has 8, in 2 series"
    assert asked(reached, [*first, *second[:3]]) == "7 images came, the PACS has 8, in 2 series"
    assert asked(reached, [*first, *second]) == ""


@ROUTES
def test_series_without_images_for_the_model_need_not_come(
    tmp_path: Path, pacs: Pacs, route: str
) -> None:
    reached = reaching(pacs, route)
    name = f"KINDS-{route}"
    images = files_of(tmp_path, name, "1")
    pacs.store(
        [*images, *files_of(tmp_path, name, "2", "SR", 1), *files_of(tmp_path, name, "3", "PT", 2)]
    )
    ours = files_of(tmp_path, name, "4", "OT", 1)
    pacs.store(ours)
    assert asked(reached, images, modalities=("CT",)) == ""
    assert asked(reached, images, own=ours) == "4 images came, the PACS has 6, in 2 series"
    assert asked(reached, images) == "4 images came, the PACS has 7, in 3 series"


@ROUTES
def test_a_series_that_the_pacs_does_not_list_is_waited_for(
    tmp_path: Path, pacs: Pacs, route: str
) -> None:
    name = f"NEW-{route}"
    first, second = (files_of(tmp_path, name, series) for series in ("1", "2"))
    pacs.store(first)
    told = asked(reaching(pacs, route), [*first, *second])
    assert told == "1 series that came are not listed by the PACS yet"


def test_a_pacs_that_is_away_is_no_answer(tmp_path: Path, pacs: Pacs) -> None:
    files = files_of(tmp_path, "AWAY", "1")
    with pytest.raises(Unreachable):
        asked(reaching(pacs, "c-get", port=free_port()), files)
    with pytest.raises(Unreachable):
        asked(reaching(pacs, url=f"http://127.0.0.1:{free_port()}/dicom-web"), files)
