"""A network that was trained on patches, slid over a whole image."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

#: Part of a window that the next one covers too, along each axis.
OVERLAP = 0.5


def slid(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    patch: tuple[int, ...],
    overlap: float = OVERLAP,
) -> Tensor:
    """Return (1, outputs, *extent) of (1, channels, *extent): the windows' mean, by a Gaussian.

    The patch must be the one that the network was trained on: norms of the input's own statistics
    see another mean in another window. Where it is the whole image the network is asked once.
    """
    if tuple(image.shape[2:]) == tuple(patch):
        return network(image)
    from monai.inferers.utils import sliding_window_inference

    found = sliding_window_inference(
        image, patch, sw_batch_size=1, predictor=network, overlap=overlap, mode="gaussian"
    )
    assert isinstance(found, Tensor)  # noqa: S101 - of one output
    return found
