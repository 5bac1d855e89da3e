"""The way back on the CPU: the two verbs of the gradients, cut like those of `cpu.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import NDArray
from ..geometry import Window
from ..layout import Layout
from . import cuts
from .cuts import SMALL
from .passes import Pass, parts_of, summing
from .scratch import Call, Desk, Piece, copied, groups_of, in_pieces, one_of
from .threads import parallel_for
from .written import write, writing_piece


def grad_sums(layout: Layout, mean: NDArray, omit: bool = False, act: Any = None) -> NDArray:
    """Sums over each channel of g, and of g * (x - mean), where g is "dy" behind the activation; (2, channels).

    act: None, or (activation, scale, shift) of the forward pass, whose "residual" is among the arrays.
    """
    window = layout.window()
    if window is None and layout.small:
        with copied(layout) as window:
            return _grad_sums_of_window(window, mean, omit, act)
    if window is None:
        return _grad_sums_of_pieces(layout, mean, omit, act)
    return _grad_sums_of_window(window, mean, omit, act)


def _grad_sums_of_window(window: Window, mean: NDArray, omit: bool, act: Any) -> NDArray:
    (kernel, args, items), sums = _summing(window, mean, omit, act)
    parallel_for(kernel.over(*args), items, window.geometry.size <= SMALL)
    whole = sums[:, 0].copy()
    for part in range(1, sums.shape[1]):
        whole += sums[:, part]
    return whole


def grad_inputs(
    layout: Layout,
    mean: NDArray,
    a: NDArray,
    b: NDArray | None,
    k: NDArray | None,
    omit: bool = False,
    act: Any = None,
) -> None:
    """Write ``a * g - p * (b + (x - mean) * k)`` into "dx", or into "dy" where there is none, and g into "dz"."""
    window, into = layout.window(), "dx" if "dx" in layout.arrays else "dy"
    written = (into, "dz") if "dz" in layout.arrays else (into,)
    if window is not None:
        write(window, _task(window, [mean, a, b, k], omit, act), into)
        return
    if layout.small:
        with copied(layout, written) as window:
            write(window, _task(window, [mean, a, b, k], omit, act), into)
        return

    def prepare(piece: Piece) -> list[Call]:
        own = [None if p is None else piece.channels_of(p) for p in (mean, a, b, k)]
        return writing_piece(piece.window, _task(piece.window, own, omit, _some(act, piece)), into)

    in_pieces(layout, prepare, written)


def _grad_sums_of_pieces(layout: Layout, mean: NDArray, omit: bool, act: Any) -> NDArray:
    grid = layout.grid()
    groups = groups_of(layout, len(grid))
    sums = np.zeros((groups, 2, layout.channels))
    idle: list[tuple[Desk, NDArray]] = []

    def new_desk() -> tuple[Desk, NDArray]:
        group = np.zeros((2, layout.channels))

        def prepare(piece: Piece) -> list[Call]:
            (kernel, args, items), own = _summing(piece.window, piece.channels_of(mean), omit, _some(act, piece))
            into = (own.reshape(-1), own.shape[1], piece.at, piece.at.size, group.reshape(-1), layout.channels)
            return [(kernel, (0, items, *args)), (cuts.kernel("grads", "add_at"), into)]

        return Desk(layout, grid, prepare), group

    def work(lo: int, hi: int) -> None:
        with one_of(idle, new_desk) as (desk, group):
            for g in range(lo, hi):
                desk.do(len(grid) * g // groups, len(grid) * (g + 1) // groups)
                sums[g], group[...] = group, 0.0

    parallel_for(work, groups, small=layout.size <= SMALL)
    return np.asarray(sums.sum(axis=0))


def _summing(window: Window, mean: NDArray, omit: bool, act: Any) -> tuple[Pass, NDArray]:
    """The pass that adds the sums of a window to zeros, (2, parts, channels), and these."""
    g = window.geometry
    pick = cuts.pick_of_rows(window, cuts.row_blocks(g)[0], omit) if g.rows else cuts.pick_of_planes(window, omit)
    sums = np.zeros((2, parts_of(g), g.channels))
    arrays = (window.of("dy"), window.of("x"), pick, mean, _compiled(act), window.of("residual"))
    return summing(g, *arrays, sums.reshape(-1)), sums


def _task(window: Window, parameters: list[Any], omit: bool, act: Any) -> Any:
    g, (mean, a, b, k) = window.geometry, parameters
    dy, x, dz, other = (window.of(name) for name in ("dy", "x", "dz", "residual"))
    pick = (
        cuts.pick_of_rows(window, cuts.pack_written(g), omit) if cuts.by_rows(g) else cuts.pick_of_planes(window, omit)
    )
    return cuts.kernels("forms").Gradient(*dy, *x, *dz, pick, mean, _compiled(act), *other, a, b, k)


def _compiled(act: Any) -> Any:
    """(activation, scale, shift) with the activation as the kernels take it."""
    return None if act is None else (cuts.activation(act[0]), *act[1:])


def _some(act: Any, piece: Piece) -> Any:
    """The parameters of an activation for the channels of a piece."""
    return None if act is None else (act[0], *(None if p is None else piece.channels_of(p) for p in act[1:]))
