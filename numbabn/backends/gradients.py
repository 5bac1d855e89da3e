"""The way back on the CPU: the two verbs of the gradients, cut like those of `cpu.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import NDArray
from ..geometry import Window
from ..layout import Layout
from . import cuts
from .cuts import SMALL
from .passes import parts_of, summing
from .scratch import Run, channel_numbers, groups_of, here, kept_of, scratch
from .threads import parallel_for
from .written import write


def grad_sums(layout: Layout, mean: NDArray, omit: bool = False, act: Any = None) -> NDArray:
    """Sums over each channel of g, and of g * (x - mean), where g is "dy" behind the activation; (2, channels).

    act: None, or (activation, scale, shift) of the forward pass, whose "residual" is among the arrays.
    """
    window = layout.window()
    if window is not None:
        return _grad_sums_of_window(window, mean, omit, act, parallel_for)
    pieces, channels = layout.pieces(), channel_numbers(layout)
    groups = groups_of(layout, len(pieces))
    sums = np.zeros((groups, 2, layout.channels))

    def work(lo: int, hi: int) -> None:
        for g in range(lo, hi):
            for box in pieces[len(pieces) * g // groups : len(pieces) * (g + 1) // groups]:
                at = channels[kept_of(layout, box)].reshape(-1)
                with scratch(layout, box) as part:
                    sums[g][:, at] += _grad_sums_of_window(part, mean[at], omit, _some(act, at), here)

    parallel_for(work, groups, small=layout.size <= SMALL)
    return np.asarray(sums.sum(axis=0))


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
    window = layout.window()
    if window is not None:
        _grad_inputs_of_window(window, mean, a, b, k, omit=omit, act=act, run=parallel_for)
        return
    pieces, channels = layout.pieces(), channel_numbers(layout)
    written = ("dx" if "dx" in layout.arrays else "dy", *(("dz",) if "dz" in layout.arrays else ()))

    def work(lo: int, hi: int) -> None:
        for box in pieces[lo:hi]:
            at = channels[kept_of(layout, box)].reshape(-1)
            with scratch(layout, box, written) as part:
                _grad_inputs_of_window(
                    part,
                    *(None if p is None else p[at] for p in (mean, a, b, k)),
                    omit=omit,
                    act=_some(act, at),
                    run=here,
                )

    parallel_for(work, len(pieces), small=layout.size <= SMALL)


def _grad_sums_of_window(window: Window, mean: NDArray, omit: bool, act: Any, run: Run) -> NDArray:
    g = window.geometry
    pick = cuts.pick_of_rows(window, cuts.row_blocks(g)[0], omit) if g.rows else cuts.pick_of_planes(window, omit)
    sums = np.zeros((2, parts_of(g), g.channels))
    arrays = (window.of("dy"), window.of("x"), pick, mean, _compiled(act), window.of("residual"))
    kernel, args, items = summing(g, *arrays, sums.reshape(-1))
    run(kernel.over(*args), items, g.size <= SMALL)
    whole = sums[:, 0].copy()
    for part in range(1, sums.shape[1]):
        whole += sums[:, part]
    return whole


def _grad_inputs_of_window(
    window: Window, mean: Any, a: Any, b: Any, k: Any, *, omit: bool, act: Any, run: Run
) -> None:
    g = window.geometry
    dy, x, dz, other = (window.of(name) for name in ("dy", "x", "dz", "residual"))
    pick = (
        cuts.pick_of_rows(window, cuts.pack_written(g), omit) if cuts.by_rows(g) else cuts.pick_of_planes(window, omit)
    )
    task = cuts.kernels("forms").Gradient(*dy, *x, *dz, pick, mean, _compiled(act), *other, a, b, k)
    write(window, task, "dx" if "dx" in window.flat else "dy", run)


def _compiled(act: Any) -> Any:
    """(activation, scale, shift) with the activation as the kernels take it."""
    return None if act is None else (cuts.activation(act[0]), *act[1:])


def _some(act: Any, at: NDArray) -> Any:
    """The parameters of an activation for some channels."""
    return None if act is None else (act[0], act[1][at], None if act[2] is None else act[2][at])
