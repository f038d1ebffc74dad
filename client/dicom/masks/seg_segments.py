"""A DICOM SEG's frames as structures, by the numbers of its segments (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from client.dicom.codec.compressed import Array
from client.dicom.masks.kept_mask import mask_dataset, mask_frames
from client.dicom.masks.lost_structures import check_kept
from client.dicom.masks.mask_remarks import Tell, tell_covered, unmatched
from client.dicom.reading.groups import group_item, text_of
from client.dicom.reading.read import SEGMENTATIONS
from client.dicom.reasons import Reason, UnusableFile

Labels = NDArray[np.uint8]  # 0 background, 1.. structures in the order of the configuration
Structures = Mapping[str, tuple[int, ...]]

_LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What the frames of a SEG draw, one over the other."""

    labels: Labels  # 1.. for each structure
    parts: Labels  # as labels, with the fractions below one half
    drawn: set[int]  # structures that are drawn at all, also under others

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Sheet:
        """Return an empty sheet."""
        return cls(labels=np.zeros(shape, np.uint8), parts=np.zeros(shape, np.uint8), drawn=set())

    def at(self, level: int) -> Sheet:
        """Return one slice, which is drawn on where it lies."""
        return Sheet(labels=self.labels[level], parts=self.parts[level], drawn=self.drawn)

    def draw(self, dataset: Dataset, index: int, frame: Array, structures: Structures) -> None:
        """Draw a frame.

        Later structures win, in whatever order the frames stand: a tumour lies inside its organ.
        """
        found = _numbered(dataset, index, frame, structures)
        np.maximum(self.labels, found, out=self.labels)
        self.drawn.update(np.unique(found[found > 0]).tolist())
        if _is_fractional(dataset):
            frame = np.where(frame > 0, _whole(dataset), 0)
            found = _numbered(dataset, index, frame, structures)
            np.maximum(self.parts, found, out=self.parts)

    def tell(self, structures: Structures, tell: Tell) -> None:
        """Tell of structures that others cover, and of parts that nowhere reach one half."""
        tell_covered(structures, self.drawn, self.labels, tell)
        told = check_kept(
            self.parts,
            structures,
            lambda parts: np.where(self.labels > 0, parts, 0),
            "the voxels of one half and more",
        )
        if told:
            tell(UnusableFile(Reason.MASK_CUT, told))


def unusable(error: Exception) -> UnusableFile:
    """Return the reason for whatever a SEG with missing or wrong attributes makes pydicom raise."""
    return UnusableFile(Reason.MASK_UNUSABLE, f"{type(error).__name__}: {error}"[:120])


def open_segmentation(path: Path, structures: Structures, tell: Tell) -> tuple[Dataset, Array]:
    """Return a SEG and its frames; MASK_MISSING or MASK_UNUSABLE where it is none for the run."""
    if not path.is_file():
        raise UnusableFile(Reason.MASK_MISSING, path.name)
    dataset = mask_dataset(path)
    if dataset.get("SOPClassUID") not in SEGMENTATIONS:
        raise UnusableFile(Reason.MASK_UNUSABLE, "not a DICOM segmentation")
    wanted = {value for values in structures.values() for value in values}
    try:
        held = {
            int(item.SegmentNumber): text_of(item, "SegmentLabel")
            for item in dataset.SegmentSequence
            if int(item.SegmentNumber)  # a label map may name its background, 0
        }
        _check_segments(wanted, set(held))
        if told := unmatched(structures, held):
            tell(UnusableFile(Reason.MASK_NAMES, told))
        frames = mask_frames(path)
        _check_groups(dataset, len(frames))
        _check_fractions(dataset, frames, wanted)
    except UnusableFile as problem:
        raise UnusableFile(Reason.MASK_UNUSABLE, problem.detail) from problem
    except Exception as error:
        raise unusable(error) from error
    return dataset, frames


def _check_groups(dataset: Dataset, count: int) -> None:
    """Refuse frames without groups of their own, which would be taken for what all share."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if own and len(own) != count:
        message = f"functional groups of {len(own)} frames, and {count} frames"
        raise UnusableFile(Reason.MASK_UNUSABLE, message)


def _check_segments(wanted: set[int], held: set[int]) -> None:
    if 0 not in wanted and not wanted & held:
        message = f"holds segments {sorted(held)}, the run wants {sorted(wanted)}"
        raise UnusableFile(Reason.MASK_UNUSABLE, message)


def _check_fractions(dataset: Dataset, frames: Array, wanted: set[int]) -> None:
    """Refuse a segment of which no voxel counts, though some are of it in part."""
    if not _is_fractional(dataset):
        return
    highest: dict[int, int] = {}
    for index, frame in enumerate(frames):
        number = _segment(dataset, index)
        highest[number] = max(highest.get(number, 0), int(frame.max()))
    for number, value in highest.items():
        if (number in wanted or 0 in wanted) and 0 < value * 2 < _whole(dataset):
            message = f"no voxel of segment {number} reaches one half ({value}/{_whole(dataset)})"
            raise UnusableFile(Reason.MASK_UNUSABLE, message)


def _is_fractional(dataset: Dataset) -> bool:
    return bool(
        dataset.SOPClassUID != _LABELMAP and dataset.get("SegmentationType") == "FRACTIONAL"
    )


def _numbered(dataset: Dataset, index: int, frame: Array, structures: Structures) -> Labels:
    """Return a frame's structures by number."""
    if dataset.SOPClassUID == _LABELMAP:
        # PS3.3 C.8.20.2.4: what pads a label map is background.
        segments = np.where(frame == dataset.get("PixelPaddingValue", 0), 0, frame)
    else:
        # PS3.3 C.8.20.2.3: of fractions, those from one half on.
        segments = np.where(frame * 2.0 >= _whole(dataset), _segment(dataset, index), 0)
    labels = np.zeros(frame.shape, np.uint8)
    for segment in np.unique(segments[segments > 0]):
        labels[segments == segment] = _number(int(segment), structures)
    return labels


def _segment(dataset: Dataset, index: int) -> int:
    """Return the segment of a frame; one that does not say it is of the only segment there is."""
    item = group_item(dataset, index, "SegmentIdentificationSequence")
    if item is not None:
        return int(item.ReferencedSegmentNumber)
    if len(dataset.SegmentSequence) > 1:
        raise UnusableFile(Reason.MASK_UNUSABLE, f"frame {index + 1} does not name its segment")
    return int(dataset.SegmentSequence[0].SegmentNumber)


def wanted_frames(dataset: Dataset, frames: Array, structures: Structures) -> dict[int, int]:
    """Return the segment of each frame that a structure is part of; 0 for those of a label map."""
    if dataset.SOPClassUID == _LABELMAP:
        return dict.fromkeys(range(len(frames)), 0)
    segments = {index: _segment(dataset, index) for index in range(len(frames))}
    return {index: one for index, one in segments.items() if _number(one, structures)}


def _whole(dataset: Dataset) -> int:
    """Return the value that stands for a voxel which is wholly of its segment."""
    if not _is_fractional(dataset):
        return 1
    return int(dataset.MaximumFractionalValue)  # whose absence makes the mask unusable


def _number(segment: int, structures: Structures) -> int:
    """Return the last structure that a segment is part of, from 1; 0 where it is of none."""
    return max(
        (k for k, wanted in enumerate(structures.values(), 1) if segment in wanted or 0 in wanted),
        default=0,
    )
