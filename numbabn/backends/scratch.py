"""Boxes of arrays that the kernels cannot take whole: their own memory where it serves, else a small copy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..arrays import NDArray
from ..geometry import Window, contiguous_window, scratch_order, window_over
from ..layout import Grid, Layout
from . import desks
from .cuts import ITEMS, PARTS, SMALL, kernels
from .threads import parallel_for

Run = Callable[..., None]
Box = tuple[slice, ...]
# A kernel and its arguments.
Call = tuple[Any, tuple[Any, ...]]
FEW = 4  # boxes that are done before a desk is ready
ONLY_WRITTEN = ("out", "dx", "dz")


def groups_of(layout: Layout, pieces: int) -> int:
    """Into how many groups the pieces of a reduction go: fewer where the results of one are long."""
    return min(pieces, ITEMS, max(8, PARTS // layout.channels))


class Piece:
    """A box of the arrays as one window: their own memory, or a copy of it.

    at: the numbers of its channels. `follow` has parameters, and where they go for the channels of this piece.
    """

    def __init__(self, window: Window, at: NDArray, everything: bool) -> None:
        self.window, self.at = window, at
        self.follow: list[tuple[NDArray, NDArray]] = []
        self._everything = everything

    def channels_of(self, parameter: NDArray) -> NDArray:
        """A parameter, (channels,), for the channels of this piece."""
        if self._everything:
            return parameter
        self.follow.append((parameter, parameter[self.at]))
        return self.follow[-1][1]


Prepare = Callable[[Piece], list[Call]]


class Desk:
    """Where one thread works on the boxes of a layout, one after the other; `prepare` says by which kernels.

    Boxes that are no windows are copied before that work, and copied back behind it where `written`.
    """

    def __init__(
        self, layout: Layout, grid: Grid, prepare: Prepare, written: tuple[str, ...] = (), nested: bool = False
    ) -> None:
        self._layout, self._grid, self._prepare, self._written, self._nested = layout, grid, prepare, written, nested
        self._numbers = _channel_numbers(layout)
        self._known: dict[tuple[int, ...], desks.Work] = {}  # by the size of a box, where it is copied
        self._run: Callable[[int, int], None] | None = None
        if len(grid) > FEW and not kernels("entry").interpreted():
            kinds = desks.kinds_of(grid)
            work = self._there if self._window(kinds[0]) is not None and len(kinds) == 1 else self._copied
            self._run = desks.running(grid, [work(box) for box in kinds])

    def do(self, lo: int, hi: int) -> None:
        """Do boxes lo..hi."""
        if self._run is not None:
            self._run(lo, hi)
            return
        for box in map(self._grid.box, range(lo, hi)):
            (self._copied if self._window(box) is None else self._there)(box).do(box)

    def _window(self, box: Box) -> Window | None:
        views, picks = ({n: a[box] for n, a in some.items()} for some in (self._layout.arrays, self._layout.picks))
        return window_over(views, self._layout.kept, picks, self._nested)

    def _there(self, box: Box) -> desks.Work:
        """The work on a box where it is."""
        window, at = self._window(box), desks.part_of(self._numbers, box).reshape(-1).copy()
        assert window is not None
        piece = Piece(window, at, at.size == self._layout.channels)
        calls = self._prepare(piece)
        return desks.Work(
            self._following(piece, box), calls, [*self._layout.arrays.values(), *self._layout.picks.values()]
        )

    def _copied(self, box: Box) -> desks.Work:
        """The work on a copy of a box."""
        size = tuple(s.stop - s.start for s in box)
        if size not in self._known:
            self._known[size] = self._new_copy(box, size)
        return self._known[size]

    def _new_copy(self, box: Box, size: tuple[int, ...]) -> desks.Work:
        layout = self._layout
        window, copies = _copies(layout, size)
        at = desks.part_of(self._numbers, box).reshape(-1).copy()
        piece = Piece(window, at, at.size == layout.channels)
        calls, known = self._prepare(piece), {**layout.arrays, **layout.picks}
        moves = [
            desks.Move(known[name], copy, name not in ONLY_WRITTEN, name in self._written)
            for name, copy in copies.items()
        ]
        return desks.Work(moves + self._following(piece, box), calls, [])

    def _following(self, piece: Piece, box: Box) -> list[desks.Move]:
        """What takes the numbers of a piece's channels, and its parameters, to those of another box."""
        shape = desks.part_of(self._numbers, box).shape
        some = ((self._numbers, piece.at), *piece.follow) if piece.at.size < self._layout.channels else ()
        return [desks.Move(p.reshape(self._numbers.shape), own.reshape(shape), True, False) for p, own in some]


@contextlib.contextmanager
def copied(layout: Layout, written: tuple[str, ...] = ()) -> Iterator[Window]:
    """A window over copies of all arrays, which are copied back where `written`."""
    window, copies = _copies(layout, layout.shape)
    for name, array in (*layout.arrays.items(), *layout.picks.items()):
        if name not in ONLY_WRITTEN:
            np.copyto(copies[name], array)
    yield window
    for name in written:
        np.copyto(layout.arrays[name], copies[name])


def _copies(layout: Layout, size: tuple[int, ...]) -> tuple[Window, dict[str, NDArray]]:
    """A window over memory for boxes of one size, and this by the names of the arrays, with axes in their order."""
    order = scratch_order(layout.kept)
    back = np.argsort(order)
    arrays, picks = (
        {name: np.empty([size[d] for d in order], a.dtype.newbyteorder("=")) for name, a in some.items()}
        for some in (layout.arrays, layout.picks)
    )
    window = contiguous_window(arrays, tuple(layout.kept[d] for d in order), picks)
    return window, {name: a.transpose(back) for name, a in (*arrays.items(), *picks.items())}


def in_pieces(layout: Layout, prepare: Prepare, written: tuple[str, ...]) -> None:
    """Do pieces in any order, on all threads."""
    grid, idle = layout.grid(), list[Desk]()

    def work(lo: int, hi: int) -> None:
        desk = idle.pop() if idle else Desk(layout, grid, prepare, written)
        desk.do(lo, hi)
        idle.append(desk)

    parallel_for(work, len(grid), small=layout.size <= SMALL)


def _channel_numbers(layout: Layout) -> NDArray:
    """0, 1, ... along the channel axes, in memory order, with the other axes of length 1."""
    shape = (n if k else 1 for n, k in zip(layout.shape, layout.kept, strict=True))
    return np.arange(layout.channels).reshape(tuple(shape))


def channel_numbers(layout: Layout) -> NDArray:
    """0, 1, ... in the shape of the channel axes, in memory order."""
    shape = (n for n, k in zip(layout.shape, layout.kept, strict=True) if k)
    return np.arange(layout.channels).reshape(tuple(shape))


def kept_of(layout: Layout, box: tuple[slice, ...]) -> tuple[slice, ...]:
    """The part of a box that lies along the channel axes."""
    return tuple(s for s, k in zip(box, layout.kept, strict=True) if k)
