"""The verbs on the CPU: items for the kernels, cut by shape alone, run on the threads there are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arithmetic import batch_scale
from ..arrays import NDArray
from ..geometry import Window
from ..layout import Layout
from . import cuts, weighing
from .cuts import SMALL
from .gradients import grad_inputs, grad_sums
from .passes import measuring, merging, parts_of, training
from .scratch import Run, channel_numbers, groups_of, here, kept_of, scratch
from .threads import parallel_for
from .written import goes_past, write

__all__ = ["grad_inputs", "grad_sums", "moments", "train", "transform"]

Parts = tuple[NDArray, NDArray, NDArray, NDArray | None, NDArray | None]


def moments(
    layout: Layout,
    omit: bool = False,
    higher: bool = False,
    extremes: bool = False,
    unseen: NDArray | None = None,
) -> Parts:
    """(count, mean, M2) of each channel, in memory order, and (M3, M4), (min, max, non-finite) or None; float64.

    unseen: the weights, contiguous, if nobody has looked yet whether they can be used.
    """
    return _moments(layout, layout.window(nested=True), omit, higher, extremes, unseen)


def transform(layout: Layout, mean: NDArray, scale: NDArray, shift: NDArray | None, activation: Any = None) -> None:
    """Write activation((x - mean) * scale + shift + residual) into "out", or into "x" where there is no "out"."""
    _transform(layout, layout.window(), mean, scale, shift, activation)


def train(
    layout: Layout, gamma: NDArray, beta: NDArray | None, eps: float, omit: bool = False, activation: Any = None
) -> Parts:
    """Moments, then the transform by them, each channel while it is cached where that is possible."""
    alone = layout if len(layout.arrays) == 1 else layout.input()
    window = layout.window(nested=True)
    x_window = window if alone is layout else alone.window(nested=True)
    if window is not None and x_window is not None and not window.geometry.rows:
        same_cut = window.geometry.shared == x_window.geometry.shared
        if same_cut and cuts.trained_while_cached(window):
            return _train_planes(window, gamma, beta, eps, omit, activation)
    parts = _moments(alone, x_window, omit, False, False)
    scale = batch_scale(parts[0], parts[2], gamma, eps)
    unpicked = layout.unpicked()
    _transform(unpicked, window if unpicked is layout else unpicked.window(), parts[1], scale, beta, activation)
    return parts


def _moments(
    layout: Layout,
    window: Window | None,
    omit: bool,
    higher: bool,
    extremes: bool,
    unseen: NDArray | None = None,
) -> Parts:
    if window is None:
        if unseen is not None:
            weighing.look_through(unseen)
        return _first(_moments_of_pieces(layout, omit, higher, extremes))
    run = parallel_for if unseen is None else weighing.looking(unseen, window.geometry)
    with _moments_parts(window, omit, higher, extremes, run) as parts:
        return _merged(parts)


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
        kernel, args, items = merging(cuts.flat_parts(parts))
        parallel_for(kernel.over(*args), items, small=each * channels < 2 * cuts.MERGES)
    return _first(parts)


def _first(parts: Parts) -> Parts:
    count, mean, m2, higher, extremes = parts
    return (
        count[0].copy(),
        mean[0].copy(),
        m2[0].copy(),
        None if higher is None else higher[:, 0].copy(),
        None if extremes is None else extremes[:, 0].copy(),
    )


@contextlib.contextmanager
def _moments_parts(window: Window, omit: bool, higher: bool, extremes: bool, run: Run) -> Iterator[Parts]:
    """The moments of parts of a window, in memory that is given back."""
    g = window.geometry
    with cuts.borrowed_parts(parts_of(g), g.channels, higher, extremes) as parts:
        kernel, args, items = measuring(window, cuts.flat_parts(parts), omit)
        run(kernel.over(*args), items, g.size <= SMALL)
        yield parts


def _transform_window(
    window: Window, mean: NDArray, scale: NDArray, shift: NDArray | None, activation: Any, run: Run
) -> None:
    act = cuts.activation(activation)
    task = cuts.kernels("forms").Affine(*window.of("x"), mean, scale, _added(shift, mean), *window.of("residual"), act)
    write(window, task, "out" if "out" in window.flat else "x", run)


def _added(shift: NDArray | None, like: NDArray) -> NDArray:
    """What is added in each channel; -0, which changes nothing, not even the sign of a zero, for a kernel less."""
    return np.full(like.size, -0.0) if shift is None else shift


def _train_planes(
    window: Window, gamma: NDArray, beta: NDArray | None, eps: float, omit: bool, activation: Any
) -> Parts:
    g, into = window.geometry, "out" if "out" in window.flat else "x"
    act, past = cuts.activation(activation), goes_past(window, into)
    with cuts.borrowed_parts(parts_of(g), g.channels, False, False) as parts:
        flat = cuts.flat_parts(parts)
        kernel, args, items = training(window, into, flat, gamma, _added(beta, gamma), eps, act, omit, past)
        parallel_for(kernel.over(*args), items, small=g.size <= SMALL)
        return _first(parts)


def _moments_of_pieces(layout: Layout, omit: bool, higher: bool, extremes: bool) -> Parts:
    """Moments where the array is no one window: groups of pieces, each merged in order, then the groups."""
    pieces, channels = layout.pieces(nested=True), channel_numbers(layout)
    groups = groups_of(layout, len(pieces))
    parts = cuts.new_parts(groups, layout.channels, higher, extremes)
    merge_tree = cuts.kernel("welford", "merge_tree")

    def work(lo: int, hi: int) -> None:
        for g in range(lo, hi):
            for box in pieces[len(pieces) * g // groups : len(pieces) * (g + 1) // groups]:
                at = channels[kept_of(layout, box)].reshape(-1)
                with (
                    scratch(layout, box, nested=True) as window,
                    _moments_parts(window, omit, higher, extremes, here) as part,
                ):
                    if len(part[0]) > 1:
                        merge_tree(0, at.size, cuts.flat_parts(part))
                    cuts.merge_at(parts, g, at, part)

    parallel_for(work, groups, small=layout.size <= SMALL)
    everything = np.arange(layout.channels)
    for g in range(1, groups):
        part = tuple(None if p is None else p[..., g : g + 1, :].copy() for p in parts)
        cuts.merge_at(parts, 0, everything, part)
    return parts
