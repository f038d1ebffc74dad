"""`wardround-site predict --send`: a model's outlines in the PACS lie on the images they are of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from highdicom.sr import srread
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.cohort.split import simulated_key
from client.site.site_config import SiteConfig, write_site_config
from common.config.run_config import RunConfig, parse_config
from common.data.sample import Patients
from common.tasks import task_of
from tests.client.dicom_files import SHARED, load
from tests.client.pacs.orthanc import Pacs
from tests.client.pacs.reaching import reaching
from tests.client.small_models import bundled, trained

pytestmark = pytest.mark.processes

SITE = SHARED / "hippocampus" / "mr-alpha"
COMMAND = Path(sys.executable).with_name("wardround-site")


def outlining() -> RunConfig:
    return parse_config("""
name: quick
task: {kind: segmentation, structures: {anterior: [1], posterior: [2]}}
cohort: {images: {size: [16, 24, 24], intensity: zscore}}
model: {network: unet, width: 8}
training: {rounds: 1}
privacy: none
""")


@dataclass(frozen=True, kw_only=True)
class Held:
    """A model, and the patients it has never seen."""

    config: RunConfig
    bundle: Path
    test: Patients
    dice: dict[str, float]  # by patient: on the network's own small grid


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    config, folder = outlining(), tmp_path_factory.mktemp("model")
    parts = load(SITE, config, folder / "cache").split(config.cohort.split, simulated_key(0))
    network = trained(config, parts["train"], steps=60)
    test = parts["test"]
    with torch.no_grad():
        found = task_of(config.task).predict(network(test.image, test.table)).numpy()
    each = zip(test.pseudonyms, found, test.target.numpy(), strict=True)
    return Held(
        config=config,
        bundle=bundled(folder / "bundle", config, network),
        test=test,
        dice={name: dice(ours, truth) for name, ours, truth in each},
    )


def dice(found: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return the mean Dice of both parts."""
    each = [
        2
        * float(((found == k) & (truth == k)).sum())
        / float((found == k).sum() + (truth == k).sum())
        for k in (1, 2)
    ]
    return float(np.mean(each))


def on_the_grid(segmentation: Dataset, sources: list[Dataset]) -> NDArray[np.uint8]:
    """Return a SEG's labels on its sources, each frame by its own position, nothing assumed."""
    labels = np.zeros((len(sources), sources[0].Rows, sources[0].Columns), np.uint8)
    planes = {
        tuple(round(float(v), 2) for v in s.ImagePositionPatient): n for n, s in enumerate(sources)
    }
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for frame, groups in enumerate(segmentation.PerFrameFunctionalGroupsSequence):
        turned = groups if "PlaneOrientationSequence" in groups else shared
        cosines = turned.PlaneOrientationSequence[0].ImageOrientationPatient
        assert np.allclose(cosines, sources[0].ImageOrientationPatient, atol=1e-4)
        named = groups if "SegmentIdentificationSequence" in groups else shared
        number = named.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        where = groups.PlanePositionSequence[0].ImagePositionPatient
        plane = planes[tuple(round(float(v), 2) for v in where)]
        labels[plane][segmentation.pixel_array[frame] > 0] = number
    return labels


def site(folder: Path, pacs: Pacs) -> Path:
    """Write a home whose PACS is the test's."""
    folder.mkdir()
    write_site_config(
        folder / "site.yaml", SiteConfig(name="alpha", data=SITE, pacs=reaching(pacs))
    )
    return folder


def predict(*arguments: str | Path) -> Mapping[str, object]:
    done = subprocess.run(
        [COMMAND, "predict", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def scores_of(answer: Mapping[str, object]) -> list[dict[str, dict[str, dict[str, float]]]]:
    scores = answer["scores"]
    assert isinstance(scores, list)
    return scores


@pytest.mark.slow
@pytest.mark.needs_shared_data
def test_outlines_in_the_pacs_lie_on_the_images_that_they_are_of(
    tmp_path: Path, pacs: Pacs, held: Held
) -> None:
    """Dice against the given SEG, both by position, from the server's own copy."""
    home = site(tmp_path / "home", pacs)
    patient = held.test.pseudonyms[0]
    files = sorted(p for p in (SITE / patient).iterdir() if p.name != "seg.dcm")
    pacs.store(files)
    answer = predict(SITE / patient, "--bundle", held.bundle, "--home", home, "--send")
    sent, not_used, written = (answer[key] for key in ("sent", "not_used", "written"))
    assert isinstance(sent, list)
    assert isinstance(written, list)
    assert {state for _, state, _ in sent} == {"STORED"}
    assert isinstance(not_used, list)
    assert [(code, what) for code, what, _ in not_used] == [("SEGMENTATION", "seg.dcm")]
    (segmentation,) = [p for p in written if Path(p).name.startswith("segmentation")]
    copy = dcmread(BytesIO(pacs.file(dcmread(segmentation).SOPInstanceUID)))
    sources = [dcmread(BytesIO(pacs.file(dcmread(f).SOPInstanceUID))) for f in files]
    found = on_the_grid(copy, sources)
    truth = on_the_grid(dcmread(SITE / patient / "seg.dcm"), sources)
    assert dice(found, truth) > 0.7
    assert dice(found, truth) > held.dice[patient] - 0.04, "lost on the way to the PACS"
    assert {s.SeriesInstanceUID for s in sources} == {
        item.SeriesInstanceUID for item in copy.ReferencedSeriesSequence
    }
    (score,) = scores_of(answer)
    (report,) = [p for p in written if Path(p).name.startswith("report")]
    said = srread(BytesIO(pacs.file(dcmread(report).SOPInstanceUID)))
    for group in said.content.get_volumetric_roi_measurement_groups():
        name = group.tracking_identifier.rpartition(":")[2]
        number = {"anterior": 1, "posterior": 2}[name]
        told = {m.name.value: m.value for m in group.get_measurements()}
        voxels = int((found == number).sum())
        assert told["118565006"] == pytest.approx(voxels, rel=1e-6)  # 1 mm: mm3
        inside = np.stack([s.pixel_array for s in sources])[found == number]
        assert told["Q4LE"] == pytest.approx(inside.mean(), rel=1e-6)
        assert score["measured"][name]["mean"] == told["Q4LE"]
        assert told["L0JK"] > told["TDIC"] * 0.5
    again = predict(SITE / patient, "--bundle", held.bundle, "--home", home, "--send")
    assert isinstance(again["sent"], list)
    assert {state for _, state, _ in again["sent"]} == {"ALREADY_THERE"}
