"""Scales and offsets in a row: batch renormalization, the adjustment, gamma and beta, folded where that can be."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import NDArray


def composed(
    scale: NDArray | None, offset: NDArray | None, then_scale: NDArray | None, then_offset: NDArray | None
) -> tuple[NDArray | None, NDArray | None]:
    """``(x * scale + offset) * then_scale + then_offset`` as one scale and one offset; None for 1 and for 0."""
    if then_scale is not None:
        scale = then_scale if scale is None else scale * then_scale
        offset = None if offset is None else offset * then_scale
    if then_offset is not None:
        offset = then_offset if offset is None else offset + then_offset
    return scale, offset


def adjusted(scale: Any, bias: Any, shape: tuple[int, ...], axis: int) -> tuple[NDArray, NDArray] | None:
    """What an adjustment gave, as one value for each channel; None if it varies along other axes too."""
    folded = []
    for name, value in (("scale", scale), ("bias", bias)):
        at = np.shape(value)
        try:
            fits = np.broadcast_shapes(at, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            for_channels = tuple(n if d == axis else 1 for d, n in enumerate(shape))
            raise ValueError(
                f"the {name} that `adjustment` gave has shape {at}, which does not broadcast to the shape {shape} of "
                f"`inputs`; one value for each channel has shape {for_channels}"
            )
        full = (1,) * (len(shape) - len(at)) + at
        if all(n == 1 for d, n in enumerate(full) if d != axis):
            folded.append(np.broadcast_to(np.asarray(value, dtype=np.float64).reshape(-1), (shape[axis],)))
    return (folded[0], folded[1]) if len(folded) == 2 else None
