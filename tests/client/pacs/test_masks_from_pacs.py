"""Masks in the PACS come with the images of a table's rows, and each row says which is its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence as Items
from typer.testing import CliRunner

from client.cli.app import app
from client.labels.label_table import read_labels
from client.labels.pacs_masks import forget_masks, masks_path, read_masks
from client.pacs.mask_links import link_masks
from client.site.home import Home
from client.site.site_config import SiteConfig, write_site_config
from client.withdrawal.purge import forget
from common.platform.errors import ConfigurationError
from tests.client.dicom_files import (
    config_of,
    load,
    noise,
    save,
    segmentation,
    slices,
    uid,
    write_labels,
)
from tests.client.pacs.cohorts import Site
from tests.client.pacs.orthanc import Pacs, free_port, orthanc
from tests.client.pacs.reaching import reaching
from tests.client.structure_sets import structure_set

pytestmark = pytest.mark.processes

SHAPE = (8, 16, 16)


def block(low: int, high: int) -> np.ndarray:
    found = np.zeros(SHAPE, np.uint8)
    found[1:3, low:high, low:high] = 1
    return found


TUMOUR, LIVER = block(2, 6), block(5, 11)


def series_of(patient: str, series: str = "1") -> list[FileDataset]:
    made = slices(noise(*SHAPE, seed=len(patient)), patient, series=series)
    for one in made:
        one.Modality = "CT"
    return made


def seg_of(
    images: list[FileDataset],
    labels: Mapping[str, np.ndarray],
    name: str = "seg",
    *,
    names: bool = True,
) -> FileDataset:
    made = segmentation(dict(enumerate(labels.values(), 1)), images)
    for item, label in zip(made.SegmentSequence, labels, strict=True):
        item.SegmentLabel = label
    made.StudyInstanceUID = images[0].StudyInstanceUID
    made.SeriesInstanceUID = uid(name, images[0].SeriesInstanceUID)
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid(
        "i", made.SeriesInstanceUID
    )
    if names:
        own = FileDataset("", {})
        own.SeriesInstanceUID = images[0].SeriesInstanceUID
        made.ReferencedSeriesSequence = Items([own])
    return made


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pacs, dict[str, str]]]:
    """Return a PACS of patients with one mask, two, another label, none, and a structure set."""
    folder = tmp_path_factory.mktemp("masked")
    one, two, other, none, region = (series_of(p) for p in ("ONE", "TWO", "OTHER", "NONE", "RT"))
    beside = series_of("ONE", "2")
    objects = [
        *one, *beside, *two, *other, *none, *region,
        seg_of(one, {"Liver": LIVER, "Tumour": TUMOUR}),
        seg_of(beside, {"Tumour": LIVER}, names=False),
        seg_of(two, {"tumour": TUMOUR}, "a"),
        seg_of(two, {"Tumour": TUMOUR}, "b"),
        seg_of(other, {"Liver": LIVER}),
        structure_set({"Liver": LIVER, "Tumour": TUMOUR}, region),
    ]  # fmt: skip
    with orthanc(folder, peers={"WARDROUND": ("127.0.0.1", free_port())}) as pacs:
        pacs.store([save(folder / f"{n}.dcm", made) for n, made in enumerate(objects)])
        names = {
            "ONE": one,
            "BESIDE": beside,
            "TWO": two,
            "OTHER": other,
            "NONE": none,
            "RT": region,
        }
        yield pacs, {name: str(made[0].SeriesInstanceUID) for name, made in names.items()}


def pulled(
    pacs: Pacs,
    folder: Path,
    rows: list[dict[str, str]],
    rules: str,
    route: str = "c-get",
    **select: object,
) -> Site:
    site = Site(folder, [])
    write_labels(site.data, rows)
    (site.data / "labels.schema.yaml").write_text(f"columns:\n  mask: {{{rules}}}\n")
    config = reaching(pacs, route, select=select)
    site.patients = []
    site.pull(config)
    return site


def linked(site: Site, withdrawn: frozenset[str] = frozenset()) -> dict[str, tuple[str, str]]:
    found = link_masks(site.data, site.data / "labels.csv", withdrawn)
    return {next(k for k in one.keys if k): (one.file, one.why) for one in found}


SEG = "from: pacs, type: SEG, label: Tumour"


@pytest.mark.parametrize("route", ["dicomweb", "c-get"])
def test_each_row_has_the_mask_of_its_series_or_a_reason(
    hospital: tuple[Pacs, dict[str, str]], route: str, tmp_path: Path
) -> None:
    pacs, series = hospital
    rows = [{"SeriesInstanceUID": uid, "ill": "1"} for uid in series.values()]
    site = pulled(pacs, tmp_path, rows, SEG, route, modalities=["CT"])
    found = linked(site)
    assert found[series["ONE"]][0] != found[series["BESIDE"]][0]
    for name in ("ONE", "BESIDE"):
        assert (site.data / found[series[name]][0]).is_file()
    assert found[series["TWO"]][1].startswith("2 SEG fit: ")
    assert found[series["OTHER"]] == ("", "none of 1 SEG has Tumour; they have Liver")
    assert found[series["NONE"]] == ("", "no SEG that came refers to its series")
    assert found[series["RT"]] == ("", "no SEG that came refers to its series")


def test_a_table_of_studies_brings_structure_sets_and_the_cohort_reads_the_region(
    hospital: tuple[Pacs, dict[str, str]], tmp_path: Path
) -> None:
    pacs, _ = hospital
    rows = [{"PatientID": "RT", "StudyInstanceUID": str(series_of("RT")[0].StudyInstanceUID)}]
    site = pulled(
        pacs, tmp_path, rows, "from: pacs, type: RTSTRUCT, label: tumour", modalities=["CT"]
    )
    (one,) = linked(site).values()
    assert one[1] == ""
    assert drawn(site, tmp_path) == TUMOUR.sum()


def test_the_label_decides_by_name_whatever_the_number(
    hospital: tuple[Pacs, dict[str, str]], tmp_path: Path
) -> None:
    pacs, series = hospital
    rows = [{"PatientID": "ONE", "SeriesInstanceUID": series["ONE"]}]
    site = pulled(pacs, tmp_path, rows, SEG)
    linked(site)
    assert drawn(site, tmp_path) == TUMOUR.sum()  # segment 2, where the run names 1


def drawn(site: Site, folder: Path) -> int:
    cohort = "{images: {size: [8, 16, 16], modalities: [CT]}}"
    task = "{kind: segmentation, structures: {lesion: [1]}}"
    found = load(site.data, config_of(cohort=cohort, task=task, network="unet"), folder / "cache")
    assert len(found.items) == 1, found.unusable
    return int((found.items.target[0] > 0).sum())


def test_what_a_row_says_itself_counts_first(tmp_path: Path) -> None:
    write_labels(tmp_path, [{"PatientID": "A", "mask": "own.dcm"}, {"PatientID": "B", "mask": ""}])
    (tmp_path / "labels.schema.yaml").write_text(f"columns:\n  mask: {{{SEG}}}\n")
    masks_path(tmp_path / "labels.csv").write_text(
        "SeriesInstanceUID,StudyInstanceUID,AccessionNumber,PatientID,column,file,why\n"
        ",,,A,mask,found.dcm,\n,,,B,mask,found-too.dcm,\n"
    )
    rows = read_labels(tmp_path / "labels.csv", ["mask"], with_images=True).rows
    assert [row["mask"] for row in rows] == ["own.dcm", "found-too.dcm"]
    forget_masks(tmp_path / "labels.csv", "B")
    assert {one.keys[-1] for one in read_masks(tmp_path / "labels.csv")} == {"A"}


@pytest.mark.parametrize(
    "rules",
    [
        "type: SEG",
        "from: pacs, type: text",
        "type: text, label: Tumour",
        "from: disk, type: SEG",
        'from: pacs, type: SEG, label: ""',
    ],
)
def test_a_rule_that_cannot_be_is_refused(tmp_path: Path, rules: str) -> None:
    write_labels(tmp_path, [{"PatientID": "A", "mask": ""}])
    (tmp_path / "labels.schema.yaml").write_text(f"columns:\n  mask: {{{rules}}}\n")
    with pytest.raises(ConfigurationError):
        read_labels(tmp_path / "labels.csv", [], with_images=True)


def test_the_commands_say_which_row_has_which_mask_and_forget_who_withdraws(
    hospital: tuple[Pacs, dict[str, str]], tmp_path: Path
) -> None:
    pacs, _ = hospital
    home, data = Home(tmp_path / "home"), tmp_path / "data"
    home.folder.mkdir()
    data.mkdir()
    write_site_config(
        home.site_yaml, SiteConfig(name="north", data=data, pacs=reaching(pacs, "c-get"))
    )
    write_labels(data, [{"PatientID": "TWO", "ill": "1"}, {"PatientID": "OTHER", "ill": "0"}])
    (data / "labels.schema.yaml").write_text(
        "columns:\n  mask: {from: pacs, type: SEG, label: Liver}\n"
    )
    said = CliRunner().invoke(app, ["pull", "--home", str(home.folder)])
    assert said.exit_code == 0, said.output
    assert "Masks from the PACS: 1 of 2 rows have one." in said.output
    assert "TWO, mask: none of 2 SEG has Liver" in said.output
    said = CliRunner().invoke(app, ["report", "--home", str(home.folder)])
    assert said.exit_code == 0, said.output
    report = json.loads((home.report / "report.json").read_text())
    by_row = {one["row"]: one for one in report["masks"]}
    assert by_row["OTHER"]["file"].endswith(".dcm")
    assert "none of 2 SEG has Liver" in (home.report / "report.html").read_text()
    left_out = {row["code"]: row["things"] for row in report["reasons"]}
    assert left_out.get("SEGMENTATION") == 2  # those of TWO, and not the one in use
    forget(home, "OTHER", lambda _text: None)
    assert "OTHER" not in masks_path(data / "labels.csv").read_text()
