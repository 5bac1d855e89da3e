"""The verbs for small arrays, worked out once for each shape and dtype: one call of one kernel, in this thread."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import NDArray
from ..layout import Geometry, Layout
from . import Prepared, cuts
from .cuts import GRAIN


def prepared(layout: Layout, activation: Any = None) -> Prepared | None:
    """The verbs for arrays like that of a layout, C-contiguous; None for large ones and those taken in pieces."""
    window = layout.window()
    if window is None or window.geometry.size > GRAIN:
        return None
    g, act, seen_as = window.geometry, cuts.activation(activation), window.flat["x"].dtype
    moments = _moments_rows(g, seen_as) if g.rows else _moments_planes(g, seen_as)
    transform = _transform(g, act, seen_as)
    train = _train_rows(g, act, seen_as) if g.rows else _train_planes(g, act, seen_as)
    return Prepared(layout.order.channel_shape, float(g.outer * g.inner), moments, transform, train)


def _moments_rows(g: Geometry, seen_as: Any) -> Any:
    kernel, row = cuts.kernel("cpu_rows", "moments"), g.channels * g.inner
    pack, row_blocks, col_blocks = cuts.row_blocks(g)
    shape = (g.outer, g.channels, g.inner, pack, row_blocks, col_blocks)

    def moments(x: NDArray) -> tuple[NDArray, NDArray]:
        parts = _parts(row_blocks, g.channels)
        kernel(0, row_blocks * col_blocks, _flat(x, seen_as), row, *shape, None, cuts.flat_parts(parts), None)
        return _one(parts)

    return moments


def _moments_planes(g: Geometry, seen_as: Any) -> Any:
    kernel, plane = cuts.kernel("cpu_planes", "moments"), g.channels * g.inner
    blocks, outer_blocks, inner_blocks = cuts.plane_blocks(g)
    each = outer_blocks * inner_blocks
    shape = (g.outer, g.channels, g.inner, blocks, outer_blocks, inner_blocks)

    def moments(x: NDArray) -> tuple[NDArray, NDArray]:
        parts = _parts(each, g.channels)
        kernel(0, blocks * each, _flat(x, seen_as), plane, g.inner, *shape, None, cuts.flat_parts(parts), None)
        return _one(parts)

    return moments


def _one(parts: Any) -> tuple[NDArray, NDArray]:
    each, channels = parts[0].shape
    if each > 1:
        cuts.kernel("welford", "merge_tree")(cuts.flat_parts(parts), 0, channels)
    return parts[1][0], parts[2][0]


def _transform(g: Geometry, act: Any, seen_as: Any) -> Any:
    affine, row, inner = cuts.kernels("forms").Affine, g.channels * g.inner, g.inner
    if cuts.by_rows(g):
        pack, row_blocks, col_blocks = cuts.written_row_blocks(g)
        kernel, items = cuts.kernel("written", "rows"), row_blocks * col_blocks
        shape: tuple[int, ...] = (row, g.outer, g.channels, inner, pack, row_blocks, col_blocks)
    else:
        kernel, items = cuts.kernel("written", "planes"), g.outer * g.channels
        shape = (row, inner, g.channels, inner, 1)

    def transform(x: NDArray, out: NDArray, mean: NDArray, scale: NDArray, shift: NDArray | None) -> None:
        flat = _flat(x, seen_as)
        task = affine(flat, row, inner, mean, scale, shift, None, 0, 0, act)
        kernel(0, items, task, flat if out is x else _flat(out, seen_as), *shape)

    return transform


def _train_rows(g: Geometry, act: Any, seen_as: Any) -> Any:
    kernel = cuts.kernel("cpu_rows", "train")
    pack, row_blocks, col_blocks = cuts.row_blocks(g)
    shape = (g.outer, g.channels, g.inner, pack, row_blocks, col_blocks, *cuts.written_row_blocks(g)[1:])

    def train(x: NDArray, out: NDArray, gamma: NDArray, beta: NDArray | None, eps: float) -> tuple[NDArray, NDArray]:
        flat = _flat(x, seen_as)
        parts = _parts(row_blocks, g.channels)
        to = flat if out is x else _flat(out, seen_as)
        kernel(flat, to, *shape, cuts.flat_parts(parts), gamma, beta, eps, act)
        return parts[1][0], parts[2][0]

    return train


def _train_planes(g: Geometry, act: Any, seen_as: Any) -> Any:
    kernel, plane, apart = cuts.kernel("cpu_planes", "train"), g.channels * g.inner, g.inner
    blocks, outer_blocks, inner_blocks = cuts.plane_blocks(g)
    shape = (g.outer, g.channels, g.inner, blocks, outer_blocks, inner_blocks, None)

    def train(x: NDArray, out: NDArray, gamma: NDArray, beta: NDArray | None, eps: float) -> tuple[NDArray, NDArray]:
        flat = _flat(x, seen_as)
        to = flat if out is x else _flat(out, seen_as)
        parts = _parts(outer_blocks * inner_blocks, g.channels)
        arrays = (flat, plane, apart, to, plane, apart)
        kernel(0, blocks, *arrays, *shape, cuts.flat_parts(parts), gamma, beta, eps, None, 0, 0, act, None, None)
        return parts[1][0], parts[2][0]

    return train


def _parts(parts: int, channels: int) -> Any:
    """Parts that hold anything."""
    return (*np.empty((3, parts, channels)), None, None)


def _flat(a: NDArray, seen_as: Any) -> NDArray:
    return a.reshape(-1) if seen_as is a.dtype else a.reshape(-1).view(seen_as)


def blended(known: tuple[NDArray, ...], n: float, mean: NDArray, m2: NDArray, free: float, f: float) -> NDArray | None:
    """The exponential average of (count, mean, var) after a batch, (3, channels), read-only; None if it is not finite.

    Takes (channels,) and numbers: `n` values of each channel, m2 over `free` degrees of freedom, the weight f.
    """
    new = np.empty((3, mean.size))
    learn = cuts.kernel("learn", "exponential")
    return _read_only(new, learn(mean.size, *known, n, mean, m2, free, f, new.reshape(-1)))


def joined(known: tuple[NDArray, ...], n: float, mean: NDArray, m2: NDArray, ddof: float) -> NDArray | None:
    """The same of the cumulative average: from (count, mean, M2), (4, channels) with count, mean, var and M2."""
    new = np.empty((4, mean.size))
    learn = cuts.kernel("learn", "cumulative")
    return _read_only(new, learn(mean.size, *known, n, mean, m2, ddof, new.reshape(-1)))


def folded(var: NDArray, gamma: NDArray | None, eps: float) -> NDArray | None:
    """What the deviation from the mean is multiplied by, (channels,); None if a variance is negative."""
    scale = np.empty(var.size)
    return scale if cuts.kernel("learn", "fold")(var.size, var, gamma, eps, scale) else None


def _read_only(new: NDArray, finite: int) -> NDArray | None:
    new.flags.writeable = False
    return new if finite else None
