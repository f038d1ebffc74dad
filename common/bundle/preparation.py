"""From an image's values to the network's input, as a program without Wardround.

TorchScript, so that others prepare their images exactly as the sites did: what MONAI's own
transforms do when they shrink an image (a Gaussian, then a sample) is not what the model saw.
`common.data.preprocessing` is the original; a test holds that both give the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config.run_config import Images

#: Largest values that the percentiles are taken over, as in `common.data.intensity`.
_SAMPLE = 1 << 16
#: Voxels of one image beyond which resampling is refused, as there.
_LARGEST = 1 << 28


class Preparation(nn.Module):
    """Turn an image as MONAI loads it into an input, and an output into labels on its grid.

    Only what TorchScript takes is used here: lists, numbers, tensors, no types of ours.
    """

    def __init__(self, rules: Images) -> None:
        super().__init__()
        self.size = list(rules.size)
        self.channels: int = rules.input_channels
        #: Each channel is a series of its own, all on the grid of one of them.
        self.apart: bool = len(rules.series) > 1
        #: Each channel is a picture of its own time, all of them on one scale of grey.
        phased = rules.time is not None and rules.time.form != "items"
        self.phases: int = (rules.time.frames or 0) if rules.time is not None and phased else 0
        self.difference: bool = rules.time is not None and rules.time.form == "difference"
        self.fit: str = "patch" if rules.patch is not None else rules.fit
        self.spacing = [] if rules.spacing is None else list(rules.spacing)
        self.resamples = rules.spacing is not None
        self.intensity: str = rules.intensity
        self.low, self.high = rules.window or (0.0, 1.0)
        if not self.spacing:
            self.spacing = [1.0] * len(self.size)

    def forward(self, image: Tensor, spacing: list[float]) -> Tensor:
        """Return (channels, *size) of (1 or 3, columns, rows[, slices]).

        Where the model takes several series, of (series, ...) in the order of its channels; one
        that is not there is zeros. Where it takes several times, of (times, ...) in their order.

        `spacing` is in mm by column, row and slice; an empty list where it is unknown. In 2-D the
        ratio of the two alone counts.
        """
        given = self.turned(image.to(torch.float32))
        if self.apart:
            values = self.by_series(given)
        elif self.phases > 0:
            values = self.scaled(self.counted(given))
        else:
            values = self.scaled(self.coloured(given))
        across = self.reversed_spacing(spacing)
        shape = self.resampled_shape(list(values.shape[1:]), across)
        found = self.fitted(self.resized(values, shape), across)
        if self.difference:
            found = found[1:] - found[:1]
            if self.intensity != "zscore":
                found = found / 2 + 0.5
        return found

    def counted(self, image: Tensor) -> Tensor:
        """Return the image, which has a channel for each time."""
        if image.shape[0] != self.phases:
            raise ValueError("Expected one channel for each time, in their order.")
        return image

    @torch.jit.export
    def restore(self, output: Tensor, shape: list[int], spacing: list[float]) -> Tensor:
        """Return labels (1, columns, rows[, slices]) of an output (labels, *size).

        `shape` is that of the grid that was given, as MONAI has it: columns, rows[, slices]. As
        `wardround-site predict` does: probabilities are brought back and the largest wins, so that
        outlines are finer than the network's grid; what the network did not see is background.
        """
        source = [shape[len(shape) - 1 - axis] for axis in range(len(shape))]
        across = self.reversed_spacing(spacing)
        inner = self.resampled_shape(source, across)
        if self.fit == "letterbox":
            inner = self.inner_shape(inner, across)
        elif self.fit == "stretch":
            inner = self.size
        probability = output.to(torch.float32).softmax(0)
        best = self.resized(self.centred(probability[:1], inner), source)
        labels = torch.zeros_like(best, dtype=torch.uint8)
        for number in range(1, probability.shape[0]):
            # One label at a time: all of them on a large CT's own grid would fill the memory.
            found = self.resized(self.centred(probability[number : number + 1], inner), source)
            labels[found > best] = number
            best = torch.maximum(best, found)
        return self.turned(labels)

    def reversed_spacing(self, spacing: list[float]) -> list[float]:
        """Return the spacing by slice, row and column."""
        return [spacing[len(spacing) - 1 - axis] for axis in range(len(spacing))]

    def turned(self, image: Tensor) -> Tensor:
        """Return (channels, *) with the spatial axes in reverse order."""
        if image.dim() == 4:
            return image.permute(0, 3, 2, 1).contiguous()
        return image.permute(0, 2, 1).contiguous()

    def coloured(self, image: Tensor) -> Tensor:
        """Return (channels, *): grey where one is wanted, grey repeated where three are."""
        if image.shape[0] == 3:
            if self.channels == 3:
                return image
            # Rec. 601 weights of red, green and blue.
            image = (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2])[None]
        shape = [self.channels] + list(image.shape[1:])  # noqa: RUF005 - TorchScript has no *
        return image.expand(shape).contiguous()

    def by_series(self, image: Tensor) -> Tensor:
        """Return (channels, *), each with its grey values scaled by itself."""
        if image.shape[0] != self.channels:
            raise ValueError("Expected one channel for each series, in the order of the model.")
        found: list[Tensor] = []
        for number in range(self.channels):
            channel = image[number : number + 1]
            absent = bool((channel == 0).all())
            found.append(channel if absent else self.scaled(channel))
        return torch.cat(found)

    def scaled(self, image: Tensor) -> Tensor:
        """Return the image with its grey values scaled as the sites scale them."""
        if self.intensity == "zscore":
            return (image - image.mean()) / image.std().clamp_min(1e-6)
        if self.intensity == "window":
            return ((image - self.low) / (self.high - self.low)).clamp(0, 1)
        flat = image.flatten()
        step = max(1, flat.shape[0] // 65536)
        ordered = flat[::step].sort()[0].to(torch.float64)
        low = self.percentile(ordered, 0.01)
        high = self.percentile(ordered, 0.99)
        return ((image - low) / max(high - low, 1e-6)).clamp(0, 1)

    def percentile(self, ordered: Tensor, part: float) -> float:
        """Return the value below which this part lies, linear between two neighbours."""
        place = part * float(ordered.shape[0] - 1)
        below = int(place)
        above = min(below + 1, ordered.shape[0] - 1)
        first, second = float(ordered[below]), float(ordered[above])
        return first + (second - first) * (place - float(below))

    def resampled_shape(self, shape: list[int], spacing: list[float]) -> list[int]:
        """Return the shape at the configured spacing, or that of square pixels to crop."""
        if len(spacing) != len(shape):
            return shape
        cropped = len(shape) == 2 and self.fit == "crop"
        if not self.resamples and not cropped:
            return shape
        tall = self.aspect(spacing)
        square = [max(tall, 1.0), max(1.0 / tall, 1.0)]
        found: list[int] = []
        voxels = 1
        for axis in range(len(shape)):
            wanted = shape[axis] * spacing[axis] / self.spacing[axis]
            if cropped:
                wanted = shape[axis] * square[axis]
            # By parts of a voxel first, as the sites do. TorchScript's round gives a float.
            length = max(1, int(round(round(wanted * 1e4) / 1e4)))  # noqa: RUF046
            voxels = voxels * length
            found.append(length)
        if voxels > 268435456:
            raise ValueError("Expected at most 268435456 voxels at even spacing.")
        return found

    def aspect(self, spacing: list[float]) -> float:
        """Return the height of a pixel over its width; 1 in 3-D and where rounding differs."""
        if len(spacing) != 2 or min(spacing[0], spacing[1]) <= 0.0:
            return 1.0
        found = spacing[0] / spacing[1]
        return found if abs(found - 1.0) > 1e-3 else 1.0

    def inner_shape(self, shape: list[int], spacing: list[float]) -> list[int]:
        """Return what of the input a letterboxed image fills."""
        lengths = [float(length) for length in shape]
        if len(shape) == 2:
            lengths[0] = lengths[0] * self.aspect(spacing)
        ratio = float(self.size[0]) / lengths[0]
        for axis in range(len(shape)):
            ratio = min(ratio, float(self.size[axis]) / lengths[axis])
        return [
            min(self.size[axis], max(1, int(round(lengths[axis] * ratio))))  # noqa: RUF046
            for axis in range(len(shape))
        ]

    def fitted(self, image: Tensor, spacing: list[float]) -> Tensor:
        """Bring (channels, *any) to (channels, *size) by the configured way."""
        if self.fit == "letterbox":
            inner = self.inner_shape(list(image.shape[1:]), spacing)
            return self.centred(self.resized(image, inner), self.size)
        if self.fit == "crop":
            return self.centred(image, self.size)
        if self.fit == "patch":
            own = [max(image.shape[axis + 1], side) for axis, side in enumerate(self.size)]
            return self.centred(image, own)
        return self.resized(image, self.size)

    def resized(self, image: Tensor, shape: list[int]) -> Tensor:
        """Resample (channels, *any) to (channels, *shape); shrinking is smoothed first."""
        if list(image.shape[1:]) == shape:
            return image
        if len(shape) == 2:
            return F.interpolate(image[None], shape, mode="bilinear", antialias=True)[0]
        planes = F.interpolate(
            image.flatten(0, 1)[:, None], shape[1:], mode="bilinear", antialias=True
        ).reshape([image.shape[0], image.shape[1], -1])
        return F.interpolate(
            planes[:, None], [shape[0], planes.shape[2]], mode="bilinear", antialias=True
        ).reshape([image.shape[0]] + shape)  # noqa: RUF005

    def centred(self, image: Tensor, shape: list[int]) -> Tensor:
        """Centre (channels, *any) in (channels, *shape), with zeros around it."""
        for axis in range(len(shape)):
            excess = image.shape[axis + 1] - shape[axis]
            if excess > 0:
                image = image.narrow(axis + 1, excess // 2, shape[axis])
        pads: list[int] = []
        for place in range(len(shape)):
            axis = len(shape) - 1 - place
            lack = shape[axis] - image.shape[axis + 1]
            pads.append(lack // 2)
            pads.append(lack - lack // 2)
        return F.pad(image, pads)
