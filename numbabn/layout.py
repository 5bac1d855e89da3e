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
class Window:
    """Arrays of one geometry that the kernels take as they are.

    `flat[k]` is array k as a one-dimensional window over its memory; element (o, c, i) of it lies at
    ``o * outer_stride[k] + c * channel_stride[k] + i``.
    """

    outer: int
    channels: int
    inner: int
    flat: tuple[NDArray, ...]
    outer_stride: tuple[int, ...]
    channel_stride: tuple[int, ...]

    @property
    def rows(self) -> bool:
        """Whether the channels lie side by side in short runs: the rows family of kernels."""
        return self.inner < ROWS_BELOW and all(s == self.inner for s in self.channel_stride)

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

    `arrays` are views with axes in memory order; `kept` says which of these axes are channels, and
    `order` and `turned` how a channel parameter is brought into the same order.
    """

    arrays: tuple[NDArray, ...]
    kept: tuple[bool, ...]
    order: tuple[int, ...]
    turned: tuple[bool, ...]
    channel_shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        return math.prod(self.channel_shape)

    @property
    def size(self) -> int:
        return self.arrays[0].size

    def input(self) -> Layout:
        """The first array alone."""
        return replace(self, arrays=self.arrays[:1])

    def window(self) -> Window | None:
        """The whole as one window, or None where the kernels cannot take it."""
        return window_over(self.arrays, self.kept)

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
        shape = self.arrays[0].shape
        for lead in range(1, len(shape)):
            if math.prod(shape[lead:]) < PIECE:
                break
            inside = tuple(a[(0,) * lead] for a in self.arrays)
            if window_over(inside, self.kept[lead:]) is not None:
                whole = tuple(slice(0, n) for n in shape[lead:])
                return [(*(slice(i, i + 1) for i in at), *whole) for at in np.ndindex(*shape[:lead])]
        return list(boxes(shape, PIECE))


def canonical(arrays: tuple[NDArray, ...], axes: tuple[int, ...]) -> Layout:
    """Sort, turn and name the axes of arrays of one shape; axes: the channel axes, ascending."""
    shape = arrays[0].shape
    channel_shape = tuple(shape[a] for a in axes)
    # By the first array alone, so that its statistics have the same bits whatever the others are.
    perm = sorted(range(len(shape)), key=lambda d: abs(arrays[0].strides[d]) or math.inf, reverse=True)
    turned = tuple(arrays[0].strides[d] < 0 for d in perm)
    turn = tuple(slice(None, None, -1) if t else slice(None) for t in turned)
    kept = [d for d in perm if d in axes]
    return Layout(
        arrays=tuple(a.transpose(perm)[turn] for a in arrays),
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


def contiguous_window(arrays: tuple[NDArray, ...], kept: tuple[bool, ...]) -> Window:
    """The window over contiguous arrays whose axes stand in `scratch_order`."""
    channels = math.prod(n for n, k in zip(arrays[0].shape, kept, strict=True) if k)
    rest = arrays[0].size // channels
    last = kept[scratch_order(kept)[-1]]
    outer, inner = (rest, 1) if last else (1, rest)
    flat = tuple(kernel_ready(a.reshape(-1)) for a in arrays)
    return Window(outer, channels, inner, flat, (channels * inner,) * len(flat), (inner,) * len(flat))


def window_over(arrays: tuple[NDArray, ...], kept: tuple[bool, ...]) -> Window | None:
    """One window over all arrays, if each is aligned, native, and strided as the kernels need it."""
    if not all(_addressable(a) for a in arrays):
        return None
    dims = _joined(arrays, kept)
    ones = (1,) * len(arrays)
    _, inner, step = dims.pop() if dims and not dims[-1][0] else (False, 1, ones)
    _, channels, channel_stride = dims.pop() if dims and dims[-1][0] else (True, 1, (inner,) * len(arrays))
    outer_kept, outer, outer_stride = dims.pop() if dims else (False, 1, (0,) * len(arrays))
    if dims or outer_kept or step != ones:
        return None
    row = channels * inner
    if inner < ROWS_BELOW and all(s == inner for s in channel_stride):
        run = row if any(s != row for s in outer_stride) and outer > 1 else SHORT
    else:
        run = inner
    if run < SHORT:
        return None
    last = ((outer - 1, outer_stride), (channels - 1, channel_stride), (inner - 1, step))
    spans = [1 + sum(n * s[k] for n, s in last) for k in range(len(arrays))]
    flat = tuple(
        kernel_ready(as_strided(a, (n,), (a.itemsize,), subok=False)) for a, n in zip(arrays, spans, strict=True)
    )
    return Window(outer, channels, inner, flat, outer_stride, channel_stride)


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
