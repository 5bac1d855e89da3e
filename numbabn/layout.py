"""From an array and its channel axes to the canonical view (outer, channel, inner), and back.

Axes are sorted by stride, turned where a stride is negative, and joined where they touch. What is
left is one of a few patterns that the kernels take as they are (a `Window`); anything else is cut
into pieces that are, or that are copied through a small scratch tile. x is never copied whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .arrays import NDArray, kernel_ready

ROWS_BELOW = 256  # a run of fewer values for one channel is taken as part of a row
PIECE = 32768  # values in a tile that is copied through scratch; at least so many in one that is not
SHORT = 16  # a contiguous run of fewer values is worth a copy


@dataclass(frozen=True, slots=True)
class Spread:
    """Values that are repeated along x: that of (o, c, i) lies at ``o * outer + c * channel + i * inner``."""

    flat: NDArray
    outer: int
    channel: int
    inner: int


@dataclass(frozen=True, slots=True)
class Window:
    """Arrays of one geometry that the kernels take as they are.

    `flat[name]` is an array as a one-dimensional window over its memory; element (o, c, i) of it lies at
    ``o * outer_stride[name] + c * channel_stride[name] + i``.
    """

    outer: int
    channels: int
    inner: int
    flat: dict[str, NDArray]
    outer_stride: dict[str, int]
    channel_stride: dict[str, int]
    picks: dict[str, Spread]

    def of(self, name: str) -> tuple[NDArray | None, int, int]:
        """(flat, outer stride, channel stride) of an array; None and zeros for one that is not there."""
        if name not in self.flat:
            return None, 0, 0
        return self.flat[name], self.outer_stride[name], self.channel_stride[name]

    @property
    def rows(self) -> bool:
        """Whether the channels lie side by side in short runs: the rows family of kernels."""
        return self.inner < ROWS_BELOW and all(s == self.inner for s in self.channel_stride.values())

    @property
    def geometry(self) -> tuple[int, int, int, bool]:
        """What decides how the work is cut, and so the bits of a sum."""
        return self.outer, self.channels, self.inner, self.rows

    @property
    def size(self) -> int:
        return self.outer * self.channels * self.inner


@dataclass(frozen=True, slots=True)
class Layout:
    """Arrays of one shape, and where their channels are.

    `arrays` are views by name, with axes in memory order, "x" the first; `picks` are "where" and "weights",
    where there are any, as views of the same shape. `kept` says which of the axes are channels, and `order` and
    `turned` how a channel parameter is brought into the same order.
    """

    arrays: dict[str, NDArray]
    picks: dict[str, NDArray]
    kept: tuple[bool, ...]
    order: tuple[int, ...]
    turned: tuple[bool, ...]
    channel_shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        return math.prod(self.channel_shape)

    @property
    def size(self) -> int:
        return self.arrays["x"].size

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes, in memory order."""
        return self.arrays["x"].shape

    def input(self) -> Layout:
        """x alone, with its picks."""
        return replace(self, arrays={"x": self.arrays["x"]})

    def unpicked(self) -> Layout:
        """The arrays without the picks."""
        return replace(self, picks={})

    def window(self) -> Window | None:
        """The whole as one window, or None where the kernels cannot take it."""
        return window_over(self.arrays, self.kept, self.picks)

    def to_channels(self, parameter: NDArray) -> NDArray:
        """A parameter of the channels' shape -> (channels,) in memory order."""
        turn = tuple(slice(None, None, -1) if t else slice(None) for t in self.turned)
        # Always a fresh array: numba would compile anew for one that is read-only.
        return np.array(parameter.transpose(self.order)[turn], order="C").reshape(-1)

    def from_channels(self, values: NDArray) -> NDArray:
        """(channels,) in memory order -> the channels' shape."""
        turn = tuple(slice(None, None, -1) if t else slice(None) for t in self.turned)
        box = values.reshape([self.channel_shape[k] for k in self.order])[turn]
        return np.array(box.transpose(np.argsort(self.order)), order="C")

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
    channel_shape = tuple(x.shape[a] for a in axes)
    # By x alone, so that its statistics have the same bits whatever the others are.
    perm = sorted(range(x.ndim), key=lambda d: abs(x.strides[d]) or math.inf, reverse=True)
    turned = tuple(x.strides[d] < 0 for d in perm)
    turn = tuple(slice(None, None, -1) if t else slice(None) for t in turned)
    kept = [d for d in perm if d in axes]
    return Layout(
        arrays={name: a.transpose(perm)[turn] for name, a in arrays.items()},
        picks={name: a.transpose(perm)[turn] for name, a in (picks or {}).items()},
        kept=tuple(d in axes for d in perm),
        order=tuple(axes.index(d) for d in kept),
        turned=tuple(t for t, d in zip(turned, perm, strict=True) if d in axes),
        channel_shape=channel_shape,
    )


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
    flat = {name: kernel_ready(a.reshape(-1)) for name, a in arrays.items()}
    spread = {n: Spread(kernel_ready(a.reshape(-1)), channels * inner, inner, 1) for n, a in picks.items()}
    return Window(
        outer, channels, inner, flat, dict.fromkeys(flat, channels * inner), dict.fromkeys(flat, inner), spread
    )


