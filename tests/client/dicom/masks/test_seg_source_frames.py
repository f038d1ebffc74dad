"""A SEG on a 2-D image lands on the frames that it was drawn on, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items

from client.dicom.masks import seg_source_frames as source_frames
from client.dicom.masks.seg import read_image_segmentation, read_segmentation
from client.dicom.reading.read import read_header, read_pixels
from client.dicom.reading.volume import stack_slices
from client.dicom.reasons import Reason, UnusableFile
from tests.client.dicom_files import (
    config_of,
    image,
    load,
    noise,
    save,
    segmentation,
    slices,
    uid,
    write_labels,
)
from tests.client.structure_sets import item

LESION = {"lesion": (1,)}
LOOP = np.zeros((3, 16, 16), np.uint8)
LOOP[0, 0:2] = LOOP[1, 4:6] = LOOP[2, 8:10] = 1


def loop(positions: Sequence[float] = ()) -> FileDataset:
    """Return an image of three frames, each at its own place where that is given."""
    found = image(noise(3, 16, 16, dtype="uint8", top=250))
    found.Modality, found.FrameOfReferenceUID = "US", uid("frame")
    if positions:
        found.SharedFunctionalGroupsSequence = Items(
            [
                item(
                    PlaneOrientationSequence=Items(
                        [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
                    ),
                    PixelMeasuresSequence=Items([item(PixelSpacing=[1.0, 1.0])]),
                )
            ]
        )
        found.PerFrameFunctionalGroupsSequence = Items([placed_group(z) for z in positions])
    return found


def placed_group(level: float) -> Dataset:
    place = item(ImagePositionPatient=[0.0, 0.0, level])
    return item(PlanePositionSequence=Items([place]))


def source(image: FileDataset, number: object = None) -> Items:
    """Return a DerivationImageSequence that names an image, or one of its frames."""
    found = item(ReferencedSOPInstanceUID=image.SOPInstanceUID)
    if number is not None:
        found.ReferencedFrameNumber = number
    return Items([item(SourceImageSequence=Items([found]))])


def drawn(
    of: FileDataset, sources: Sequence[Items | None], levels: Sequence[float] = ()
) -> FileDataset:
    """Return a SEG of the loop's outlines whose frames name these sources, and lie here."""
    found = segmentation({1: LOOP}, [of] * 3)
    found.FrameOfReferenceUID = of.FrameOfReferenceUID
    for frame, group in enumerate(found.PerFrameFunctionalGroupsSequence):
        del group.DerivationImageSequence
        if sources and (one := sources[frame]) is not None:
            group.DerivationImageSequence = one
        if levels:
            group.PlanePositionSequence = placed_group(levels[frame]).PlanePositionSequence
    if levels:
        shared = of.SharedFunctionalGroupsSequence
        found.SharedFunctionalGroupsSequence = shared
    return found


def read(path: Path, of: FileDataset, frame: int = 0) -> NDArray[np.uint8]:
    return read_image_segmentation(path, read_header(of), frame, LESION)


def refused(run: Callable[[], object]) -> str:
    with pytest.raises(UnusableFile) as caught:
        run()
    assert caught.value.reason is Reason.MASK_UNUSABLE
    return caught.value.detail


def test_frames_that_name_a_frame_land_on_it(tmp_path: Path) -> None:
    of = loop()
    path = save(tmp_path / "s", drawn(of, [source(of, 3), source(of, 1), source(of, 2)]))
    for frame, own in ((0, 1), (1, 2), (2, 0)):
        assert np.array_equal(read(path, of, frame), LOOP[own])


@pytest.mark.parametrize("kind", ["the whole image", "nothing", "all frames", "an empty number"])
def test_frames_that_do_not_say_on_which_of_several_they_were_drawn_are_refused(
    tmp_path: Path, kind: str
) -> None:
    """All on the first frame (three times the pixels), or on none, is what they once became."""
    of = loop()
    named = {
        "the whole image": source(of),
        "nothing": None,
        "all frames": source(of, [1, 2, 3]),
        "an empty number": source(of, ""),
    }[kind]
    path = save(tmp_path / "s", drawn(of, [named] * 3))
    for frame in range(3):
        assert refused(lambda frame=frame: read(path, of, frame))


