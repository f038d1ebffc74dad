"""Several pictures of each place become one input, in order of time, whatever they are called."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import dcmread
from torch import Tensor

from client.cohort.left_out import NobodyUsable
from client.cohort.site_cohort import SiteCohort
from client.dicom.reading.time_axis import joined_name
from client.dicom.reasons import Reason
from client.inference.trained_model import Local, score_study
from common.bundle.preparation import Preparation
from common.config.run_config import Images, RunConfig, load_config, parse_config
from common.data.preprocessing import prepare_phases
from tests.client import dicom_files
from tests.client.dicom_files import SHARED, image, noise, placed, save, write_labels
from tests.client.small_models import model_of, stirred

#: Brightness of each phase; the first is the darkest.
PHASES, PLACES = 3, 4
Said = Mapping[str, object]
#: What a picture says, by place and phase.
Header = Callable[[int, int], Said]


def config_of(time: str = "{frames: 3}", size: str = "[8, 8]") -> RunConfig:
    return parse_config(f"""
name: times
task: {{kind: diagnosis, target: ill}}
cohort:
  images: {{size: {size}, fit: stretch, intensity: window, window: [0, 1000], time: {time}}}
  smallest_cohort: 1
model: {{network: small_cnn, width: 4}}
training: {{rounds: 1}}
privacy: none
""")


def cine(folder: Path, says: Header, counts: Sequence[int] = (PHASES,) * PLACES) -> Path:
    """Write P1's pictures, phase n of brightness 100 + 100 n with a pattern of its place."""
    for place, count in enumerate(counts):
        pattern = noise(8, 8, seed=place, top=40)
        for phase in range(count):
            said = {"number": place * count + phase + 1, "series": "1"} | dict(says(place, phase))
            values = (100 + 100 * phase + 10 * place + pattern).astype(np.uint16)
            one = image(values, "P1", "S", str(said.pop("series")), 100 * place + phase)
            one.InstanceNumber = said.pop("number")
            placed(one, (0, 0, 10.0 * place))
            one.Modality = "MR"
            for name, value in said.items():
                setattr(one, name, value)
            save(folder / f"{place}-{phase}.dcm", one)
    write_labels(folder, [{"PatientID": "P1", "StudyInstanceUID": _study(folder), "ill": 1}])
    return folder


def _study(folder: Path) -> str:
    return str(dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True).StudyInstanceUID)


def load(folder: Path, config: RunConfig) -> SiteCohort:
    return dicom_files.load(folder, config, folder.with_name(f"{folder.name}-cache"))


def inputs(folder: Path, config: RunConfig) -> Tensor:
    found = load(folder, config)
    assert not found.unusable
    return found.items.image[:]


def brightness(found: Tensor) -> list[list[float]]:
    """Return the mean of each channel by item."""
    return [[round(float(c.mean()), 1) for c in item] for item in found]


def shuffled(folder: Path, out: Path, seed: int) -> Path:
    """Return the folder with other names of files and, where others order them, other numbers."""
    out.mkdir()
    shutil.copy(folder / "labels.csv", out / "labels.csv")
    paths = sorted(folder.glob("*.dcm"))
    order = random.Random(seed).sample(range(len(paths)), len(paths))
    for path, number in zip(paths, order, strict=True):
        one = dcmread(path)
        one.InstanceNumber = number + 1
        one.save_as(out / f"{number:03d}.dcm")
    return out


EVIDENCE: dict[str, Header] = {
    "temporal positions": lambda _, phase: {"TemporalPositionIdentifier": phase + 1},
    "trigger times that differ by place, as heart beats do": lambda place, phase: {
        "TriggerTime": 10.0 * place + (30 + place) * phase
    },
    "acquisitions": lambda _, phase: {"AcquisitionNumber": phase + 1},
    "echoes": lambda _, phase: {"EchoTime": 1.2 + 2.3 * phase},
    "b-values": lambda _, phase: {"DiffusionBValue": (0.0, 50.0, 800.0)[phase]},
    "times of acquisition that cross midnight": lambda _, phase: {
        "AcquisitionDate": ("20200101", "20200102", "20200102")[phase],
        "AcquisitionTime": ("235950", "000010", "000030")[phase],
    },
}


