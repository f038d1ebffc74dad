"""Cohorts of slides: from a folder to bags, and a study's slide as it was measured."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import dcmread
from torch import nn

from client.cli.data.index import index
from client.cohort import decode
from client.cohort.site_cohort import SiteCohort
from client.dicom.reasons import Reason
from client.governance.plain_words import described
from client.inference.fit_calibration import FEWEST_PATIENTS, CalibrationOptions, fit
from client.inference.trained_model import Local, score_study
from client.results.writing import write_results
from client.site.cache import Cache
from client.site.home import Home
from client.slides import frames as slide_frames
from client.training.cohort_features import with_features
from client.training.evaluation import score
from client.training.local_model import open_local_model
from common.config.run_config import RunConfig, parse_config
from common.models import extract_features
from common.platform.errors import ConfigurationError
from tests.client.dicom_files import load, save, write_labels
from tests.client.pacs.orthanc import orthanc
from tests.client.scores import faults
from tests.client.slide_files import GLASS, level, pyramid
from tests.client.small_models import model_of, stirred

FROZEN = "{network: frozen_features, projection: 32, pool: attention}"
SMALL = "{network: small_cnn, width: 2, pool: attention}"


def config_of(model: str = FROZEN, more: str = "") -> RunConfig:
    return parse_config(f"""
name: slides
task: {{kind: diagnosis, target: tumour}}
cohort:
  images: {{size: [32, 32], channels: 3, fit: stretch, intensity: window, window: [0, 255],
            slide: {{mpp: 0.5, tile: 64{more}}}}}
  smallest_cohort: 1
  split: {{test_fraction: 0.5}}
model: {model}
training: {{rounds: 1, images_per_patient: 8}}
privacy: none
""")


def site(folder: Path, patients: int = 3) -> Path:
    for number in range(patients):
        for place, one in enumerate(pyramid(f"P{number}", seed=number, side=256)):
            save(folder / f"P{number}" / f"{place}.dcm", one)
    rows = [{"PatientID": f"P{n}", "tumour": n % 2} for n in range(patients)]
    write_labels(folder, rows)
    return folder


def with_network(config: RunConfig, network: nn.Module, cohort: SiteCohort) -> torch.Tensor:
    local_model = open_local_model(config, 0)
    own = dict(network.named_parameters())
    local_model.load({name: own[name] for name in local_model.trained})
    return score(local_model, cohort.items).prediction


def test_a_slide_is_a_bag_of_features_and_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, config = site(tmp_path / "site"), config_of()
    cohort = load(folder, config, tmp_path / "cache")
    assert {p.reason for p in cohort.unusable} == {Reason.SLIDE_LABEL}
    assert len(cohort.items) == 3
    assert cohort.items.image.shape[1:] == (32,)
    assert with_features(cohort, config, Cache(tmp_path / "cache")) is cohort
    for name, view in cohort.views.items():
        assert len(view.boxes) == cohort.sources.count(name)
    tiles = load(folder, config_of(SMALL), tmp_path / "cache")
    assert tiles.items.image.shape[1:] == (3, 32, 32)
    features = extract_features(tiles.items.image[:], config.model)
    torch.testing.assert_close(cohort.items.image, features, atol=1e-3, rtol=1e-3)
    monkeypatch.setattr(slide_frames.FrameReader, "frame", lambda *_: 1 / 0)
    for one, known in ((config, cohort), (config_of(SMALL), tiles)):
        again = load(folder, one, tmp_path / "cache")
        assert torch.equal(again.items.image[:], known.items.image[:])


def test_a_withdrawn_patients_tiles_go_and_the_others_stay(tmp_path: Path) -> None:
    folder, cache = site(tmp_path / "site"), Cache(tmp_path / "cache")
    load(folder, config_of(), cache.folder)
    before = set(cache.items.rglob("*.npy"))
    assert cache.forget_prepared("P1") > 0
    left = set(cache.items.rglob("*.npy"))
    assert {path.parent for path in before - left} != {path.parent for path in left}
    assert len({path.parent for path in left}) == 2


def test_whoever_approves_a_run_reads_that_slides_are_cut_and_pooled() -> None:
    said = dict(described(config_of()))
    assert "whole slides cut into tiles at 0.5 microns a pixel" in said["reads"]
    assert "one answer a patient (attention of all pictures)" in said["trains"]


def test_the_index_decodes_no_tile_of_a_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = site(tmp_path / "site", 2)
    monkeypatch.setattr(decode, "read_image", lambda _file: 1 / 0)
    home = Home(tmp_path / "home")
    home.site_yaml.parent.mkdir()
    home.site_yaml.write_text(f"name: north\ndata: {folder}\n", encoding="utf-8")
    index(home, None, every=False)
    assert "4 images of 2 patients can be used (4 x SM)" in capsys.readouterr().out


def test_a_slide_that_cannot_be_used_leaves_the_others(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    for path in (folder / "P1").glob("*.dcm"):
        path.unlink()
    save(folder / "P1" / "0.dcm", level(np.full((256, 256, 3), GLASS, np.uint8), 0.5, patient="P1"))
    cohort = load(folder, config_of(), tmp_path / "cache")
    assert cohort.items.pseudonyms == ("P0", "P2")
    assert Reason.NO_TISSUE in {p.reason for p in cohort.unusable}


@pytest.mark.parametrize("model", [FROZEN, SMALL])
def test_a_study_of_a_slide_gets_the_score_that_was_measured_and_is_shown_whole(
    tmp_path: Path, model: str
) -> None:
    folder, config = site(tmp_path / "site"), config_of(model)
    network = stirred(config)
    expected = with_network(config, network, load(folder, config, tmp_path / "cache"))
    files = sorted((folder / "P1").glob("*.dcm"))
    problems = []
    (found,) = score_study(files, model_of(config, network), Local(), problems.append)
    assert [p.reason for p in problems] == [Reason.SLIDE_LABEL]
    assert found.quantities[0].raw == pytest.approx(float(expected[1, 0]), abs=1e-3)
    assert [q.meaning.rpartition(", ")[2] for q in found.quantities] == [
        f"{_tiles(folder, config, tmp_path)} tiles of the study together"
    ]
    assert found.heatmap is not None
    assert found.heatmap.method == "attention by tile"
    assert found.heatmap.picture is not None
    assert found.heatmap.values.max() == pytest.approx(found.quantities[0].raw, abs=1e-3)
    written = {r.kind.value: r.path for r in write_results(found, tmp_path / "out")}
    assert set(written) == {"report", "capture", "diagnostic-report"}
    capture = dcmread(written["capture"])
    source = dcmread(found.sources[0], stop_before_pixels=True)
    (reference,) = capture.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert "ReferencedFrameNumber" not in reference


def written_of(tmp_path: Path) -> dict[str, Path]:
    """Return the results of a slide's score."""
    folder, config = site(tmp_path / "site", 1), config_of()
    files = sorted((folder / "P0").glob("*.dcm"))
    (found,) = score_study(files, model_of(config, stirred(config)), Local())
    return {r.kind.value: r.path for r in write_results(found, tmp_path / "out")}


