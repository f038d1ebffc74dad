"""Drawn structures are on the network's grid, or the image is refused, or their loss is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.cohort.left_out import NobodyUsable
from client.cohort.site_cohort import SiteCohort
from client.dicom.masks import grid as mask_grid
from client.dicom.masks.grid import on_grid
from client.dicom.reasons import NOTICES, Reason, UnusableFile
from common.config.run_config import Images, RunConfig, parse_config
from common.data.preprocessing import prepare_labels
from tests.client.dicom_files import image, load, noise, save, write_labels

SHAPE = (512, 512)
PLACES = {"small": slice(250, 255), "corner": slice(3, 40), "large": slice(150, 350)}


def mask(*places: str) -> NDArray[np.uint8]:
    found = np.zeros(SHAPE, np.uint8)
    for place in places:
        found[PLACES[place], PLACES[place]] = 1
    return found


def rules(fit: str, size: tuple[int, ...] = (32, 32), **more: object) -> Images:
    return Images.model_validate({"size": size, "fit": fit, **more})


def told(drawn: NDArray[np.uint8], images: Images, *structures: str) -> list[str]:
    found: list[UnusableFile] = []
    target = on_grid(drawn, None, images, structures or ["lesion"], found.append)
    assert np.array_equal(target.numpy(), prepare_labels(drawn, None, images).numpy())
    assert {one.reason for one in found} <= {Reason.MASK_CUT}
    return [one.detail for one in found]


@pytest.mark.parametrize(
    ("place", "fit"), [("small", "letterbox"), ("small", "stretch"), ("corner", "crop")]
)
def test_a_structure_of_which_nothing_is_left_is_lost(place: str, fit: str) -> None:
    with pytest.raises(UnusableFile) as caught:
        told(mask(place), rules(fit))
    assert caught.value.reason is Reason.MASK_LOST
    assert "lesion: " in caught.value.detail
    assert fit in caught.value.detail


def test_a_structure_that_is_lost_beside_one_that_is_not_is_lost() -> None:
    drawn = mask("large") + mask("corner") * np.uint8(2)
    with pytest.raises(UnusableFile) as caught:
        told(drawn, rules("crop"), "organ", "lesion")
    assert "lesion: 1369 pixels" in caught.value.detail
    assert told(drawn, rules("letterbox"), "organ", "lesion") == []


def test_parts_that_are_lost_are_told_unless_they_are_specks() -> None:
    small = mask("corner")
    small[250:255, 300:305] = 1
    (detail,) = told(small, rules("letterbox"))
    assert "lesion: 1 of 2 parts (25 of 1394 pixels)" in detail
    specks = mask("large")
    specks[::37, 9] = 1
    assert told(specks, rules("letterbox")) == []
    (detail,) = told(mask("large", "corner"), rules("crop", (224, 224)))
    assert "1 of 2 parts" in detail


def test_a_tenth_and_more_outside_the_crop_is_told() -> None:
    (detail,) = told(mask("large"), rules("crop", (160, 160)))
    assert "36% of lesion lies outside the crop to (160, 160)" in detail
    assert told(mask("large"), rules("crop", (192, 200))) == []
    assert told(mask("large"), rules("letterbox")) == []


def test_an_empty_mask_and_one_that_fits_say_nothing() -> None:
    for drawn in (mask(), mask("small"), mask("corner", "large")):
        assert told(drawn, rules("crop", SHAPE)) == []
    assert told(mask(), rules("crop")) == []


def test_volumes_are_looked_at_after_resampling() -> None:
    thin = np.zeros((40, 32, 32), np.uint8)
    thin[21, 8:20, 8:20] = 1
    thick = rules("crop", (16, 32, 32), spacing=(3.0, 1.0, 1.0))
    found: list[UnusableFile] = []
    on_grid(thin, (3.0, 1.0, 1.0), thick, ["lesion"], found.append)
    assert found == []
    with pytest.raises(UnusableFile, match="MASK_LOST"):
        on_grid(thin, (1.0, 1.0, 1.0), thick, ["lesion"], found.append)


def config(privacy: str, fit: str) -> RunConfig:
    return parse_config(f"""
name: outlines
task: {{kind: segmentation, mask: mask, structures: {{lesion: [1]}}}}
cohort: {{images: {{size: [32, 32], fit: {fit}}}, smallest_cohort: 1}}
model: {{network: unet, width: 4}}
training: {{rounds: 1}}
privacy: {privacy}
""").in_force()


PRIVATE = "{unit: patient, epsilon: 8, public_patients: {site: 50}}"


def cohort_of(folder: Path, places: dict[str, str], config: RunConfig) -> SiteCohort:
    site = folder / "site"
    for number, (patient, place) in enumerate(places.items()):
        dataset = image(noise(*SHAPE, seed=number), patient, f"S{number}", f"E{number}")
        save(site / f"{patient}.dcm", dataset)
        drawn = mask(place) if place else mask()
        Image.fromarray(drawn * np.uint8(255)).save(site / f"{patient}.png")
    write_labels(site, [{"PatientID": p, "mask": f"{p}.png"} for p in places])
    return load(site, config, folder / "cache")


@pytest.mark.parametrize("privacy", ["none", PRIVATE])
def test_no_image_whose_lesion_is_gone_is_a_healthy_one_and_only_its_own_patient_leaves(
    tmp_path: Path, privacy: str
) -> None:
    """Also in a private run, where one patient's mask may not change who else is there."""
    places = {"P1": "small", "P2": "large", "P3": "", "P4": "corner"}
    here = cohort_of(tmp_path / "all", places, config(privacy, "letterbox"))
    assert here.items.pseudonyms == ("P2", "P3", "P4")
    lost = [(p.what, p.patient) for p in here.unusable if p.reason is Reason.MASK_LOST]
    assert [what for what, _ in lost] == ["P1.dcm"]
    del places["P1"]
    without = cohort_of(tmp_path / "without", places, config(privacy, "letterbox"))
    assert without.items.pseudonyms == here.items.pseudonyms
    assert np.array_equal(without.items.target.numpy(), here.items.target.numpy())


def test_a_site_of_whose_lesions_none_is_left_says_so(tmp_path: Path) -> None:
    with pytest.raises(NobodyUsable, match="MASK_LOST"):
        cohort_of(tmp_path, {"P1": "corner", "P2": "corner"}, config("none", "crop"))


def test_a_structure_that_no_mask_of_the_site_holds_is_named(tmp_path: Path) -> None:
    here = cohort_of(tmp_path, {"P1": "", "P2": ""}, config("none", "crop"))
    ((what, detail),) = [(p.what, p.detail) for p in here.unusable if p.reason is Reason.MASK_NAMES]
    assert what == "structure lesion"
    assert "none of the 2 masks" in detail


def test_the_checks_turn_red_where_losses_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_grid, "check_kept", lambda *_: "")
    here = cohort_of(tmp_path, {"P1": "small"}, config("none", "letterbox"))
    assert len(here.items) == 1  # trained as one without a lesion
    assert int(here.items.target.sum()) == 0
    assert Reason.MASK_LOST not in NOTICES
