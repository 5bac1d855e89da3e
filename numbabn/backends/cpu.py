"""The verbs on the CPU: items for the kernels, cut by shape alone, run on the threads there are."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from ..arithmetic import inverse_std
from ..arrays import NDArray
from ..layout import Layout, Window, contiguous_window, scratch_order, window_over
from .threads import parallel_for

ITEMS = 128  # the most parts of one reduction, and so the most threads that share it
GRAIN = 131072  # values in an item at least: work that outweighs handing it out by far
NARROW = 128  # columns that several short rows fill together: full vectors, parameters that stay in L1
WIDE = 2048  # columns of a block of a longer row: accumulators that stay in L2, long sequential reads
FEW = 32  # a run of fewer values is normalized as part of a row, a longer one by itself
LONG = 8192  # values that a block of neighbouring planes has at least, and a block of a row to normalize at most
SPREAD = 8  # blocks of channels that are enough to keep all threads busy with whole channels
CACHED = 16 << 20  # bytes that one thread's channels may take for a second read to come from a cache

Moments = tuple[float, NDArray, NDArray]


@cache
def _kernels(name: str) -> Any:
    return importlib.import_module(f"numbabn.kernels.{name}")


def moments(layout: Layout) -> Moments:
    """(count, mean, M2) of each channel, in memory order; float64."""
    window = layout.window()
    if window is None:
        return _moments_of_pieces(layout)
    count, mean, m2 = _moments_parts(window, parallel_for)
    return _merged(count, mean, m2)


def transform(layout: Layout, mean: NDArray, scale: NDArray, shift: NDArray | None) -> None:
    """Write (x - mean) * scale + shift; the layout's arrays are (x, out), or (x,) for in place."""
    window = layout.window()
    if window is not None:
        _transform_window(window, mean, scale, shift, parallel_for)
        return
    pieces, channels = layout.pieces(), _channel_numbers(layout)

    def work(lo: int, hi: int) -> None:
        for box in pieces[lo:hi]:
            at = channels[_kept(layout, box)].reshape(-1)
            with _scratch(layout, box, written=True) as part:
                _transform_window(part, mean[at], scale[at], None if shift is None else shift[at], _here)

    parallel_for(work, len(pieces), small=layout.size <= GRAIN)


def train(layout: Layout, gamma: NDArray, beta: NDArray | None, eps: float) -> Moments:
    """Moments, then the transform by them, each channel while it is cached where that is possible."""
    alone = layout.input()
    window, x_window = layout.window(), alone.window()
    if window is not None and x_window is not None and window.geometry == x_window.geometry and not window.rows:
        blocks, _, _ = _plane_blocks(window)
        share = window.size // blocks * 2 * window.flat[0].itemsize
        if share <= CACHED and blocks >= SPREAD:
            return _train_planes(window, gamma, np.zeros(layout.channels) if beta is None else beta, eps)
    count, mean, m2 = moments(alone)
    transform(layout, mean, inverse_std(m2 / count, gamma, eps), beta)
    return count, mean, m2


def _here(body: Callable[[int, int], None], items: int, small: bool = False) -> None:
    body(0, items)


def _merged(count: NDArray, mean: NDArray, m2: NDArray) -> Moments:
    total = float(count.sum())
    if len(count) > 1:
        _kernels("welford").merge_tree(count, mean, m2)
    return total, mean[0], m2[0]


def _moments_parts(window: Window, run: Callable[..., None]) -> tuple[NDArray, NDArray, NDArray]:
    """Parts (count, mean, M2) of shapes (parts,), (parts, channels), (parts, channels)."""
    small = window.size <= GRAIN
    if window.rows:
        pack, row_blocks, col_blocks = _row_blocks(window)
        count = _sizes(window.outer, row_blocks) * float(window.inner)
        mean, m2 = np.empty((2, row_blocks, window.channels))
        kernel = _kernels("cpu_rows").moments
        x, stride = window.flat[0], window.outer_stride[0]
        shape = (window.outer, window.channels, window.inner, pack, row_blocks, col_blocks)
        run(lambda lo, hi: kernel(x, stride, *shape, lo, hi, mean, m2), row_blocks * col_blocks, small)
        return count, mean, m2
    blocks, outer_blocks, inner_blocks = _plane_blocks(window)
    parts = outer_blocks * inner_blocks
    mean, m2 = np.empty((2, parts, window.channels))
    kernel = _kernels("cpu_planes").moments
    where = (window.flat[0], window.outer_stride[0], window.channel_stride[0])
    shape3 = (window.outer, window.channels, window.inner, blocks, outer_blocks, inner_blocks)
    run(lambda lo, hi: kernel(*where, *shape3, lo, hi, mean, m2), blocks * parts, small)
    return _plane_counts(window, outer_blocks, inner_blocks), mean, m2


