"""The verbs for host arrays on a device: piece by piece, so that they may be larger than its memory.

Statistics of the pieces are merged on the host, in float64 and in order: the same bits from run to run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arithmetic import batch_scale
from ..arrays import NDArray
from ..devices import Shadow, upload
from ..layout import Layout
from . import Parts, cuda, cuts
from .pinned import Piece, fits, pieces


def moments(layout: Layout, omit: bool = False, higher: bool = False, extremes: bool = False) -> Parts:
    """As `Backend.moments`."""
    if higher or extremes:
        raise ValueError("`extra` is not gathered on a device; choose backend='cpu' for it")
    return _moments(layout, omit, None)


def transform(layout: Layout, mean: NDArray, scale: NDArray, shift: NDArray | None, activation: Any = None) -> None:
    """As `Backend.transform`."""
    _transform(layout, mean, scale, shift, activation, None)


def train(
    layout: Layout, gamma: NDArray, beta: NDArray | None, eps: float, omit: bool = False, activation: Any = None
) -> Parts:
    """As `Backend.train`: two passes, of which the second sends x again only where the device has no room for it."""
    x = layout.arrays["x"]
    kept: dict[int, Any] | None = {} if fits(x.size * x.itemsize) else None
    parts = _moments(layout.input(), omit, kept)
    _transform(layout.unpicked(), parts[1], batch_scale(parts[0], parts[2], gamma, eps), beta, activation, kept)
    return parts


def grad_sums(layout: Layout, mean: NDArray, omit: bool = False, act: Any = None) -> NDArray:
    """As `Backend.grad_sums`."""
    sums = np.zeros((2, layout.channels))

    def work(piece: Piece) -> Any:
        found = cuda.sums_of_window(piece.window, mean[piece.at], omit, _some(act, piece.at), piece.place)

        def add(values: NDArray) -> None:
            sums[:, piece.at] += values.reshape(2, -1)

        return found, add

    pieces(layout, (), work)
    return sums


def grad_inputs(
    layout: Layout,
    mean: NDArray,
    a: NDArray,
    b: NDArray | None,
    k: NDArray | None,
    omit: bool = False,
    act: Any = None,
) -> None:
    """As `Backend.grad_inputs`."""

    def work(piece: Piece) -> None:
        at = piece.at
        offset, slope = None if b is None else b[at], None if k is None else k[at]
        cuda.inputs_of_window(piece.window, mean[at], a[at], offset, slope, omit, _some(act, at), piece.place)

    pieces(layout, ("dx" if "dx" in layout.arrays else "dy", *(("dz",) if "dz" in layout.arrays else ())), work)


def _moments(layout: Layout, omit: bool, kept: dict[int, Any] | None) -> Parts:
    parts = cuts.new_parts(1, layout.channels, False, False)

    def work(piece: Piece) -> Any:
        def merge(values: NDArray) -> None:
            count, mean, m2 = values.reshape(3, 1, -1)
            part = (np.array(count), np.array(mean), np.array(m2), None, None)
            cuts.merge_at(parts, 0, piece.at, part)

        return cuda.moments_of_window(piece.window, omit, piece.place), merge

    pieces(layout, (), work, kept)
    return parts[0][0], parts[1][0], parts[2][0], None, None


def _transform(
    layout: Layout,
    mean: NDArray,
    scale: NDArray,
    shift: NDArray | None,
    activation: Any,
    kept: dict[int, Shadow] | None,
) -> None:
    act = cuts.activation(activation)

    def work(piece: Piece) -> None:
        at, place = piece.at, piece.place
        offset = None if shift is None else upload(shift[at], place)
        cuda.transform_window(piece.window, upload(mean[at], place), upload(scale[at], place), offset, act, place)

    pieces(layout, ("out",) if "out" in layout.arrays else ("x",), work, kept)


def _some(act: Any, at: NDArray) -> Any:
    """The parameters of an activation for some channels."""
    return None if act is None else (act[0], act[1][at], None if act[2] is None else act[2][at])
