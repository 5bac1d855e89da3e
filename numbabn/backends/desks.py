"""Copies of boxes that lie in scratch: by NumPy, and as the whole numbers of a desk for `kernels/boxes.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import NDArray
from ..layout import Grid
from . import cuts

MANY = 16  # elements that are worth being copied in one loop


def part_of(array: NDArray, box: tuple[slice, ...]) -> NDArray:
    """An array in a box, whose axes of length 1 stand for any length."""
    return array[tuple(slice(None) if n == 1 else s for n, s in zip(array.shape, box, strict=True))]


@dataclass(frozen=True, slots=True)
class Move:
    """An array, as in `part_of`, the scratch for a box of it, and whether it is copied there, and back."""

    array: NDArray
    scratch: NDArray
    there: bool
    back: bool


def copy_there(moves: Sequence[Move], box: tuple[slice, ...]) -> None:
    """Copy a box to scratch."""
    for move in moves:
        if move.there:
            np.copyto(move.scratch, part_of(move.array, box))


def copy_back(moves: Sequence[Move], box: tuple[slice, ...]) -> None:
    """Copy a box back from scratch."""
    for move in moves:
        if move.back:
            np.copyto(part_of(move.array, box), move.scratch)


@dataclass(frozen=True, slots=True)
class Work:
    """What is done with boxes of one size: copies, and calls of kernels with their arguments.

    moved: arrays whose boxes the kernels take where they are, each behind a stand-in for it among the arguments.
    """

    moves: list[Move]
    calls: list[tuple[Any, tuple[Any, ...]]]
    moved: list[tuple[NDArray, NDArray]]

    def do(self, box: tuple[slice, ...]) -> None:
        """Do it with what is copied, where there is no machine code that does."""
        copy_there(self.moves, box)
        for kernel, args in self.calls:
            cuts.kernels("entry").done(kernel(*args))
        copy_back(self.moves, box)


def kinds_of(grid: Grid) -> list[tuple[slice, ...]]:
    """A box of each kind, by the sum of the bits of its axes: bit k for the last box of the k-th that has a rest."""
    boxes = [tuple(slice(0, step) for step in grid.steps)]
    for d, (n, step) in enumerate(zip(grid.shape, grid.steps, strict=True)):
        if n % step:
            rest = slice(n - n % step, n)
            boxes += [(*box[:d], rest, *box[d + 1 :]) for box in boxes]
    return boxes


def running(grid: Grid, works: Sequence[Work]) -> Callable[[int, int], None]:
    """What does boxes lo..hi of a grid; works: for each of `kinds_of`."""
    form = cuts.kernels("desk")
    cut = [d for d, count in enumerate(grid.counts) if count > 1]
    desk, bit = [len(cut), 0], 1
    for d, (n, step, count) in enumerate(zip(grid.shape, grid.steps, grid.counts, strict=True)):
        rest = bit if n % step else 0
        bit <<= n % step > 0
        if d in cut:
            desk += [count, rest]
    desk[form.KINDS] = len(desk)
    kinds = len(desk)
    desk += [0] * len(works)
    for k, work in enumerate(works):
        desk[kinds + k] = len(desk)
        _append(desk, form, [(d, grid.steps[d]) for d in cut], work)
    run = cuts.kernel("boxes", "boxes").over(np.array(desk, np.int64))

    def call(lo: int, hi: int, alive: Any = works) -> None:
        run(lo, hi)

    return call


def _append(desk: list[int], form: Any, cut: list[tuple[int, int]], work: Work) -> None:
    """What is done with boxes of one kind, at the end of a desk; cut: the axes that number boxes, and their steps."""
    head = len(desk)
    desk += [0] * form.DONE
    desk[head + form.CALLS : head + form.CALLS + 2] = len(work.calls), len(desk)
    address, moves = cuts.kernels("entry").address, list[int]()
    for kernel, args in work.calls:
        entry, row = kernel.slots(*args)
        desk += [entry.address, len(row), *np.frombuffer(entry.pack(*row), np.int64).tolist()]
        for stand_in, array in work.moved:
            places = [k for k, value in enumerate(row) if type(value) is int and value == address(stand_in)]
            for k in places:
                moves += [len(desk) - len(row) + k, address(array), *_strides(array, cut)]
    desk[head + form.MOVES : head + form.MOVES + 2] = len(moves) // (form.BOX_STRIDES + len(cut)), len(desk)
    desk += moves
    for count, which in ((form.COPIES, "there"), (form.BACK, "back")):
        copies = [move for move in work.moves if getattr(move, which)]
        desk[head + count : head + count + 2] = len(copies), len(desk)
        for move in copies:
            desk += _copy(form, cut, move)


def _strides(array: NDArray, cut: list[tuple[int, int]]) -> list[int]:
    """From box to box, in bytes, along the axes that number boxes."""
    return [array.strides[d] * step if array.shape[d] > 1 else 0 for d, step in cut]


def _copy(form: Any, cut: list[tuple[int, int]], move: Move) -> list[int]:
    """A copy, as a desk has it."""
    array, scratch = move.array, move.scratch
    loops = _loops([s if n > 1 else 0 for n, s in zip(array.shape, array.strides, strict=True)], scratch)
    begin, turned = map(cuts.kernels("entry").address, (array, scratch)), int(not array.dtype.isnative)
    found = [*begin, array.itemsize, turned, len(loops), 0, *_strides(array, cut)]
    found += [n for loop in loops for n in loop]
    found[form.ALL] = len(found)
    return found


def _loops(strides: Sequence[int], scratch: NDArray) -> list[tuple[int, int, int]]:
    """(count, step in the array, step in scratch) of loops over a box, along neighbours in the array the innermost."""
    axes = [(n, own, other) for n, own, other in zip(scratch.shape, strides, scratch.strides, strict=True) if n > 1]
    loops: list[tuple[int, int, int]] = []
    for count, own, other in sorted(axes, key=lambda axis: -abs(axis[1])):
        if loops and loops[-1][1:] == (count * own, count * other):
            count *= loops.pop()[0]
        loops.append((count, own, other))
    if not loops:
        return [(1, scratch.itemsize, scratch.itemsize)]
    if loops[-1][0] < MANY:
        loops.append(loops.pop(max(range(len(loops)), key=lambda k: loops[k][0])))
    return loops