@pytest.mark.processes
def test_dciodvfy_finds_no_error_in_what_is_said_of_a_slide(tmp_path: Path) -> None:
    written = written_of(tmp_path)
    assert faults(written["report"]) == []
    assert faults(written["capture"]) == []
    # Its numbers are of the slide as a whole, not of one of its frames (PS3.3 C.18.6.1.3).
    assert b"VOLUME" in written["report"].read_bytes()


@pytest.mark.slow
def test_orthanc_gives_back_what_was_said_of_a_slide(tmp_path: Path) -> None:
    written = written_of(tmp_path)
    results = [written["report"], written["capture"]]
    with orthanc(tmp_path / "pacs") as pacs:
        pacs.store(results)
        for path in results:
            ours = dcmread(path)
            assert dcmread(io.BytesIO(pacs.file(str(ours.SOPInstanceUID)))) == ours


def _tiles(folder: Path, config: RunConfig, tmp_path: Path) -> int:
    cohort = load(folder, config, tmp_path / "cache")
    return int((cohort.items.patient == 1).sum())


def test_a_calibration_is_fitted_on_slides(tmp_path: Path) -> None:
    config = config_of()
    cohort = load(site(tmp_path / "site", 4), config, tmp_path / "cache")
    many = range(4 * FEWEST_PATIENTS)
    grown = _repeated(cohort, len(many))
    options = CalibrationOptions(coverage=0.8)
    found = fit(grown, model_of(config, stirred(config)), options)
    assert found.patients >= FEWEST_PATIENTS


def _repeated(cohort: SiteCohort, patients: int) -> SiteCohort:
    """Return a cohort of so many patients, each a copy of one of a few."""
    items = cohort.items
    chosen = [items.items_of(n % len(items)) for n in range(patients)]
    flat = torch.cat(chosen)
    owner = torch.cat([torch.full((len(c),), n) for n, c in enumerate(chosen)])
    moved = replace(
        items,
        image=items.image[flat] + 0.01 * torch.randn(len(flat), 32),
        table=items.table[flat],
        target=items.target[flat],
        patient=owner,
        pseudonyms=tuple(f"P{n}" for n in range(patients)),
    )
    return replace(cohort, items=moved)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("channels: 3", "channels: 1", "channels=1"),
        ("size: [32, 32]", "size: [8, 32, 32]", "2-D tiles"),
    ],
)
def test_slides_are_coloured_and_flat(old: str, new: str, why: str) -> None:
    plain = """
name: a
task: {kind: diagnosis, target: ill}
cohort: {images: {size: [32, 32], channels: 3, slide: {mpp: 0.5}}}
model: {network: small_cnn}
training: {rounds: 1}
privacy: none
"""
    with pytest.raises(ConfigurationError, match=why):
        parse_config(plain.replace(old, new))
