"""From an array and its channel axes to the canonical view (outer, channel, inner), and back.

Axes are sorted by stride, turned where a stride is negative, and joined where they touch. What is
left is one of a few patterns that the kernels take as they are (a `Window`); anything else is cut
into pieces that are, or that are copied through a small scratch tile. x is never copied whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .arrays import NDArray
from .geometry import KEPT, Window, window_over

PIECE = 63 * 512  # values in a tile that is copied through scratch; the rows of a power of two would meet in a cache
WHOLE = 2048  # values at least in one that is not
SIDE = 32  # neighbours in memory that are worth being copied together


@dataclass(frozen=True, slots=True)
class Order:
    """How axes are brought into memory order, and channel parameters with them.

    `perm` and `turn` bring an array there, None where it is there; `kept` says which of its axes are channels then;
    `channel_perm` and `channel_turn` do it for a parameter.
    """

    perm: tuple[int, ...] | None
    turn: tuple[slice, ...] | None
    kept: tuple[bool, ...]
    channel_perm: tuple[int, ...] | None
    channel_turn: tuple[slice, ...] | None
    channel_shape: tuple[int, ...]
    channels: int

    def of(self, a: NDArray) -> NDArray:
        """An array of the caller's shape, in memory order."""
        if self.perm is not None:
            a = a.transpose(self.perm)
        return a if self.turn is None else a[self.turn]


