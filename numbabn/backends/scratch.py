"""Boxes of arrays that the kernels cannot take whole: their own memory where it serves, else a small copy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

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
        self._numbers = channel_numbers(layout)
        self._known: dict[tuple[int, ...], desks.Work] = {}  # by the size of a box, where it is copied
        self._run: Callable[[int, int], None] | None = None
        if len(grid) > FEW and not kernels("entry").interpreted():
            kinds = desks.kinds_of(grid)
            window = self._window(kinds[0]) if len(kinds) == 1 else None
            works = [self._copied(box) for box in kinds] if window is None else [self._moving(window, kinds[0])]
            self._run = desks.running(grid, works)

    def do(self, lo: int, hi: int) -> None:
        """Do boxes lo..hi."""
        if self._run is not None:
            self._run(lo, hi)
            return
        for box in map(self._grid.box, range(lo, hi)):
            window = self._window(box)
            (self._copied(box) if window is None else self._there(window, box)).do(box)

    def _window(self, box: Box) -> Window | None:
        views, picks = ({n: a[box] for n, a in some.items()} for some in (self._layout.arrays, self._layout.picks))
        return window_over(views, self._layout.kept, picks, self._nested)

    def _there(self, window: Window, box: Box) -> desks.Work:
        """The work on a box where it is."""
        at = desks.part_of(self._numbers, box).reshape(-1).copy()
        piece = Piece(window, at, at.size == self._layout.channels)
        calls = self._prepare(piece)
        return desks.Work(self._following(piece, box), calls, [])

    def _moving(self, window: Window, box: Box) -> desks.Work:
        """The work on a box where it is, and where others of its size are.

        Stand-ins tell arrays apart that begin at one place: x, and weights that are a row of it.
        """
        moved: dict[tuple[Any, ...], tuple[NDArray, NDArray]] = {}
        flat = {}
        for name, array in (*self._layout.arrays.items(), *self._layout.picks.items()):
            kind = window.flat[name].dtype
            key = kernels("entry").address(array), array.strides, kind
            flat[name], _ = moved.setdefault(key, (np.empty(1, kind), array))
        work = self._there(Window(window.geometry, flat), box)
        return desks.Work(work.moves, work.calls, list(moved.values()))

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
        moves = _moves(layout, copies, self._written)
        calls = self._prepare(piece)
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
    moves, everything = _moves(layout, copies, written), (slice(None),) * len(layout.shape)
    desks.copy_there(moves, everything)
    yield window
    desks.copy_back(moves, everything)


def _moves(layout: Layout, copies: dict[str, NDArray], written: tuple[str, ...]) -> list[desks.Move]:
    """Between the arrays of a layout and copies by their names: there but for what is only written, back for that."""
    known = {**layout.arrays, **layout.picks}
    return [desks.Move(known[name], copy, name not in ONLY_WRITTEN, name in written) for name, copy in copies.items()]


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


T = TypeVar("T")


@contextlib.contextmanager
def one_of(idle: list[T], new: Callable[[], T]) -> Iterator[T]:
    """What no other thread has now."""
    try:
        one = idle.pop()
    except IndexError:
        one = new()
    yield one
    idle.append(one)


def in_pieces(layout: Layout, prepare: Prepare, written: tuple[str, ...]) -> None:
    """Do pieces in any order, on all threads."""
    grid, idle = layout.grid(), list[Desk]()  # as many as threads that take part

    def work(lo: int, hi: int) -> None:
        with one_of(idle, lambda: Desk(layout, grid, prepare, written)) as desk:
            desk.do(lo, hi)

    parallel_for(work, len(grid), small=layout.size <= SMALL)


def channel_numbers(layout: Layout) -> NDArray:
    """0, 1, ... along the channel axes, in memory order, with the other axes of length 1: see `desks.part_of`."""
    shape = (n if k else 1 for n, k in zip(layout.shape, layout.kept, strict=True))
    return np.arange(layout.channels).reshape(tuple(shape))