def _transform_window(
    window: Window, mean: NDArray, scale: NDArray, shift: NDArray | None, run: Callable[..., None]
) -> None:
    small = window.size <= GRAIN // 4
    if window.rows and window.inner < FEW:
        pack, row_blocks, col_blocks = _row_blocks(window, LONG)
        kernel = _kernels("cpu_rows").transform
        x, out = _ends(window.flat)
        strides = window.outer_stride
        shape = (window.outer, window.channels, window.inner, pack, row_blocks, col_blocks)
        items = row_blocks * col_blocks
        # Backwards: what a pass over x has just left in the cache comes first.
        run(
            lambda lo, hi: kernel(x, strides[0], out, strides[-1], *shape, items - hi, items - lo, mean, scale, shift),
            items,
            small,
        )
        return
    inner_blocks = max(1, window.inner // GRAIN)
    kernel = _kernels("cpu_planes").transform
    x, out = _ends(window.flat)
    o, c = window.outer_stride, window.channel_stride
    where = (x, o[0], c[0], out, o[-1], c[-1], window.channels, window.inner, inner_blocks)
    items = window.outer * window.channels * inner_blocks
    run(lambda lo, hi: kernel(*where, items - hi, items - lo, mean, scale, shift), items, small)


def _train_planes(window: Window, gamma: NDArray, beta: NDArray, eps: float) -> Moments:
    blocks, outer_blocks, inner_blocks = _plane_blocks(window)
    count = _plane_counts(window, outer_blocks, inner_blocks)
    mean, m2 = np.empty((2, len(count), window.channels))
    kernel = _kernels("cpu_planes").train
    x, out = _ends(window.flat)
    o, c = window.outer_stride, window.channel_stride
    where = (x, o[0], c[0], out, o[-1], c[-1])
    shape = (window.outer, window.channels, window.inner, blocks, outer_blocks, inner_blocks)
    parallel_for(
        lambda lo, hi: kernel(*where, *shape, lo, hi, count, mean, m2, gamma, beta, eps),
        blocks,
        small=window.size <= GRAIN // 4,
    )
    return float(count.sum()), mean[0], m2[0]


def _row_blocks(window: Window, wide: int = WIDE) -> tuple[int, int, int]:
    """(rows packed into one, blocks of rows, blocks of columns)."""
    row = window.channels * window.inner
    contiguous = all(s == row for s in window.outer_stride)
    pack = max(1, min(NARROW // row, window.outer)) if contiguous else 1
    col_blocks = min(window.channels, -(-row // wide))
    wanted = min(ITEMS, max(1, window.size // GRAIN))
    row_blocks = max(1, min(-(-wanted // col_blocks), window.outer // (8 * pack)))
    return pack, row_blocks, col_blocks


def _plane_blocks(window: Window) -> tuple[int, int, int]:
    """(blocks of channels, blocks of outers, blocks of the run)."""
    together = min(window.channels, -(-LONG // window.inner))
    blocks = -(-window.channels // together)
    wanted = min(-(-ITEMS // blocks), max(1, window.size // GRAIN // blocks))
    outer_blocks = min(window.outer, wanted)
    inner_blocks = max(1, min(wanted // outer_blocks, window.inner // LONG))
    return blocks, outer_blocks, inner_blocks


def _plane_counts(window: Window, outer_blocks: int, inner_blocks: int) -> NDArray:
    sizes = _sizes(window.outer, outer_blocks)[:, None] * _sizes(window.inner, inner_blocks)
    return sizes.reshape(-1).astype(np.float64)


def _sizes(n: int, blocks: int) -> NDArray:
    return np.diff(np.arange(blocks + 1) * n // blocks)


def _ends(flat: tuple[NDArray, ...]) -> tuple[NDArray, NDArray | None]:
    return flat[0], flat[1] if len(flat) > 1 else None


def _moments_of_pieces(layout: Layout) -> Moments:
    """Moments where the array is no one window: groups of pieces, each merged in order, then the groups."""
    pieces, channels = layout.pieces(), _channel_numbers(layout)
    groups = min(len(pieces), ITEMS if layout.channels <= WIDE else 8)
    count, mean, m2 = np.zeros((3, groups, layout.channels))
    merge_at = _kernels("welford").merge_at

    def work(lo: int, hi: int) -> None:
        for g in range(lo, hi):
            for box in pieces[len(pieces) * g // groups : len(pieces) * (g + 1) // groups]:
                at = channels[_kept(layout, box)].reshape(-1)
                with _scratch(layout, box, written=False) as window:
                    part_count, part_mean, part_m2 = _merged(*_moments_parts(window, _here))
                merge_at(count[g], mean[g], m2[g], at, np.full(at.size, part_count), part_mean, part_m2)

    parallel_for(work, groups, small=layout.size <= GRAIN)
    for g in range(1, groups):
        merge_at(count[0], mean[0], m2[0], channels.reshape(-1), count[g], mean[g], m2[g])
    return layout.size / layout.channels, mean[0], m2[0]


@contextlib.contextmanager
def _scratch(layout: Layout, box: tuple[slice, ...], written: bool) -> Iterator[Window]:
    """A window over a box of the arrays: their own memory, or a contiguous copy, copied back if written."""
    views = tuple(a[box] for a in layout.arrays)
    window = window_over(views, layout.kept)
    if window is not None:
        yield window
        return
    order = scratch_order(layout.kept)
    views = tuple(v.transpose(order) for v in views)
    copies = tuple(np.empty(v.shape, v.dtype.newbyteorder("=")) for v in views)
    np.copyto(copies[0], views[0])
    yield contiguous_window(copies, tuple(layout.kept[d] for d in order))
    if written:
        np.copyto(views[-1], copies[-1])


def _channel_numbers(layout: Layout) -> NDArray:
    """0, 1, ... in the shape of the channel axes, in memory order."""
    shape = (n for n, k in zip(layout.arrays[0].shape, layout.kept, strict=True) if k)
    return np.arange(layout.channels).reshape(tuple(shape))


def _kept(layout: Layout, box: tuple[slice, ...]) -> tuple[slice, ...]:
    """The part of a box that lies along the channel axes."""
    return tuple(s for s, k in zip(box, layout.kept, strict=True) if k)
