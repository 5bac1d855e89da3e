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
from numpy.lib.stride_tricks import as_strided

from .arrays import NDArray, kernel_ready

ROWS_BELOW = 32  # a run of fewer values for one channel is taken as part of a row
PIECE = 32768  # values in a tile that is copied through scratch; at least so many in one that is not
SHORT = 16  # a contiguous run of fewer values is worth a copy
KEPT = 1024  # geometries that are remembered: working one out takes longer than a small array


@dataclass(frozen=True, slots=True)
class Spread:
    """Values that are repeated along x: that of (o, c, i) lies at ``o * outer + c * channel + i * inner``."""

    flat: NDArray
    outer: int
    channel: int
    inner: int


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Where the elements of arrays lie that the kernels take as they are.

    Element (o, c, i) of array `name` lies at ``o * outer_stride[name] + c * channel_stride[name] + i *
    inner_stride[name]``, and `span[name]` elements of memory hold them all; the inner stride of an array is 1, that of
    a pick may be 0. `rows`: the channels lie side by side in short runs, which is the rows family of kernels.
    There is one object for one geometry: what is worked out from it can be kept by it.
    """

    outer: int
    channels: int
    inner: int
    rows: bool
    arrays: tuple[str, ...]
    picks: tuple[str, ...]
    outer_stride: dict[str, int]
    channel_stride: dict[str, int]
    inner_stride: dict[str, int]
    span: dict[str, int]

    @property
    def size(self) -> int:
        return self.outer * self.channels * self.inner

    @property
    def shared(self) -> tuple[int, int, int, bool]:
        """What decides how the work is cut, and so the bits of a sum."""
        return self.outer, self.channels, self.inner, self.rows


@dataclass(frozen=True, slots=True)
class Window:
    """Arrays and picks as one-dimensional windows over their memory."""

    geometry: Geometry
    flat: dict[str, NDArray]

    def of(self, name: str) -> tuple[NDArray | None, int, int]:
        """(flat, outer stride, channel stride) of an array; None and zeros for one that is not there."""
        if name not in self.flat:
            return None, 0, 0
        return self.flat[name], self.geometry.outer_stride[name], self.geometry.channel_stride[name]

    def spread(self, name: str) -> Spread | None:
        """A pick, or None."""
        if name not in self.flat:
            return None
        g = self.geometry
        return Spread(self.flat[name], g.outer_stride[name], g.channel_stride[name], g.inner_stride[name])


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

    def window(self) -> Window | None:
        """The whole as one window, or None where the kernels cannot take it."""
        return window_over(self.arrays, self.kept, self.picks)

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

    def pieces(self) -> list[tuple[slice, ...]]:
        """Boxes that together cover the arrays, each a window or small enough to copy."""
        shape = self.shape
        for lead in range(1, len(shape)):
            if math.prod(shape[lead:]) < PIECE:
                break
            first = (0,) * lead
            inside, picks = ({n: a[first] for n, a in views.items()} for views in (self.arrays, self.picks))
            if window_over(inside, self.kept[lead:], picks) is not None:
                whole = tuple(slice(0, n) for n in shape[lead:])
                return [(*(slice(i, i + 1) for i in at), *whole) for at in np.ndindex(*shape[:lead])]
        return list(boxes(shape, PIECE))


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
    lead = 0
    while lead < len(shape) and math.prod(shape[lead + 1 :]) > most:
        lead += 1
    if lead == len(shape):
        lead -= 1
    step = max(1, most // max(1, math.prod(shape[lead + 1 :])))
    whole = tuple(slice(0, n) for n in shape[lead + 1 :])
    for outside in np.ndindex(*shape[:lead]):
        for lo in range(0, shape[lead], step):
            yield (*(slice(i, i + 1) for i in outside), slice(lo, min(lo + step, shape[lead])), *whole)


def scratch_order(kept: tuple[bool, ...]) -> list[int]:
    """The order of axes in which a contiguous copy is a window: channels last where they were, else first."""
    return sorted(range(len(kept)), key=lambda d: (kept[d] == kept[-1], d))


def contiguous_window(arrays: dict[str, NDArray], kept: tuple[bool, ...], picks: dict[str, NDArray]) -> Window:
    """The window over contiguous arrays whose axes stand in `scratch_order`."""
    shape = arrays["x"].shape
    channels = math.prod(n for n, k in zip(shape, kept, strict=True) if k)
    rest = math.prod(shape) // channels
    last = kept[scratch_order(kept)[-1]]
    outer, inner = (rest, 1) if last else (1, rest)
    flat = {name: kernel_ready(a.reshape(-1)) for name, a in (*arrays.items(), *picks.items())}
    return Window(_contiguous(outer, channels, inner, tuple(arrays), tuple(picks)), flat)


@lru_cache(KEPT)
def _contiguous(outer: int, channels: int, inner: int, names: tuple[str, ...], picks: tuple[str, ...]) -> Geometry:
    everything = (*names, *picks)
    return Geometry(
        outer,
        channels,
        inner,
        inner < ROWS_BELOW,
        names,
        picks,
        dict.fromkeys(everything, channels * inner),
        dict.fromkeys(everything, inner),
        dict.fromkeys(everything, 1),
        dict.fromkeys(everything, outer * channels * inner),
    )


def window_over(
    arrays: dict[str, NDArray], kept: tuple[bool, ...], picks: dict[str, NDArray] | None = None
) -> Window | None:
    """One window over all arrays, if each is aligned, native, and strided as the kernels need it."""
    views = {**arrays, **picks} if picks else arrays
    strides = []
    for a in views.values():
        if not (a.flags.aligned and a.dtype.isnative):
            return None
        strides.append((a.strides, a.itemsize))
    geometry = _geometry(arrays["x"].shape, kept, tuple(arrays), tuple(picks or ()), tuple(strides))
    if geometry is None:
        return None
    return Window(geometry, {name: _flat(a, geometry.span[name]) for name, a in views.items()})


def _flat(a: NDArray, span: int) -> NDArray:
    """The memory of an array as the kernels take it; strides ascending towards the first axis."""
    if a.flags.c_contiguous:
        return kernel_ready(a.reshape(-1))
    return kernel_ready(as_strided(a, (span,), (a.itemsize,), subok=False))


@lru_cache(KEPT)
def _geometry(
    shape: tuple[int, ...],
    kept: tuple[bool, ...],
    arrays: tuple[str, ...],
    picks: tuple[str, ...],
    bytes_apart: tuple[tuple[tuple[int, ...], int], ...],
) -> Geometry | None:
    """The geometry of a window, or None; bytes_apart: strides and size of an element, for each array and pick."""
    if any(s < 0 or s % size for strides, size in bytes_apart for s in strides):
        return None
    dims = _joined(shape, kept, bytes_apart)
    n = len(arrays)
    step: tuple[int, ...] = (1,) * len(bytes_apart)
    inner, channels, outer = 1, 1, 1
    if dims and not dims[-1][0]:
        _, inner, step = dims.pop()
    channel_stride = (inner,) * len(bytes_apart)
    if dims and dims[-1][0]:
        _, channels, channel_stride = dims.pop()
    outer_stride: tuple[int, ...] = (0,) * len(bytes_apart)
    if dims and not dims[-1][0]:
        _, outer, outer_stride = dims.pop()
    if dims or step[:n] != (1,) * n:
        return None
    row = channels * inner
    rows = inner < ROWS_BELOW and all(s == inner for s in channel_stride[:n])
    run = inner
    if rows:
        run = row if any(s != row for s in outer_stride[:n]) and outer > 1 else SHORT
    if run < SHORT or not (rows or all(s in (0, 1) for s in step)):
        return None
    last = ((outer - 1, outer_stride), (channels - 1, channel_stride), (inner - 1, step))
    spans = [1 + sum(m * s[k] for m, s in last) for k in range(len(bytes_apart))]
    named = [dict(zip((*arrays, *picks), s, strict=True)) for s in (outer_stride, channel_stride, step, spans)]
    return Geometry(outer, channels, inner, rows, arrays, picks, *named)


def _joined(
    shape: tuple[int, ...], kept: tuple[bool, ...], bytes_apart: tuple[tuple[tuple[int, ...], int], ...]
) -> list[tuple[bool, int, tuple[int, ...]]]:
    """(kept, size, strides in elements) of each axis, neighbours of one kind joined where they touch."""
    dims: list[tuple[bool, int, tuple[int, ...]]] = []
    for d, n in enumerate(shape):
        if n == 1:
            continue
        strides = tuple(apart[d] // size for apart, size in bytes_apart)
        if dims and dims[-1][0] == kept[d] and all(p == n * s for p, s in zip(dims[-1][2], strides, strict=True)):
            dims[-1] = (kept[d], dims[-1][1] * n, strides)
        else:
            dims.append((kept[d], n, strides))
    return dims