@dataclass(frozen=True, slots=True)
class Grid:
    """Boxes that cover a shape, numbered in order: `steps` indices of each axis, and at its end what is left."""

    shape: tuple[int, ...]
    steps: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], most: int) -> Grid:
        """Boxes of at most `most` elements that are each a contiguous part, of all of the last axes."""
        lead = 0
        while lead + 1 < len(shape) and math.prod(shape[lead + 1 :]) > most:
            lead += 1
        some = max(1, most // max(1, math.prod(shape[lead + 1 :])))
        return cls(shape, (*(1 for _ in shape[:lead]), max(1, min(some, shape[lead])), *shape[lead + 1 :]))

    @property
    def counts(self) -> tuple[int, ...]:
        """How many boxes there are along each axis."""
        return tuple(-(-n // step) for n, step in zip(self.shape, self.steps, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def box(self, number: int) -> tuple[slice, ...]:
        """Where a box is along each axis."""
        box = []
        for n, step, count in zip(self.shape[::-1], self.steps[::-1], self.counts[::-1], strict=True):
            number, k = divmod(number, count)
            box.append(slice(k * step, min((k + 1) * step, n)))
        return tuple(reversed(box))


@dataclass(frozen=True, slots=True)
class Layout:
    """Arrays of one shape, and where their channels are.

    `arrays` are views by name, with axes in memory order, "x" the first; `picks` are "where" and "weights",
    where there are any, as views of the same shape.
    """

    arrays: dict[str, NDArray]
    picks: dict[str, NDArray]
    order: Order

    @property
    def kept(self) -> tuple[bool, ...]:
        """Which of the axes are channels."""
        return self.order.kept

    @property
    def channels(self) -> int:
        return self.order.channels

    @property
    def size(self) -> int:
        return self.arrays["x"].size

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes, in memory order."""
        return self.arrays["x"].shape

    def input(self) -> Layout:
        """x alone, with its picks."""
        return Layout({"x": self.arrays["x"]}, self.picks, self.order)

    def unpicked(self) -> Layout:
        """The arrays without the picks."""
        return Layout(self.arrays, {}, self.order) if self.picks else self

    def window(self, nested: bool = False) -> Window | None:
        """The whole as one window, or None where the kernels cannot take it; nested: as in `window_over`."""
        return window_over(self.arrays, self.kept, self.picks, nested)

    def to_channels(self, parameter: NDArray) -> NDArray:
        """A parameter of the channels' shape -> (channels,) in memory order."""
        o = self.order
        if o.channel_perm is not None:
            parameter = parameter.transpose(o.channel_perm)
        if o.channel_turn is not None:
            parameter = parameter[o.channel_turn]
        # Always a fresh array: numba would compile anew for one that is read-only.
        return np.array(parameter, order="C").reshape(-1)

    def from_channels(self, values: NDArray) -> NDArray:
        """(channels,) in memory order -> the channels' shape."""
        o = self.order
        if o.channel_perm is None and o.channel_turn is None:
            return np.array(values).reshape(o.channel_shape)
        perm = o.channel_perm or tuple(range(len(o.channel_shape)))
        box = values.reshape([o.channel_shape[k] for k in perm])
        if o.channel_turn is not None:
            box = box[o.channel_turn]
        return np.array(box.transpose(np.argsort(perm)), order="C")

    @property
    def small(self) -> bool:
        """Whether all of it may be copied at once."""
        return self.size <= 2 * PIECE

    def grid(self, nested: bool = False) -> Grid:
        """Boxes that together cover the arrays, each a window or small enough to copy."""
        shape = self.shape
        for lead in range(1, len(shape)):
            if math.prod(shape[lead:]) < WHOLE:
                break
            first = (slice(0, 1),) * lead
            inside, picks = ({n: a[first] for n, a in views.items()} for views in (self.arrays, self.picks))
            if window_over(inside, self.kept, picks, nested) is not None:
                return Grid(shape, (*(1 for _ in first), *shape[lead:]))
        return self._copied()

    def _copied(self) -> Grid:
        """Boxes to copy: where an array has its neighbours along an axis that is cut, several of them in each box."""
        grid = Grid.of(self.shape, PIECE)
        steps = list(grid.steps)
        for a in (*self.arrays.values(), *self.picks.values()):
            several = (d for d in range(a.ndim) if a.shape[d] > 1)
            along = min(several, key=lambda d: abs(a.strides[d]) or math.inf, default=0)
            steps[along] = max(steps[along], min(a.shape[along], SIDE))
        for d in sorted(range(len(steps)), key=lambda d: -steps[d]):  # as many fewer along the longest
            if math.prod(steps) > PIECE:
                steps[d] = max(min(SIDE, steps[d]), steps[d] * PIECE // math.prod(steps))
        return Grid(self.shape, tuple(steps))


def canonical(arrays: dict[str, NDArray], axes: tuple[int, ...], picks: dict[str, NDArray] | None = None) -> Layout:
    """Sort, turn and name the axes of arrays of one shape; axes: the channel axes, ascending."""
    x = arrays["x"]
    # By x alone, so that its statistics have the same bits whatever the others are.
    order = _order(x.shape, x.strides, axes)
    if order.perm is None and order.turn is None:
        return Layout(arrays, picks or {}, order)
    return Layout(
        {name: order.of(a) for name, a in arrays.items()},
        {name: order.of(a) for name, a in picks.items()} if picks else {},
        order,
    )


@lru_cache(KEPT)
def _order(shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...]) -> Order:
    perm = sorted(range(len(shape)), key=lambda d: abs(strides[d]) or math.inf, reverse=True)
    kept = [d for d in perm if d in axes]
    channel_shape = tuple(shape[a] for a in axes)
    return Order(
        _unless_sorted(perm),
        _turning(strides[d] < 0 for d in perm),
        tuple(d in axes for d in perm),
        _unless_sorted([axes.index(d) for d in kept]),
        _turning(strides[d] < 0 for d in kept),
        channel_shape,
        math.prod(channel_shape),
    )


def _unless_sorted(perm: list[int]) -> tuple[int, ...] | None:
    return None if perm == sorted(perm) else tuple(perm)


def _turning(turned: Iterable[bool]) -> tuple[slice, ...] | None:
    turn = tuple(slice(None, None, -1) if t else slice(None) for t in turned)
    return turn if slice(None, None, -1) in turn else None


def boxes(shape: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Boxes of at most `most` elements that cover an array in order, each a contiguous part of it."""
    grid = Grid.of(shape, most)
    return map(grid.box, range(len(grid)))