@pytest.mark.parametrize("named", [True, False])
def test_where_frame_and_image_lie_says_on_which_frame_it_was_drawn(
    tmp_path: Path, *, named: bool
) -> None:
    of = loop((0.0, 5.0, 10.0))
    sources = [source(of) if named else None] * 3
    path = save(tmp_path / "s", drawn(of, sources, (10.0, 0.0, 5.0)))
    for frame, own in ((0, 1), (1, 2), (2, 0)):
        assert np.array_equal(read(path, of, frame), LOOP[own])
    still = loop((5.0, 5.0, 5.0))  # a loop stays where it is
    save(path, drawn(still, sources, (5.0, 5.0, 5.0)))
    refused(lambda: read(path, still))
    elsewhere = drawn(of, sources, (10.0, 0.0, 5.0))
    elsewhere.FrameOfReferenceUID = uid("another frame")
    refused(lambda: read(save(path, elsewhere), of))


def test_a_frame_that_names_an_image_and_lies_in_anothers_plane_is_refused(tmp_path: Path) -> None:
    of = loop((0.0, 5.0, 10.0))
    path = save(tmp_path / "s", drawn(of, [source(of, n) for n in (1, 2, 3)], (5.0, 0.0, 10.0)))
    assert "5.00 mm from its plane" in refused(lambda: read(path, of))


@pytest.mark.parametrize("number", [0, 4])
def test_a_frame_number_that_the_image_does_not_have_is_refused(
    tmp_path: Path, number: int
) -> None:
    of = loop()
    path = save(tmp_path / "s", drawn(of, [source(of, 1), source(of, 2), source(of, number)]))
    assert f"frame {number} of an image of 3" in refused(lambda: read(path, of))


def test_frames_that_name_all_images_of_their_series_go_where_they_lie_or_are_refused(
    tmp_path: Path,
) -> None:
    """Some writers list every source for every frame; each slice then had all outlines."""
    series = slices(noise(3, 16, 16))
    for one in series:
        one.FrameOfReferenceUID = uid("frame")
    found = segmentation({1: LOOP}, series)
    everything = Items([item(ReferencedSOPInstanceUID=one.SOPInstanceUID) for one in series])
    for group in found.PerFrameFunctionalGroupsSequence:
        group.DerivationImageSequence = Items([item(SourceImageSequence=everything)])
    path = save(tmp_path / "s", found)
    assert "several" not in refused(lambda: read(path, series[0]))
    found.FrameOfReferenceUID = uid("frame")
    save(path, found)
    for number, one in enumerate(series):
        assert np.array_equal(read(path, one), LOOP[number])


def test_frames_that_name_no_image_go_where_they_lie_among_the_images_of_a_row(
    tmp_path: Path,
) -> None:
    series = slices(noise(3, 16, 16))
    found = segmentation({1: LOOP}, series)
    for one in (*series, found):
        one.FrameOfReferenceUID = uid("frame")
    for group in found.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    path = save(tmp_path / "s", found)
    for number, one in enumerate(series):
        drawn = read_image_segmentation(path, read_header(one), 0, LESION, alone=False)
        assert np.array_equal(drawn, LOOP[number])
    del found.FrameOfReferenceUID
    save(path, found)
    for one in series:
        header = read_header(one)
        refused(lambda header=header: read_image_segmentation(path, header, 0, LESION, alone=False))


def test_several_frames_without_a_source_are_not_all_drawn_on_the_one_image(tmp_path: Path) -> None:
    of = image(noise(16, 16))
    found = segmentation({1: LOOP}, [of] * 3)
    for group in found.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    path = save(tmp_path / "s", found)
    assert "3 frames may be of one image" in refused(lambda: read(path, of))
    single = segmentation({1: LOOP[:1], 2: LOOP[1:2]}, [of])
    for group in single.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    assert np.array_equal(read(save(path, single), of), LOOP[0])


def test_a_source_in_a_second_derivation_counts(tmp_path: Path) -> None:
    first, second = image(noise(16, 16), number=1), image(noise(16, 16), number=2)
    found = segmentation({1: LOOP[:1]}, [first])
    group = found.PerFrameFunctionalGroupsSequence[0]
    group.DerivationImageSequence.append(source(second)[0])
    path = save(tmp_path / "s", found)
    for one in (first, second):
        assert np.array_equal(read(path, one), LOOP[0])


