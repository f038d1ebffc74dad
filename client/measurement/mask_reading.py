"""What is drawn in one mask of a row, measured on the images that it was drawn on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.cohort.decode import Decoded, Object, pixels_of
from client.cohort.image import Image, measured_on
from client.cohort.image_masks import mask_path, mask_rules, read_structures
from client.cohort.images import volume_of
from client.dicom.masks.mask_remarks import Tell
from client.dicom.pixels.pixel_store import PixelStore
from client.dicom.reasons import Reason, UnusableFile
from client.labels.label_table import Labels
from client.measurement.drawn_on import Stack, stacks
from client.measurement.plan import MeasurePlan
from client.measurement.slice_outlines import slice_outlines
from client.radiomics.measured import MeasuredMask, each_measured
from client.radiomics.surface_mesh import Mask

_SHOWN = 60  # characters of a series' description in a message


@dataclass(frozen=True, kw_only=True)
class MaskReading:
    """Reads the masks of a site's rows."""

    site: Path
    plan: MeasurePlan
    labels: Labels
    store: PixelStore
    decoded: Decoded
    shared: frozenset[str]  # masks that do not say whose they are, and that several rows name

    def of(
        self, row: int, name: str, objects: Sequence[Object], named: frozenset[str], tell: Tell
    ) -> MeasuredMask:
        """Measure one mask of a row, of whose images these are; UnusableFile says why it cannot be.

        named: the instances that the mask says it was drawn on.
        """
        file = self.labels.rows[row][self.plan.columns[name]]
        path = mask_path(self.site, file)
        told: list[UnusableFile] = []
        stack, image, drawn = self._fitting(file, name, stacks(objects, named), told)
        if file in self.shared and any(mask.any() for mask in drawn.values()):
            message = "the table names this outline for several patients"
            raise UnusableFile(Reason.MASK_UNUSABLE, message)
        volume = measured_on(image, values=self.plan.intensities)
        if volume is None:
            raise UnusableFile(Reason.NO_GEOMETRY)
        structures = each_measured(drawn, volume)
        notices = [notice for one in structures for notice in one.notices]
        for problem in (*told, *notices):
            tell(problem)
        return MeasuredMask(
            name=name,
            mask=path,
            sources=tuple(sorted(self.site / item.path for item in stack)),
            structures=structures,
            numbers=self.plan.structures,
            outlines=slice_outlines(drawn, image, stack),
        )

    def _fitting(
        self, file: str, name: str, found: Sequence[Stack], told: list[UnusableFile]
    ) -> tuple[Stack, Image, Mapping[str, Mask]]:
        """Return the one stack that a mask fits, and what is drawn on it."""
        fits: list[tuple[Stack, Image, Mapping[str, Mask]]] = []
        faults: list[UnusableFile] = []
        rules = mask_rules(self.plan.structures, self.plan.columns[name], self.labels)
        for stack in found:
            notices: list[UnusableFile] = []
            try:
                image = self._image(stack)
                canvas = image.canvas(alone=True)
                drawn = read_structures(self.site, file, canvas, rules, notices.append)
            except UnusableFile as problem:
                faults.append(problem)
            else:
                fits.append((stack, image, drawn))
                told += notices
        if not fits:
            if len(found) == 1:
                raise faults[0]
            detail = f"it fits none of {len(found)} series, as the first: {faults[0].detail}"
            raise UnusableFile(faults[0].reason, detail)
        if len(fits) > 1:
            names = [stack[0].header.description or stack[0].header.series for stack, *_ in fits]
            detail = f"the mask fits {' and '.join(one[:_SHOWN] for one in names[:3])}"
            raise UnusableFile(Reason.AMBIGUOUS_SERIES, detail)
        return fits[0]

    def _image(self, stack: Stack) -> Image:
        pixels = [pixels_of(item, self.store) for item in stack]
        return volume_of(stack[0].header.series, stack, pixels, self.decoded)
