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
from .scratch import Call, Desk, Piece, Run, copied, groups_of, in_pieces, one_of
from .threads import parallel_for
from .written import goes_past, write, writing_piece

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
        if not layout.small:
            return _first(_moments_of_pieces(layout, omit, higher, extremes))
        with copied(layout) as window, _moments_parts(window, omit, higher, extremes, parallel_for) as parts:
            return _merged(parts)
    run = parallel_for if unseen is None else weighing.looking(unseen, window.geometry)
    with _moments_parts(window, omit, higher, extremes, run) as parts:
        return _merged(parts)


def _transform(
    layout: Layout, window: Window | None, mean: NDArray, scale: NDArray, shift: NDArray | None, activation: Any
) -> None:
    act, added = cuts.activation(activation), _added(shift, mean)

    def task(of: Window, *parameters: NDArray) -> Any:
        return cuts.kernels("forms").Affine(*of.of("x"), *parameters, *of.of("residual"), act)

    into = "out" if "out" in layout.arrays else "x"
    if window is not None:
        write(window, task(window, mean, scale, added), into)
        return
    if layout.small:
        with copied(layout, (into,)) as window:
            write(window, task(window, mean, scale, added), into)
        return

    def prepare(piece: Piece) -> list[Call]:
        own = (piece.channels_of(p) for p in (mean, scale, added))
        return writing_piece(piece.window, task(piece.window, *own), into)

    in_pieces(layout, prepare, (into,))


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
    grid = layout.grid(nested=True)
    groups = groups_of(layout, len(grid))
    parts = cuts.new_parts(groups, layout.channels, higher, extremes)
    nothing = cuts.new_parts(1, 1, higher, extremes)
    idle: list[tuple[Desk, Parts]] = []

    def new_desk() -> tuple[Desk, Parts]:
        group = cuts.new_parts(1, layout.channels, higher, extremes)
        return Desk(layout, grid, lambda piece: _merging_in(piece, group, omit), nested=True), group

    def work(lo: int, hi: int) -> None:
        with one_of(idle, new_desk) as (desk, group):
            for g in range(lo, hi):
                desk.do(len(grid) * g // groups, len(grid) * (g + 1) // groups)
                for whole, own, empty in zip(parts, group, nothing, strict=True):
                    if whole is not None and own is not None:
                        whole[..., g, :] = own[..., 0, :]
                        own[...] = empty

    parallel_for(work, groups, small=layout.size <= SMALL)
    everything = np.arange(layout.channels)
    for g in range(1, groups):
        part = tuple(None if p is None else p[..., g : g + 1, :].copy() for p in parts)
        cuts.merge_at(parts, 0, everything, part)
    return parts


def _merging_in(piece: Piece, group: Parts, omit: bool) -> list[Call]:
    """What merges the moments of a piece into those of a group."""
    g = piece.window.geometry
    flat = cuts.flat_parts(cuts.new_parts(parts_of(g), g.channels, group[3] is not None, group[4] is not None))
    kernel, args, items = measuring(piece.window, flat, omit)
    calls: list[Call] = [(kernel, (0, items, *args))]
    if flat.parts > 1:
        calls.append((cuts.kernel("welford", "merge_tree"), (0, flat.channels, flat)))
    into = cuts.flat_parts(group)
    calls.append((cuts.kernel("welford", "merge_at"), (into, 0, piece.at, piece.at.size, flat)))
    return calls
