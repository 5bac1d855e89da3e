"""Boxes of arrays that the kernels cannot take whole: their own memory where it serves, else a small copy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from ..arrays import NDArray
from ..geometry import Window, contiguous_window, scratch_order, window_over
from ..layout import Layout
from .cuts import ITEMS, PARTS

Run = Callable[..., None]


def here(body: Callable[[int, int], None], items: int, small: bool = False) -> None:
    """Do all items in this thread."""
    body(0, items)


def groups_of(layout: Layout, pieces: int) -> int:
    """Into how many groups the pieces of a reduction go: fewer where the results of one are long."""
    return min(pieces, ITEMS, max(8, PARTS // layout.channels))


@contextlib.contextmanager
def scratch(
    layout: Layout, box: tuple[slice, ...], written: tuple[str, ...] = (), nested: bool = False
) -> Iterator[Window]:
    """A window over a box of the arrays: their own memory, or a contiguous copy, copied back where `written`."""
    views = {name: a[box] for name, a in layout.arrays.items()}
    picks = {name: a[box] for name, a in layout.picks.items()}
    window = window_over(views, layout.kept, picks, nested)
    if window is not None:
        yield window
        return
    order = scratch_order(layout.kept)
    views = {name: a.transpose(order) for name, a in views.items()}
    copies = {name: np.empty(a.shape, a.dtype.newbyteorder("=")) for name, a in views.items()}
    for name, view in views.items():
        if name not in ("out", "dx", "dz"):  # these are only written
            np.copyto(copies[name], view)
    spread = {name: a.transpose(order).astype(a.dtype.newbyteorder("="), order="C") for name, a in picks.items()}
    yield contiguous_window(copies, tuple(layout.kept[d] for d in order), spread)
    for name in written:
        np.copyto(views[name], copies[name])


def channel_numbers(layout: Layout) -> NDArray:
    """0, 1, ... in the shape of the channel axes, in memory order."""
    shape = (n for n, k in zip(layout.shape, layout.kept, strict=True) if k)
    return np.arange(layout.channels).reshape(tuple(shape))


def kept_of(layout: Layout, box: tuple[slice, ...]) -> tuple[slice, ...]:
    """The part of a box that lies along the channel axes."""
    return tuple(s for s, k in zip(box, layout.kept, strict=True) if k)
