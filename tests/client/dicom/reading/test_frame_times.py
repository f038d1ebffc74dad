"""Frames of one object are pictures of several times, ordered by what each says of itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence as Items
from torch import Tensor

from client.cohort.left_out import NobodyUsable
from client.dicom.headers.header import read_file
from client.dicom.headers.instance import Instance
from client.dicom.index.index import Index
from client.dicom.reading.files import File
from client.dicom.reasons import Reason
from common.config.run_config import RunConfig, parse_config
from tests.client import dicom_files
from tests.client.dicom_files import _item, image, noise, placed, save, write_labels

PHASES, PLACES = 3, 4
#: What a frame says, by place and phase: functional group, then attribute.
Groups = Mapping[str, Mapping[str, object]]
Says = Callable[[int, int], Groups]


def config_of(time: str = "{frames: 3}", size: str = "[8, 8]", more: str = "") -> RunConfig:
    return parse_config(f"""
name: times
task: {{kind: diagnosis, target: ill}}
cohort:
  images: {{size: {size}, fit: stretch, intensity: window, window: [0, 1000], time: {time}{more}}}
  smallest_cohort: 1
model: {{network: small_cnn, width: 4}}
training: {{rounds: 1}}
privacy: none
""")


def picture(place: int, phase: int) -> NDArray[np.uint16]:
    """Return the picture of a place: phase n has a brightness of 100 + 100 n."""
    pattern = noise(8, 8, seed=place, top=40)
    return (100 + 100 * phase + 10 * place + pattern).astype(np.uint16)


def enhanced(says: Says, order: Sequence[tuple[int, int]], number: int = 1) -> FileDataset:
    """Return an enhanced MR whose frames are these places and phases."""
    values = np.stack([picture(place, phase) for place, phase in order])
    found = image(values, "P1", "S", "enhanced", number)
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    found.Modality = "MR"
    groups = []
    for place, phase in order:
        said = {name: Items([_item(**held)]) for name, held in says(place, phase).items()}
        where = _item(ImagePositionPatient=[0.0, 0.0, 10.0 * place])
        groups.append(_item(PlanePositionSequence=Items([where]), **said))
    turn = _item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    measures = _item(PixelSpacing=[0.5, 0.7], SliceThickness=10.0)
    shared = _item(PlaneOrientationSequence=Items([turn]), PixelMeasuresSequence=Items([measures]))
    found.SharedFunctionalGroupsSequence = Items([shared])
    found.PerFrameFunctionalGroupsSequence = Items(groups)
    return found


def every(phases: int = PHASES) -> list[tuple[int, int]]:
    return [(place, phase) for place in range(PLACES) for phase in range(phases)]


def load(folder: Path, config: RunConfig) -> Tensor:
    if not (folder / "labels.csv").exists():
        write_labels(folder, [{"PatientID": "P1", "ill": 1}])
    found = dicom_files.load(folder, config, folder.with_name(f"{folder.name}-cache"))
    assert not found.unusable
    return found.items.image[:]


def refused(folder: Path, config: RunConfig) -> tuple[Reason, str]:
    with pytest.raises(NobodyUsable) as stopped:
        load(folder, config)
    problem = stopped.value.unusable[0]
    return problem.reason, problem.detail


def brightness(found: Tensor) -> list[list[float]]:
    return [[round(float(c.mean()), 1) for c in item] for item in found]


SAID: Mapping[str, Says] = {
    "index": lambda _, n: {"FrameContentSequence": {"TemporalPositionIndex": n + 1}},
    # Heart beats differ by place, so delays are ranked and never compared.
    "trigger delay": lambda p, n: {
        "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": 5.0 * p + 200.0 * n}
    },
    "offset": lambda _, n: {"TemporalPositionSequence": {"TemporalPositionTimeOffset": 2.5 * n}},
    "acquisition": lambda p, n: {"FrameContentSequence": {"FrameAcquisitionNumber": 3 * p + n}},
    "echo": lambda _, n: {"MREchoSequence": {"EffectiveEchoTime": 2.3 + 2.3 * n}},
    "b": lambda _, n: {"MRDiffusionSequence": {"DiffusionBValue": 500.0 * n}},
    "clock": lambda p, n: {
        "FrameContentSequence": {"FrameAcquisitionDateTime": f"202401021200{10 * n + p:02d}"}
    },
}


@pytest.mark.parametrize("says", SAID)
def test_frames_come_in_order_of_what_they_say_wherever_they_stand(
    tmp_path: Path, says: str
) -> None:
    order = every()
    save(tmp_path / "a" / "a.dcm", enhanced(SAID[says], order))
    found = load(tmp_path / "a", config_of())
    levels = [[0.1 + 0.1 * n + 0.01 * p + 0.02 for n in range(PHASES)] for p in range(PLACES)]
    assert np.abs(np.array(brightness(found)) - np.array(levels)).max() <= 0.051
    assert all(a < b < c for a, b, c in found.flatten(2).mean(2).tolist())
    random.Random(3).shuffle(order)
    save(tmp_path / "b" / "a.dcm", enhanced(SAID[says], order))
    assert torch.equal(load(tmp_path / "b", config_of()), found)


def test_a_volume_of_each_phase_is_a_channel(tmp_path: Path) -> None:
    order = every()
    save(tmp_path / "a" / "a.dcm", enhanced(SAID["trigger delay"], order))
    volume = load(tmp_path / "a", config_of(size="[8, 8, 8]"))
    assert volume.shape == (1, PHASES, 8, 8, 8)
    assert np.all(np.diff(volume[0].flatten(1).mean(1)) > 0.09)
    # The same of an object for each phase, whose number alone says it.
    for phase in range(PHASES):
        one = enhanced(lambda *_: {}, [(place, phase) for place in range(PLACES)], phase + 1)
        one.InstanceNumber = phase + 1
        save(tmp_path / "b" / f"{phase}.dcm", one)
    assert torch.equal(load(tmp_path / "b", config_of(size="[8, 8, 8]")), volume)


def test_frames_that_lack_a_place_or_an_order_are_refused(tmp_path: Path) -> None:
    order = every()
    save(tmp_path / "uneven" / "a.dcm", enhanced(SAID["index"], order[:-1]))
    reason, detail = refused(tmp_path / "uneven", config_of("{frames: 2}"))
    assert reason is Reason.MULTI_PHASE_UNEVEN
    assert "3 places with 3, 1 place with 2" in detail
    save(tmp_path / "silent" / "a.dcm", enhanced(lambda *_: {}, order))
    assert refused(tmp_path / "silent", config_of())[0] is Reason.PHASE_ORDER_UNKNOWN
    save(tmp_path / "none" / "a.dcm", enhanced(SAID["index"], order))
    reason, _ = refused(tmp_path / "none", config_of("{frames: 3, by: echo}"))
    assert reason is Reason.PHASE_ORDER_UNKNOWN

    def directions(_: int, phase: int) -> Groups:
        return {"MRDiffusionSequence": {"DiffusionBValue": 1000.0 * (phase > 0)}}

    save(tmp_path / "directions" / "a.dcm", enhanced(directions, order))
    assert refused(tmp_path / "directions", config_of())[0] is Reason.PHASE_ORDER_UNKNOWN

    def two_ways(_: int, phase: int) -> Groups:
        return SAID["index"](0, phase) | {"MREchoSequence": {"EffectiveEchoTime": 2.0 + phase // 2}}

    save(tmp_path / "two" / "a.dcm", enhanced(two_ways, order))
    assert refused(tmp_path / "two", config_of())[0] is Reason.PHASE_ORDER_UNKNOWN

    def kinds(_: int, phase: int) -> Groups:
        return SAID["index"](0, phase) | {
            "MRImageFrameTypeSequence": {"FrameType": ["M", "P"][phase > 1]}
        }

    save(tmp_path / "kinds" / "a.dcm", enhanced(kinds, order))
    assert refused(tmp_path / "kinds", config_of())[0] is Reason.PHASE_ORDER_UNKNOWN


def loop(modality: str, frames: int = 6, number: int = 1, **said: object) -> FileDataset:
    """Return a cine without places."""
    values = np.stack([picture(0, phase) for phase in range(frames)])
    found = image((values // 4).astype(np.uint8), "P1", "S", "loop", number)
    found.Modality = modality
    for name, value in said.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize("modality", ["US", "XA"])
@pytest.mark.parametrize(
    "said",
    [
        {"FrameTime": "33.3", "FrameIncrementPointer": 0x00181063},
        {"FrameTimeVector": [0, 30, 31, 30, 29, 30], "FrameIncrementPointer": 0x00181065},
        {"FrameTime": "33.3"},
    ],
)
def test_a_cine_without_places_is_one_place_at_several_times(
    tmp_path: Path, modality: str, said: Mapping[str, object]
) -> None:
    save(tmp_path / "a" / "a.dcm", loop(modality, **said))
    found = load(tmp_path / "a", config_of())
    assert found.shape == (1, 3, 8, 8)
    # Of 6 frames the first, third and fifth.
    assert np.diff(found[0].flatten(1).mean(1)) == pytest.approx([0.05, 0.05], abs=0.003)
    assert load(tmp_path / "a", config_of("{as: items}")).shape == (6, 1, 8, 8)
    save(tmp_path / "a" / "b.dcm", loop(modality, number=2, **said))
    assert load(tmp_path / "a", config_of()).shape == (2, 3, 8, 8)


def test_a_cine_in_colours_counts_as_grey(tmp_path: Path) -> None:
    save(tmp_path / "grey" / "a.dcm", loop("US", FrameTime="33.3"))
    coloured = loop("US", FrameTime="33.3")
    coloured.PixelData = np.repeat(coloured.pixel_array[..., None], 3, axis=3).tobytes()
    coloured.SamplesPerPixel, coloured.PhotometricInterpretation = 3, "RGB"
    coloured.PlanarConfiguration = 0
    save(tmp_path / "colours" / "a.dcm", coloured)
    for time in ("{frames: 3}", "{frames: 2, as: difference}"):
        expected = load(tmp_path / "grey", config_of(time))
        torch.testing.assert_close(load(tmp_path / "colours", config_of(time)), expected)


@pytest.mark.parametrize(
    "said", [{}, {"FrameTime": "33", "FrameIncrementPointer": 0x00540010}, {"FrameTime": "0"}]
)
def test_a_cine_that_says_no_time_is_refused(tmp_path: Path, said: Mapping[str, object]) -> None:
    save(tmp_path / "a" / "a.dcm", loop("US", **said))
    assert refused(tmp_path / "a", config_of())[0] is Reason.PHASE_ORDER_UNKNOWN


def test_an_index_keeps_what_each_frame_says(tmp_path: Path) -> None:
    path = save(tmp_path / "a" / "a.dcm", enhanced(SAID["trigger delay"], every()))
    save(tmp_path / "a" / "b.dcm", placed(image(noise(8, 8), "P2"), (0, 0, 0)))
    with Index(tmp_path / "index.db") as index:
        index.update(tmp_path / "a")
        held = {one.path.name: one for one in index.instances(tmp_path / "a")}
    status = path.stat()
    read = read_file(File(path=path, size=status.st_size, mtime_ns=status.st_mtime_ns))
    assert isinstance(read, Instance)
    assert held["a.dcm"].header == read.header
    assert held["a.dcm"].each[1].trigger_time == 200.0
    assert held["b.dcm"].each == ()


def test_a_fourth_axis_of_a_file_is_its_times(tmp_path: Path) -> None:
    order = every()
    save(tmp_path / "dicom" / "a.dcm", enhanced(SAID["index"], order))
    values = np.stack(
        [np.stack([picture(p, n) for p in range(PLACES)]) for n in range(PHASES)], axis=3
    )
    affine = np.diag([-0.7, -0.5, 10.0, 1.0])
    (tmp_path / "files").mkdir()
    nibabel.save(
        nibabel.Nifti1Image(values.transpose(2, 1, 0, 3), affine), tmp_path / "files" / "a.nii.gz"
    )
    write_labels(tmp_path / "files", [{"PatientID": "P1", "image": "a.nii.gz", "ill": 1}])
    for size in ("[8, 8]", "[8, 8, 8]"):
        for time in ("{frames: 3}", "{frames: 2, as: difference}"):
            expected = load(tmp_path / "dicom", config_of(time, size))
            found = load(tmp_path / "files", config_of(time, size, ", format: files"))
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    reason, _ = refused(tmp_path / "files", config_of("{frames: 4}", more=", format: files"))
    assert reason is Reason.TOO_FEW_PHASES