@pytest.mark.parametrize("says", EVIDENCE.values(), ids=EVIDENCE)
def test_phases_come_in_order_whatever_files_and_numbers_are_called(
    tmp_path: Path, says: Header
) -> None:
    folder = cine(tmp_path / "site", says)
    found = inputs(folder, config_of())
    assert found.shape == (PLACES, PHASES, 8, 8)
    for item in brightness(found):
        assert item == sorted(item)
    for seed in range(2):
        again = inputs(shuffled(folder, tmp_path / str(seed), seed), config_of())
        as_sets = [sorted(brightness(one)) for one in (found, again)]
        assert as_sets[0] == as_sets[1]
        order = [[torch.equal(a, b) for b in again] for a in found]
        assert all(sum(row) == 1 for row in order)


NUMBERED: dict[str, Header] = {
    "place by place": lambda place, phase: {"number": place * PHASES + phase + 1},
    "phase by phase": lambda place, phase: {"number": phase * PLACES + place + 1},
    "odd places first": lambda place, phase: {
        "number": (place // 2 + (place % 2 == 0) * 2) * PHASES + phase + 1
    },
    "anew at each place": lambda _, phase: {"number": phase + 1},
}


@pytest.mark.parametrize("says", NUMBERED.values(), ids=NUMBERED)
def test_numbers_order_phases_where_nothing_else_does(tmp_path: Path, says: Header) -> None:
    found = inputs(cine(tmp_path, says), config_of())
    for item in brightness(found):
        assert item == sorted(item)


def test_numbers_in_no_order_are_not_believed(tmp_path: Path) -> None:
    numbers = random.Random(3).sample(range(1, 13), 12)
    folder = cine(tmp_path, lambda place, phase: {"number": numbers[place * PHASES + phase]})
    with pytest.raises(NobodyUsable, match=r"PHASE_ORDER_UNKNOWN.*neither place by place nor"):
        load(folder, config_of())


def test_temporal_positions_that_differ_by_place_are_not_paired(tmp_path: Path) -> None:
    def shifted(place: int, phase: int) -> Said:
        return {"TemporalPositionIdentifier": phase + 1 + (place == 2), "number": 5}

    folder = cine(tmp_path, shifted)
    with pytest.raises(NobodyUsable, match=r"PHASE_ORDER_UNKNOWN.*other values at other places"):
        load(folder, config_of())


TWO_WAYS: dict[str, Header] = {
    "phases of two echoes": lambda _, n: {
        "TriggerTime": 30.0 * (n // 2),
        "EchoTime": (1.2, 4.6)[n % 2],
    },
    "echoes of two phases": lambda _, n: {
        "TriggerTime": 30.0 * (n % 2),
        "EchoTime": (1.2, 4.6)[n // 2],
    },
    "phases of two echoes, whose times all differ": lambda _, n: {
        "TriggerTime": 30.0 * n,
        "EchoTime": (1.2, 4.6)[n % 2],
    },
    "directions of one b-value": lambda _, n: {"DiffusionBValue": (0.0, 800.0)[n > 0]},
    "magnitude, then phase": lambda _, n: {
        "TriggerTime": 30.0 * (n % 2),
        "ImageType": ["ORIGINAL", "PRIMARY", "MP"[n // 2], "ND"],
    },
    "two passes over the heart beat": lambda _, n: {"TriggerTime": 30.0 * (n % 2)},
    "two injections": lambda _, n: {"TemporalPositionIdentifier": n % 2 + 1},
}


@pytest.mark.parametrize("says", TWO_WAYS.values(), ids=TWO_WAYS)
def test_what_varies_in_two_ways_is_no_series_of_times(tmp_path: Path, says: Header) -> None:
    """Numbers that go on evenly say nothing of which of the two ways is the time."""
    folder = cine(tmp_path, says, counts=(4,) * PLACES)
    with pytest.raises(NobodyUsable, match=r"PHASE_ORDER_UNKNOWN.*they vary in another way"):
        load(folder, config_of("{frames: 4}"))


def test_times_that_are_rounded_to_the_same_go_by_numbers(tmp_path: Path) -> None:
    folder = cine(tmp_path, lambda _, n: {"TriggerTime": 30.0 * ((n + 1) // 2)})
    (item, *_) = brightness(inputs(folder, config_of()))
    assert item == sorted(item)


def test_uneven_phases_are_refused_with_their_counts(tmp_path: Path) -> None:
    folder = cine(tmp_path, lambda _, phase: {"TriggerTime": 30.0 * phase}, counts=(3, 3, 2, 3))
    with pytest.raises(NobodyUsable, match=r"MULTI_PHASE_UNEVEN.*3 places with 3, 1 place with 2"):
        load(folder, config_of("{frames: 2}"))


def test_one_picture_of_each_place_is_no_series_of_times(tmp_path: Path) -> None:
    folder = cine(tmp_path, lambda *_: {}, counts=(1, 1, 1))
    with pytest.raises(NobodyUsable, match=r"TOO_FEW_PHASES.*every place has 1 picture"):
        load(folder, config_of("{frames: 2}"))


def test_what_is_asked_for_by_name_alone_orders(tmp_path: Path) -> None:
    def both(_: int, phase: int) -> Said:
        return {"TriggerTime": 30.0 * phase, "AcquisitionNumber": PHASES - phase}

    folder = cine(tmp_path, both)
    first = brightness(inputs(folder, config_of()))[0]
    other = brightness(inputs(folder, config_of("{frames: 3, by: acquisition}")))[0]
    assert other == first[::-1]
    with pytest.raises(NobodyUsable, match="echo: not said by all"):
        load(folder, config_of("{frames: 3, by: echo}"))


def test_frames_are_taken_evenly_by_rank(tmp_path: Path) -> None:
    folder = cine(tmp_path, lambda _, phase: {"TriggerTime": 30.0 * phase}, counts=(6,) * 3)
    found = brightness(inputs(folder, config_of("{frames: 3}")))[0]
    assert np.allclose(np.diff(found), 0.2, atol=0.01)
    every = inputs(folder, config_of("{as: items}"))
    assert every.shape == (18, 1, 8, 8)


def test_a_difference_is_what_changed_around_the_middle_grey(tmp_path: Path) -> None:
    folder = cine(tmp_path, lambda _, phase: {"TriggerTime": 30.0 * phase})
    found = inputs(folder, config_of("{frames: 3, as: difference}"))
    assert found.shape == (PLACES, 2, 8, 8)
    for item in found:  # each later phase is brighter by 100 of 1000 than the one before
        assert torch.allclose(item[0], torch.tensor(0.55), atol=1e-4)
        assert torch.allclose(item[1], torch.tensor(0.60), atol=1e-4)


def test_volumes_have_phases_as_channels(tmp_path: Path) -> None:
    folder = cine(tmp_path, lambda _, phase: {"TriggerTime": 30.0 * phase})
    found = inputs(folder, config_of(size="[8, 8, 8]"))
    assert found.shape == (1, PHASES, 8, 8, 8)
    (item,) = brightness(found)
    assert item == sorted(item)
    assert inputs(folder, config_of("{as: items}", size="[8, 8, 8]")).shape == (3, 1, 8, 8, 8)


def by_slice(place: int, phase: int) -> Said:
    return {
        "series": f"1.{place}",
        "SeriesDescription": f"cine_retro_sa_{place + 1}",
        "TriggerTime": 30.0 * phase,
    }


def test_series_of_a_slice_each_are_one_stack_where_the_run_says_so(tmp_path: Path) -> None:
    folder = cine(tmp_path, by_slice)
    joined = inputs(folder, config_of("{frames: 3, join: slices}"))
    assert joined.shape == (PLACES, PHASES, 8, 8)
    assert inputs(folder, config_of("{frames: 3, join: slices}", size="[8, 8, 8]")).shape[0] == 1
    with pytest.raises(NobodyUsable, match=r"AMBIGUOUS_SERIES.*4 series of one study"):
        load(folder, config_of())


def test_two_stacks_of_a_study_are_not_joined(tmp_path: Path) -> None:
    def two(place: int, phase: int) -> Said:
        return dict(by_slice(place, phase)) | {
            "SeriesDescription": f"{'cine sa' if place < 2 else 'late sa'} {place}"
        }

    with pytest.raises(NobodyUsable, match="AMBIGUOUS_SERIES"):
        load(cine(tmp_path, two), config_of("{frames: 3, join: slices}"))


def test_a_rule_chooses_one_of_two_stacks_of_joined_series(tmp_path: Path) -> None:
    def two(place: int, phase: int) -> Said:
        return dict(by_slice(place, phase)) | {
            "SeriesDescription": f"{'cine sa' if place < 2 else 'late sa'} {place}"
        }

    rule = "series: [{name: moving, description: [cine]}]"
    ruled = "{frames: 3, join: slices}, " + rule
    folder = cine(tmp_path, two)
    found = load(folder, config_of(ruled))
    assert found.items.image.shape == (2, PHASES, 8, 8)
    assert {told.reason for told in found.unusable} == {Reason.OTHER_SERIES}
    volume = load(folder, config_of(ruled, size="[8, 8, 8]"))
    assert volume.items.image.shape == (1, PHASES, 8, 8, 8)
    with pytest.raises(NobodyUsable, match=r"AMBIGUOUS_SERIES.*rule moving fits 2 series"):
        load(folder, config_of("{frames: 3}, " + rule))


@pytest.mark.parametrize(
    ("description", "name"),
    [("cine_sa_12", "cine_sa"), ("SA 3", "sa"), ("T2*", "t2*"), ("sa", "sa"), ("7", "")],
)
def test_a_stack_is_named_without_the_number_at_its_end(description: str, name: str) -> None:
    assert joined_name(description) == name


@pytest.mark.parametrize("size", ["[8, 8]", "[8, 8, 8]"])
def test_a_model_of_phases_scores_a_study_of_them(tmp_path: Path, size: str) -> None:
    folder = cine(tmp_path, by_slice)
    config = config_of("{frames: 2, as: difference, join: slices}", size)
    model, files = model_of(config, stirred(config)), sorted(folder.glob("*.dcm"))
    (score,) = score_study(files, model, Local())
    assert len(score.sources) == PLACES


@pytest.mark.parametrize("form", ["channels", "difference"])
@pytest.mark.parametrize("intensity", ["percentile", "zscore"])
def test_a_bundle_prepares_phases_as_a_site_does(form: str, intensity: str) -> None:
    given = {"size": [8, 8], "intensity": intensity, "time": {"frames": 3, "as": form}}
    rules = Images.model_validate(given)
    phases = noise(3, 20, 14, seed=1).astype(np.float32)
    expected = prepare_phases(list(phases), (1.0, 1.5), rules)
    program = torch.jit.script(Preparation(rules))
    found = program(torch.from_numpy(phases).permute(0, 2, 1), [1.5, 1.0])
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("time", "said"),
    [
        ("{as: channels}", "needs frames"),
        ("{frames: 1}", "frames"),
        ("{frames: 2, by: clock}", "by"),
    ],
)
def test_times_that_make_no_input_are_refused(time: str, said: str) -> None:
    with pytest.raises(Exception, match=said):
        config_of(time)


@pytest.mark.needs_shared_data
@pytest.mark.parametrize("site", ["cine-a", "cine-b", "cine-c"])
def test_real_cine_gives_end_diastole_before_end_systole_for_every_patient(
    tmp_path: Path, site: str
) -> None:
    config = load_config(Path("configs/simulations/cardiac-ef.yaml"))
    found = dicom_files.load(SHARED / "cardiac-cine" / site, config, tmp_path)
    assert len(found.items) == {"cine-a": 22, "cine-b": 21, "cine-c": 22}[site]
    assert not [p for p in found.unusable if p.reason is not Reason.SEGMENTATION]
    assert found.items.image.shape[1:] == (1, 112, 112)
    assert all(
        source.endswith("-0.dcm") for source in found.sources
    )  # end-diastole, the source says
