"""The verbs for small arrays, worked out once for each shape and dtype: one call of one kernel, in this thread."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import NDArray
from ..layout import Geometry, Layout
from . import Prepared, cuts
from .cuts import GRAIN, kernels


def prepared(layout: Layout, activation: Any = None) -> Prepared | None:
    """The verbs for arrays like that of a layout, C-contiguous; None for large ones and those taken in pieces."""
    window = layout.window()
    if window is None or window.geometry.size > GRAIN:
        return None
    g, act, seen_as = window.geometry, cuts.activation(activation), window.flat["x"].dtype
    moments = _moments_rows(g, seen_as) if g.rows else _moments_planes(g, seen_as)
    transform = _transform_rows(g, act, seen_as) if cuts.by_rows(g) else _transform_planes(g, act, seen_as)
    train = _train_rows(g, act, seen_as) if g.rows else _train_planes(g, act, seen_as)
    return Prepared(layout.order.channel_shape, float(g.outer * g.inner), moments, transform, train)


def _moments_rows(g: Geometry, seen_as: Any) -> Any:
    kernel, row = kernels("cpu_rows").moments, g.channels * g.inner
    pack, row_blocks, col_blocks = cuts.row_blocks(g)
    shape = (g.outer, g.channels, g.inner, pack, row_blocks, col_blocks, 0, row_blocks * col_blocks)

    def moments(x: NDArray) -> tuple[NDArray, NDArray]:
        parts = cuts.new_parts(row_blocks, g.channels, False, False)
        kernel(_flat(x, seen_as), row, *shape, None, parts)
        return _one(parts)

    return moments


def _moments_planes(g: Geometry, seen_as: Any) -> Any:
    kernel, plane = kernels("cpu_planes").moments, g.channels * g.inner
    blocks, outer_blocks, inner_blocks = cuts.plane_blocks(g)
    each = outer_blocks * inner_blocks
    shape = (g.outer, g.channels, g.inner, blocks, outer_blocks, inner_blocks, 0, blocks * each)

    def moments(x: NDArray) -> tuple[NDArray, NDArray]:
        parts = cuts.new_parts(each, g.channels, False, False)
        kernel(_flat(x, seen_as), plane, g.inner, *shape, None, parts)
        return _one(parts)

    return moments


def _one(parts: Any) -> tuple[NDArray, NDArray]:
    each, channels = parts[0].shape
    if each > 1:
        kernels("welford").merge_tree(parts, 0, channels)
    return parts[1][0], parts[2][0]


def _transform_rows(g: Geometry, act: Any, seen_as: Any) -> Any:
    kernel, row = kernels("cpu_rows").transform, g.channels * g.inner
    pack, row_blocks, col_blocks = cuts.written_row_blocks(g)
    shape = (g.outer, g.channels, g.inner, pack, row_blocks, col_blocks, 0, row_blocks * col_blocks)

    def transform(x: NDArray, out: NDArray, mean: NDArray, scale: NDArray, shift: NDArray | None) -> None:
        to = None if out is x else _flat(out, seen_as)
        kernel(_flat(x, seen_as), row, to, row, *shape, mean, scale, shift, None, 0, act)

    return transform


def _transform_planes(g: Geometry, act: Any, seen_as: Any) -> Any:
    kernel, plane, apart = kernels("cpu_planes").transform, g.channels * g.inner, g.inner
    shape = (g.channels, g.inner, 1, 0, g.outer * g.channels)

    def transform(x: NDArray, out: NDArray, mean: NDArray, scale: NDArray, shift: NDArray | None) -> None:
        to = None if out is x else _flat(out, seen_as)
        kernel(_flat(x, seen_as), plane, apart, to, plane, apart, *shape, mean, scale, shift, None, 0, 0, act)

    return transform


def _train_rows(g: Geometry, act: Any, seen_as: Any) -> Any:
    kernel = kernels("cpu_rows").train
    pack, row_blocks, col_blocks = cuts.row_blocks(g)
    shape = (g.outer, g.channels, g.inner, pack, row_blocks, col_blocks, *cuts.written_row_blocks(g)[1:], 0)

    def train(x: NDArray, out: NDArray, gamma: NDArray, beta: NDArray | None, eps: float) -> tuple[NDArray, NDArray]:
        to = None if out is x else _flat(out, seen_as)
        parts = cuts.new_parts(row_blocks, g.channels, False, False)
        kernel(_flat(x, seen_as), to, *shape, parts, gamma, beta, eps, act)
        return parts[1][0], parts[2][0]

    return train


def _train_planes(g: Geometry, act: Any, seen_as: Any) -> Any:
    kernel, plane, apart = kernels("cpu_planes").train, g.channels * g.inner, g.inner
    blocks, outer_blocks, inner_blocks = cuts.plane_blocks(g)
    shape = (g.outer, g.channels, g.inner, blocks, outer_blocks, inner_blocks, 0, blocks, None)

    def train(x: NDArray, out: NDArray, gamma: NDArray, beta: NDArray | None, eps: float) -> tuple[NDArray, NDArray]:
        to = None if out is x else _flat(out, seen_as)
        parts = cuts.new_parts(outer_blocks * inner_blocks, g.channels, False, False)
        shift = np.zeros(g.channels) if beta is None else beta
        kernel(_flat(x, seen_as), plane, apart, to, plane, apart, *shape, parts, gamma, shift, eps, None, 0, 0, act)
        return parts[1][0], parts[2][0]

    return train


def _flat(a: NDArray, seen_as: Any) -> NDArray:
    return a.reshape(-1) if seen_as is a.dtype else a.reshape(-1).view(seen_as)


def blended(known: tuple[NDArray, ...], n: float, mean: NDArray, m2: NDArray, free: float, f: float) -> NDArray | None:
    """The exponential average of (count, mean, var) after a batch, (3, channels), read-only; None if it is not finite.

    Takes (channels,) and numbers: `n` values of each channel, m2 over `free` degrees of freedom, the weight f.
    """
    new = np.empty((3, mean.size))
    return _read_only(new, kernels("learn").exponential(*known, n, mean, m2, free, f, new))


def joined(known: tuple[NDArray, ...], n: float, mean: NDArray, m2: NDArray, ddof: float) -> NDArray | None:
    """The same of the cumulative average: from (count, mean, M2), (4, channels) with count, mean, var and M2."""
    new = np.empty((4, mean.size))
    return _read_only(new, kernels("learn").cumulative(*known, n, mean, m2, ddof, new))


def folded(var: NDArray, gamma: NDArray | None, eps: float) -> NDArray | None:
    """What the deviation from the mean is multiplied by, (channels,); None if a variance is negative."""
    scale = np.empty(var.size)
    return scale if kernels("learn").fold(var, gamma, eps, scale) else None


def _read_only(new: NDArray, finite: bool) -> NDArray | None:
    new.flags.writeable = False
    return new if finite else None