@pytest.mark.parametrize("kept", ["NO", "REORIENTED_ONLY"])
def test_a_frame_whose_pixels_lie_otherwise_than_its_images_is_refused(
    tmp_path: Path, kept: str
) -> None:
    of = image(noise(16, 16))
    found = segmentation({1: LOOP[:1]}, [of])
    named = found.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    named.SourceImageSequence[0].SpatialLocationsPreserved = kept
    assert kept in refused(lambda: read(save(tmp_path / "s", found), of))


def test_frames_without_groups_or_segment_are_not_taken_for_the_first_segments(
    tmp_path: Path,
) -> None:
    of = image(noise(16, 16))
    short = segmentation({1: LOOP[:1], 2: LOOP[1:2]}, [of])
    short.PerFrameFunctionalGroupsSequence = short.PerFrameFunctionalGroupsSequence[:1]
    nameless = segmentation({1: LOOP[:1], 2: LOOP[1:2]}, [of])
    del nameless.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence
    for dataset, said in ((short, "groups of 1"), (nameless, "frame 2 does not name its segment")):
        assert said in refused(lambda d=dataset: read(save(tmp_path / "s", d), of))
    only = segmentation({7: LOOP[:1]}, [of])
    del only.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence
    path = save(tmp_path / "s", only)
    found = read_image_segmentation(path, read_header(of), 0, {"lesion": (7,)})
    assert np.array_equal(found, LOOP[0])


def test_two_times_of_one_place_are_not_drawn_on_one_volume(tmp_path: Path) -> None:
    """A beating heart has two outlines at each place; together they are neither."""
    series, later = slices(noise(3, 16, 16)), slices(noise(3, 16, 16), series="2")
    moved = np.roll(LOOP, 3, axis=2)
    moved[:, :, :6] = 0
    found = segmentation({1: np.concatenate([LOOP, moved])}, [*series, *later])
    path = save(tmp_path / "s", found)
    for group, expected in ((series, LOOP), (later, moved)):
        _, geometry = stack_slices([(read_header(d), read_pixels(d)) for d in group])
        instances = frozenset(str(d.SOPInstanceUID) for d in group)
        drawn = read_segmentation(path, (3, 16, 16), geometry, LESION, instances=instances)
        assert np.array_equal(drawn, expected)
    assert "2 frames of segment 1 lie on slice 1" in refused(
        lambda: read_segmentation(path, (3, 16, 16), geometry, LESION)
    )


def test_a_cohort_of_loops_lists_outlines_of_no_frame(tmp_path: Path) -> None:
    """From the folder on: 32 pixels on each of three frames, or three refusals."""
    of = loop()
    config = config_of(
        "{kind: segmentation, structures: {lesion: [1]}}",
        "{images: {size: [16, 16]}, smallest_cohort: 1}",
        "unet",
    )
    for name, sources in (
        ("right", [source(of, n) for n in (1, 2, 3)]),
        ("wrong", [source(of)] * 3),
    ):
        site = tmp_path / name
        save(site / "loop.dcm", of)
        # A healthy patient beside, whom no one else's mask takes away.
        beside = image(noise(16, 16), "P2", "S2")
        save(site / "b.dcm", beside)
        save(site / "b-seg.dcm", segmentation({1: LOOP[:1]}, [beside]))
        save(site / "seg.dcm", drawn(of, sources))
        write_labels(
            site, [{"PatientID": "P1", "mask": "seg.dcm"}, {"PatientID": "P2", "mask": "b-seg.dcm"}]
        )
        cohort = load(site, config, tmp_path / f"{name}-cache")
        drawn_pixels = cohort.items.target.flatten(1).sum(1).tolist()
        assert drawn_pixels == ([32, 32, 32, 32] if name == "right" else [32])
        told = [p for p in cohort.unusable if p.reason is Reason.MASK_UNUSABLE]
        assert len(told) == (0 if name == "right" else 3)


def test_the_checks_turn_red_where_a_reference_to_all_is_taken_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault that was there once: no number, so frame 1."""
    own = source_frames._sources

    def first_for_all(dataset: Dataset, index: int) -> source_frames.Sources:
        return frozenset((instance, frame or 0) for instance, frame in own(dataset, index))

    of = loop()
    path = save(tmp_path / "s", segmentation({1: LOOP[:1]}, [of]))
    refused(lambda: read(path, of))
    monkeypatch.setattr(source_frames, "_sources", first_for_all)
    assert np.array_equal(read(path, of), LOOP[0])
