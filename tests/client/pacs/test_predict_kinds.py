"""`wardround-site predict --send` of every kind of input: valid DICOM, and the PACS holds it equal.

Networks are stirred, not trained: what they say is of no use, and is held to arrive as it was said.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from highdicom.sr import Comprehensive3DSR, srread
from pydicom import dcmread
from pydicom.dataset import Dataset

from common.config.run_config import parse_config
from tests.client.dicom_files import SHARED
from tests.client.pacs.orthanc import Pacs
from tests.client.pacs.reaching import reaching
from tests.client.scores import faults
from tests.client.small_models import bundled, stirred
from tests.client.terminals import Site

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.needs_shared_data]

SHIPPED = Path(__file__).parents[3] / "configs/simulations"


@dataclass(frozen=True, kw_only=True)
class Filed:
    """What a study's score became."""

    told: dict[str, object]  # of the one score, as JSON
    kept: dict[str, Dataset]  # by kind of result: the PACS's own copy
    report: Comprehensive3DSR
    study: Path

    def referenced(self) -> set[str]:
        """Return the images that the report is of."""
        items = self.kept["report"].CurrentRequestedProcedureEvidenceSequence
        series = [one for study in items for one in study.ReferencedSeriesSequence]
        return {i.ReferencedSOPInstanceUID for one in series for i in one.ReferencedSOPSequence}

    def in_library(self) -> set[str]:
        """Return the images that the report's image library lists."""
        (library,) = [
            item
            for item in self.kept["report"].ContentSequence
            if item.ConceptNameCodeSequence[0].CodeValue == "111028"
        ]
        return {
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for group in library.ContentSequence
            for item in group.ContentSequence
            if item.ValueType == "IMAGE"
        }


def named_as_read(filed: Filed, folders: set[str]) -> None:
    """Hold the files that JSON and report name against all that these folders hold."""
    sources = filed.told["sources"]
    assert isinstance(sources, list)
    read = {str(p) for f in folders for p in (filed.study / f).rglob("*.dcm")}
    read = {path for path in read if not Path(path).name.startswith("seg")}
    assert len(sources) == len(set(sources))
    assert set(sources) == read
    instances = {dcmread(path).SOPInstanceUID for path in read}
    assert filed.in_library() == instances
    assert filed.referenced() >= instances  # and a SEG, where there is one


def numbers_of(filed: Filed) -> dict[tuple[str, str], tuple[float, str]]:
    """Return value and unit by scheme and code, as the PACS's own copy of the report holds them."""
    (group,) = filed.report.content.get_image_measurement_groups()
    return {
        (m.name.scheme_designator, m.name.value): (m.value, m.unit.value)
        for m in group.get_measurements()
        if m.derivation is None
    }