def window_over(
    arrays: dict[str, NDArray], kept: tuple[bool, ...], picks: dict[str, NDArray] | None = None
) -> Window | None:
    """One window over all arrays, if each is aligned, native, and strided as the kernels need it."""
    views = (*arrays.values(), *(picks or {}).values())
    if not all(_addressable(a) for a in views):
        return None
    dims = _joined(views, kept)
    n = len(arrays)
    step: tuple[int, ...] = (1,) * len(views)
    inner, channels, outer = 1, 1, 1
    if dims and not dims[-1][0]:
        _, inner, step = dims.pop()
    channel_stride = (inner,) * len(views)
    if dims and dims[-1][0]:
        _, channels, channel_stride = dims.pop()
    outer_stride: tuple[int, ...] = (0,) * len(views)
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
    names = list(arrays)
    last = ((outer - 1, outer_stride), (channels - 1, channel_stride), (inner - 1, step))
    spans = [1 + sum(m * s[k] for m, s in last) for k in range(len(views))]
    flat = [kernel_ready(as_strided(a, (m,), (a.itemsize,), subok=False)) for a, m in zip(views, spans, strict=True)]
    return Window(
        outer,
        channels,
        inner,
        dict(zip(names, flat[:n], strict=True)),
        dict(zip(names, outer_stride[:n], strict=True)),
        dict(zip(names, channel_stride[:n], strict=True)),
        {p: Spread(flat[k], outer_stride[k], channel_stride[k], step[k]) for k, p in enumerate(picks or {}, n)},
    )


def _addressable(a: NDArray) -> bool:
    """Whether elements lie at whole, forward multiples of an aligned, native element."""
    return a.flags.aligned and a.dtype.isnative and all(s >= 0 and s % a.itemsize == 0 for s in a.strides)


def _joined(arrays: tuple[NDArray, ...], kept: tuple[bool, ...]) -> list[tuple[bool, int, tuple[int, ...]]]:
    """(kept, size, strides in elements) of each axis, neighbours of one kind joined where they touch."""
    dims: list[tuple[bool, int, tuple[int, ...]]] = []
    for d in range(arrays[0].ndim):
        n = arrays[0].shape[d]
        if n == 1:
            continue
        strides = tuple(a.strides[d] // a.itemsize for a in arrays)
        if dims and dims[-1][0] == kept[d] and all(p == n * s for p, s in zip(dims[-1][2], strides, strict=True)):
            dims[-1] = (kept[d], dims[-1][1] * n, strides)
        else:
            dims.append((kept[d], n, strides))
    return dims
