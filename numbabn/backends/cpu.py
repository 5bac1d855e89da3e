"""The verbs on the CPU: items for the kernels, cut by shape alone, run on the threads there are."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arithmetic import batch_scale
from ..arrays import NDArray, kernel_ready
from ..layout import Layout, Window
from . import cuts
from .cuts import GRAIN, SMALL, kernels
from .gradients import grad_inputs, grad_sums
from .ready import prepared
from .scratch import Run, channel_numbers, groups_of, here, kept_of, scratch
from .threads import parallel_for

__all__ = ["grad_inputs", "grad_sums", "moments", "prepared", "train", "transform", "usable_weights"]

Parts = tuple[NDArray, NDArray, NDArray, NDArray | None, NDArray | None]


def moments(layout: Layout, omit: bool = False, higher: bool = False, extremes: bool = False) -> Parts:
    """(count, mean, M2) of each channel, in memory order, and (M3, M4), (min, max, non-finite) or None; float64."""
    return _moments(layout, layout.window(), omit, higher, extremes)


def transform(layout: Layout, mean: NDArray, scale: NDArray, shift: NDArray | None, activation: Any = None) -> None:
    """Write activation((x - mean) * scale + shift + residual) into "out", or into "x" where there is no "out"."""
    _transform(layout, layout.window(), mean, scale, shift, activation)


def train(
    layout: Layout, gamma: NDArray, beta: NDArray | None, eps: float, omit: bool = False, activation: Any = None
) -> Parts:
    """Moments, then the transform by them, each channel while it is cached where that is possible."""
    alone = layout if len(layout.arrays) == 1 else layout.input()
    window = layout.window()
    x_window = window if alone is layout else alone.window()
    if window is not None and x_window is not None and not window.geometry.rows:
        same_cut = window.geometry.shared == x_window.geometry.shared
        if same_cut and cuts.trained_while_cached(window):
            shift = np.zeros(layout.channels) if beta is None else beta
            return _train_planes(window, gamma, shift, eps, omit, activation)
    parts = _moments(alone, x_window, omit, False, False)
    scale = batch_scale(parts[0], parts[2], gamma, eps)
    unpicked = layout.unpicked()
    _transform(unpicked, window if unpicked is layout else unpicked.window(), parts[1], scale, beta, activation)
    return parts


def usable_weights(flat: NDArray) -> bool:
    """Whether all of a contiguous array is finite and not negative; the array is read once, by all threads."""
    usable, weights, found = kernels("weights").usable, kernel_ready(flat), []
    parallel_for(
        lambda lo, hi: found.append(usable(weights, lo * GRAIN, min(hi * GRAIN, flat.size))),
        -(-flat.size // GRAIN),
        small=flat.size <= SMALL,
    )
    return all(found)


def _moments(layout: Layout, window: Window | None, omit: bool, higher: bool, extremes: bool) -> Parts:
    if window is None:
        return _first(_moments_of_pieces(layout, omit, higher, extremes))
    return _merged(_moments_parts(window, omit, higher, extremes, parallel_for))


def _transform(
    layout: Layout, window: Window | None, mean: NDArray, scale: NDArray, shift: NDArray | None, activation: Any
) -> None:
    if window is not None:
        _transform_window(window, mean, scale, shift, activation, parallel_for)
        return
    pieces, channels = layout.pieces(), channel_numbers(layout)
    written = ("out",) if "out" in layout.arrays else ("x",)

    def work(lo: int, hi: int) -> None:
        for box in pieces[lo:hi]:
            at = channels[kept_of(layout, box)].reshape(-1)
            with scratch(layout, box, written) as part:
                _transform_window(part, mean[at], scale[at], None if shift is None else shift[at], activation, here)

    parallel_for(work, len(pieces), small=layout.size <= SMALL)


def _merged(parts: Parts) -> Parts:
    each, channels = parts[0].shape
    if each > 1:
        merge = kernels("welford").merge_tree
        blocks = max(1, min(cuts.ITEMS, each * channels // cuts.MERGES))
        parallel_for(
            lambda lo, hi: merge(parts, channels * lo // blocks, channels * hi // blocks), blocks, small=blocks == 1
        )
    return _first(parts)


def _first(parts: Parts) -> Parts:
    count, mean, m2, higher, extremes = parts
    return (
        count[0],
        mean[0],
        m2[0],
        None if higher is None else higher[:, 0],
        None if extremes is None else extremes[:, 0],
    )


def _moments_parts(window: Window, omit: bool, higher: bool, extremes: bool, run: Run) -> Parts:
    g = window.geometry
    small = g.size <= SMALL
    x, outer_stride, channel_stride = window.of("x")
    if g.rows:
        pack, row_blocks, col_blocks = cuts.row_blocks(g)
        parts = cuts.new_parts(row_blocks, g.channels, higher, extremes)
        pick = cuts.pick_of_rows(window, pack, omit)
        kernel = kernels("cpu_rows").moments
        shape = (g.outer, g.channels, g.inner, pack, row_blocks, col_blocks)
        run(lambda lo, hi: kernel(x, outer_stride, *shape, lo, hi, pick, parts), row_blocks * col_blocks, small)
        return parts
    blocks, outer_blocks, inner_blocks = cuts.plane_blocks(g)
    each = outer_blocks * inner_blocks
    parts = cuts.new_parts(each, g.channels, higher, extremes)
    pick = cuts.pick_of_planes(window, omit)
    kernel = kernels("cpu_planes").moments
    shape = (g.outer, g.channels, g.inner, blocks, outer_blocks, inner_blocks)
    run(lambda lo, hi: kernel(x, outer_stride, channel_stride, *shape, lo, hi, pick, parts), blocks * each, small)
    return parts


def _transform_window(
    window: Window, mean: NDArray, scale: NDArray, shift: NDArray | None, activation: Any, run: Run
) -> None:
    g = window.geometry
    small = g.size <= SMALL
    x, x_outer, x_channel = window.of("x")
    out, out_outer, out_channel = window.of("out")
    other, outer, channel = window.of("residual")
    act = cuts.activation(activation)
    if cuts.by_rows(g):
        pack, row_blocks, col_blocks = cuts.written_row_blocks(g)
        kernel = kernels("cpu_rows").transform
        shape = (g.outer, g.channels, g.inner, pack, row_blocks, col_blocks)
        items = row_blocks * col_blocks
        rest = (mean, scale, shift, other, outer, act)
        # Backwards: what a pass over x has just left in the cache comes first.
        run(
            lambda lo, hi: kernel(x, x_outer, out, out_outer, *shape, items - hi, items - lo, *rest),
            items,
            small,
        )
        return
    inner_blocks = max(1, g.inner // GRAIN)
    kernel = kernels("cpu_planes").transform
    where = (x, x_outer, x_channel, out, out_outer, out_channel, g.channels, g.inner, inner_blocks)
    items = g.outer * g.channels * inner_blocks
    last = (mean, scale, shift, other, outer, channel, act)
    run(lambda lo, hi: kernel(*where, items - hi, items - lo, *last), items, small)


def _train_planes(window: Window, gamma: NDArray, beta: NDArray, eps: float, omit: bool, activation: Any) -> Parts:
    g = window.geometry
    blocks, outer_blocks, inner_blocks = cuts.plane_blocks(g)
    parts = cuts.new_parts(outer_blocks * inner_blocks, g.channels, False, False)
    kernel = kernels("cpu_planes").train
    where = (*window.of("x"), *window.of("out"))
    shape = (g.outer, g.channels, g.inner, blocks, outer_blocks, inner_blocks)
    rest = (cuts.pick_of_planes(window, omit), parts, gamma, beta, eps)
    last = (*window.of("residual"), cuts.activation(activation))
    parallel_for(lambda lo, hi: kernel(*where, *shape, lo, hi, *rest, *last), blocks, small=g.size <= SMALL)
    return _first(parts)


def _moments_of_pieces(layout: Layout, omit: bool, higher: bool, extremes: bool) -> Parts:
    """Moments where the array is no one window: groups of pieces, each merged in order, then the groups."""
    pieces, channels = layout.pieces(), channel_numbers(layout)
    groups = groups_of(layout, len(pieces))
    parts = cuts.new_parts(groups, layout.channels, higher, extremes)
    merge_at = kernels("welford").merge_at

    def work(lo: int, hi: int) -> None:
        for g in range(lo, hi):
            for box in pieces[len(pieces) * g // groups : len(pieces) * (g + 1) // groups]:
                at = channels[kept_of(layout, box)].reshape(-1)
                with scratch(layout, box) as window:
                    part = _moments_parts(window, omit, higher, extremes, here)
                    if len(part[0]) > 1:
                        kernels("welford").merge_tree(part, 0, at.size)
                merge_at(parts, g, at, part)

    parallel_for(work, groups, small=layout.size <= SMALL)
    everything = np.arange(layout.channels)
    for g in range(1, groups):
        merge_at(parts, 0, everything, tuple(None if p is None else p[..., g : g + 1, :].copy() for p in parts))
    return parts