def voxels(filed: Filed) -> dict[str, int]:
    """Return how many voxels a SEG outlines, by structure."""
    segments = {s.SegmentNumber: s.SegmentLabel for s in filed.kept["segmentation"].SegmentSequence}
    found = dict.fromkeys(segments.values(), 0)
    pixels = filed.kept["segmentation"].pixel_array
    groups = filed.kept["segmentation"].PerFrameFunctionalGroupsSequence
    for frame, group in zip(pixels, groups, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[segments[number]] += int(frame.sum())
    return found


def outlined_by_its_code(filed: Filed) -> None:
    (segment,) = filed.kept["segmentation"].SegmentSequence
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    category = segment.SegmentedPropertyCategoryCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("108369006", "SCT")
    assert category.CodeValue == "49755003"  # morphologically abnormal
    assert voxels(filed) == filed.told["outlined_pixels"]
    (group,) = filed.report.content.get_volumetric_roi_measurement_groups()
    assert group.finding_type is not None
    assert group.finding_type.value == "108369006"


def outlined_on_the_reference(filed: Filed) -> None:
    assert voxels(filed) == filed.told["outlined_pixels"]
    sources = filed.told["sources"]
    assert isinstance(sources, list)
    named_as_read(filed, {"flair", "t1", "t1ce"})
    (series,) = filed.kept["segmentation"].ReferencedSeriesSequence
    assert Path(sources[0]).parent.name == "flair"
    assert series.SeriesInstanceUID == dcmread(sources[0]).SeriesInstanceUID
    drawn_on = {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence}
    flair = (filed.study / "flair").glob("*.dcm")
    assert drawn_on == {dcmread(path).SOPInstanceUID for path in flair}


def numbered_by_its_code(filed: Filed) -> None:
    quantities = filed.told["quantities"]
    assert isinstance(quantities, list)
    value, unit = numbers_of(filed)["LN", "10230-1"]
    assert unit == "%"
    assert value == pytest.approx(quantities[0]["value"])
    sources = filed.told["sources"]
    assert isinstance(sources, list)
    # Each slice is a series of its own, of two phases.
    assert len({dcmread(path).SeriesInstanceUID for path in sources}) == len(sources) / 2
    named_as_read(filed, {"."})  # both phases


def shown_by_attention(filed: Filed) -> None:
    told = filed.told["heatmap"]
    assert isinstance(told, dict)
    capture = filed.kept["capture"]
    (source,) = capture.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == dcmread(told["source"]).SOPInstanceUID
    picture = capture.pixel_array.astype(int)
    assert np.ptp(picture, axis=2).max() > 60, "coloured by the heatmap"


def said_of_all(filed: Filed) -> None:
    """Hold every number of the answer against the report's."""
    quantities = filed.told["quantities"]
    assert isinstance(quantities, list)
    said = sorted(value for value, unit in numbers_of(filed).values() if unit == "{ratio}")
    expected = sorted({one["meaning"]: one["value"] for one in quantities}.values())
    assert said == pytest.approx(expected)


@dataclass(frozen=True)
class Kind:
    run: str
    study: str
    check: Callable[[Filed], None]


def shipped(name: str, *changes: tuple[str, str]) -> str:
    text = (SHIPPED / f"{name}.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def of_slices(task: str) -> str:
    """Return a run of one answer of all of a patient's slices."""
    return f"""
name: bag
task: {task}
cohort: {{images: {{size: [64, 64], modalities: [MR]}}}}
model: {{network: small_cnn, width: 8, pool: attention}}
training: {{rounds: 1}}
evaluation: {{unit: patient}}
privacy: none
"""


KINDS = {
    "outlines by patches": Kind(
        shipped(
            "brats-patches", ("[64, 64, 64]", "[32, 32, 32]"), ("[2.0, 2.0, 2.0]", "[4, 4, 4]")
        ),
        "brats-six/glioma-x/BR395C07DB",
        outlined_by_its_code,
    ),
    "series as channels": Kind(
        shipped("glioma-mr", ("[32, 112, 112]", "[16, 32, 32]")),
        "glioma-mr/jefferson/GL00B5D09A",
        outlined_on_the_reference,
    ),
    "a number from two phases, each slice a series": Kind(
        shipped(
            "cardiac-ef",
            ("[112, 112]", "[64, 64]"),
            ("network: frozen_features", "network: small_cnn, width: 4"),
        ),
        "cardiac-cine/cine-c/CA024E962B",
        numbered_by_its_code,
    ),
    "a slide's tiles": Kind(
        shipped("slides", ("most_tiles: 2000", "most_tiles: 16")),
        "slides-invented/slides-a/SL0362D3CA",
        shown_by_attention,
    ),
    "a bag of slices": Kind(
        of_slices("{kind: diagnosis, type: binary, target: ill}"),
        "glioma-mr/jefferson/GL17F91F39/flair",
        shown_by_attention,
    ),
    "grades": Kind(
        of_slices("{kind: diagnosis, type: ordinal, target: grade, classes: [none, some, much]}"),
        "glioma-mr/jefferson/GL17F91F39/t1",
        said_of_all,
    ),
    "one of several causes": Kind(
        of_slices(
            "{kind: prognosis, outcome: competing, time: months, unit: months, "
            "intervals: [6, 12], causes: [relapse, death]}"
        ),
        "glioma-mr/jefferson/GL17F91F39/t1ce",
        said_of_all,
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pacs: Pacs) -> Site:
    found = Site(tmp_path_factory.mktemp("site"))
    found.set_up(pacs=reaching(pacs))
    return found


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_results_are_valid_and_read_back_equal_from_the_pacs(
    tmp_path: Path, pacs: Pacs, site: Site, kind: Kind
) -> None:
    config = parse_config(kind.run)
    bundle = bundled(tmp_path / "bundle", config, stirred(config))
    out = tmp_path / "out"
    study = SHARED / kind.study
    ended = site.types("predict", study, "--bundle", bundle, "--out", out, "--send", "--json")
    assert ended.status == 0, ended.text
    answer = json.loads(ended.out)
    assert {state for _, state, _ in answer["sent"]} == {"STORED"}  # and equal, when read back
    written = {path.name.rsplit("-", 1)[0]: path for path in out.glob("*.dcm")}
    kept = {name: pacs.file(dcmread(path).SOPInstanceUID) for name, path in written.items()}
    for path in written.values():
        assert faults(path) == []
    (told,) = answer["scores"]
    copies = {name: dcmread(BytesIO(copy)) for name, copy in kept.items()}
    kind.check(Filed(told=told, kept=copies, report=srread(BytesIO(kept["report"])), study=study))
