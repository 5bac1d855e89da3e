"""Where the elements of arrays lie that the kernels take as they are: rows, or long runs of each channel.

Axes that touch are one. Masks and weights are broadcast, so that theirs may not touch where those of the arrays do: the
outers of rows, and the runs of planes, are up to three axes then (a `Nest`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from numpy.lib.stride_tricks import as_strided

from .arrays import NDArray, kernel_ready

ROWS_BELOW = 32  # a run of fewer values for one channel is taken as part of a row
SHORT = 16  # a contiguous run of fewer values is worth a copy
KEPT = 1024  # geometries that are remembered: working one out takes longer than a small array


@dataclass(frozen=True, slots=True)
class Nest:
    """An axis that is three in one: its place p is (p // (many * few), p // few % many, p % few) along these.

    slowest, slow and fast are the strides of the three, in elements.
    """

    slowest: int
    many: int
    slow: int
    few: int
    fast: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Values that are repeated along x: that of (o, c, i) lies at ``o * outer + c * channel + i * inner``.

    nest: where there is one, it takes the place of `outer` in rows, and of `inner` in planes.
    """

    flat: NDArray
    outer: int
    channel: int
    inner: int
    nest: Nest | None


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Where the elements of arrays lie that the kernels take as they are.

    Element (o, c, i) of array `name` lies at ``o * outer_stride[name] + c * channel_stride[name] + i *
    inner_stride[name]``, and `span[name]` elements of memory hold them all; the inner stride of an array is 1, that of
    a pick may be 0. `rows`: the channels lie side by side in short runs, which is the rows family of kernels.
    There is one object for one geometry: what is worked out from it can be kept by it. `nests`: see `Spread`.
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
    nests: dict[str, Nest]

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
        strides = g.outer_stride[name], g.channel_stride[name], g.inner_stride[name]
        return Spread(self.flat[name], *strides, g.nests.get(name))


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
        {},
    )


def window_over(
    arrays: dict[str, NDArray],
    kept: tuple[bool, ...],
    picks: dict[str, NDArray] | None = None,
    nested: bool = False,
) -> Window | None:
    """One window over all arrays, if each is aligned, native, and strided as the kernels need it.

    nested: whether picks may have a `Nest`.
    """
    views = {**arrays, **picks} if picks else arrays
    strides = []
    for a in views.values():
        if not (a.flags.aligned and a.dtype.isnative):
            return None
        strides.append((a.strides, a.itemsize))
    what = arrays["x"].shape, kept, tuple(arrays), tuple(picks or ()), tuple(strides)
    geometry = _geometry(*what)
    if geometry is None and picks and nested:
        geometry = _nested_geometry(*what)
    if geometry is None:
        return None
    return Window(geometry, {name: _flat(a, geometry.span[name]) for name, a in views.items()})


def _flat(a: NDArray, span: int) -> NDArray:
    """The memory of an array as the kernels take it; strides ascending towards the first axis."""
    if a.flags.c_contiguous:
        return kernel_ready(a.reshape(-1))
    return kernel_ready(as_strided(a, (span,), (a.itemsize,), subok=False))


# Of each array and pick, the strides in bytes and the size of an element.
Apart = tuple[tuple[tuple[int, ...], int], ...]


@dataclass(slots=True)
class _Axis:
    """Neighbouring axes of one kind that touch, as one of so many elements, with the strides of each array."""

    kept: bool
    size: int
    strides: tuple[int, ...]
    axes: tuple[int, ...]


@lru_cache(KEPT)
def _geometry(
    shape: tuple[int, ...], kept: tuple[bool, ...], arrays: tuple[str, ...], picks: tuple[str, ...], apart: Apart
) -> Geometry | None:
    """The geometry of a window, or None."""
    if not _ascending(shape, apart):
        return None
    thirds = _thirds(shape, kept, apart)
    n = len(arrays)
    if thirds is None or thirds[2].strides[:n] != (1,) * n:
        return None
    outer, channels, inner = thirds
    row = channels.size * inner.size
    rows = inner.size < ROWS_BELOW and all(s == inner.size for s in channels.strides[:n])
    run = inner.size
    if rows:
        run = row if any(s != row for s in outer.strides[:n]) and outer.size > 1 else SHORT
    if run < SHORT or not (rows or all(s in (0, 1) for s in inner.strides)):
        return None
    spans = [1 + sum((a.size - 1) * a.strides[k] for a in thirds) for k in range(len(apart))]
    of_each = (outer.strides, channels.strides, inner.strides, spans)
    of = [dict(zip((*arrays, *picks), s, strict=True)) for s in of_each]
    return Geometry(outer.size, channels.size, inner.size, rows, arrays, picks, of[0], of[1], of[2], of[3], {})


@lru_cache(KEPT)
def _nested_geometry(
    shape: tuple[int, ...], kept: tuple[bool, ...], arrays: tuple[str, ...], picks: tuple[str, ...], apart: Apart
) -> Geometry | None:
    """The geometry of the arrays alone, with picks of which one axis of it may be several; or None."""
    n = len(arrays)
    alone = _geometry(shape, kept, arrays, (), apart[:n])
    thirds = _thirds(shape, kept, apart[:n])
    if alone is None or thirds is None or not _ascending(shape, apart[n:]):
        return None
    strides, nests = [], {}
    for name, (steps, size) in zip(picks, apart[n:], strict=True):
        levels = [_levels(third.axes, shape, tuple(s // size for s in steps)) for third in thirds]
        nest = _nest(alone, *levels)
        if nest is not None:
            nests[name] = nest
            levels[0 if alone.rows else 2] = [(0, 0 if alone.rows else 1)]
        if any(len(level) > 1 for level in levels):
            return None
        outer, channel, inner = (level[0][1] if level else 0 for level in levels)
        span = 1 + sum((m - 1) * (s // size) for m, s in zip(shape, steps, strict=True))
        strides.append((outer, channel, inner, span))
    given = (alone.outer_stride, alone.channel_stride, alone.inner_stride, alone.span)
    of = [d | dict(zip(picks, s, strict=True)) for d, s in zip(given, zip(*strides, strict=True), strict=True)]
    return replace(
        alone, picks=picks, outer_stride=of[0], channel_stride=of[1], inner_stride=of[2], span=of[3], nests=nests
    )


def _ascending(shape: tuple[int, ...], apart: Apart) -> bool:
    """Whether all strides are whole elements, and none leads back; that of an axis of one element may."""
    return all(
        step % size == 0 and (step >= 0 or n == 1)
        for strides, size in apart
        for n, step in zip(shape, strides, strict=True)
    )


def _nest(
    g: Geometry, outer: list[tuple[int, int]], channel: list[tuple[int, int]], inner: list[tuple[int, int]]
) -> Nest | None:
    """What a pick needs a `Nest` for, by its levels; None where it needs none, or where that would not do."""
    if g.rows:
        levels, alike = outer, all(stride == 0 for _, stride in (*channel, *inner))
        beside = all(axis == (g.channels, g.inner) for axis in channel) and all(axis == (g.inner, 1) for axis in inner)
        needed = len(outer) > 1 and (alike or beside)
    else:
        levels = inner
        needed = len(inner) > 1 or any(stride not in (0, 1) for _, stride in inner)
    if not needed or len(levels) > 3:
        return None
    (_, slowest), (many, slow), (few, fast) = [(1, 0)] * (3 - len(levels)) + levels
    return Nest(slowest, many, slow, few, fast)


def _levels(axes: tuple[int, ...], shape: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """(size, stride) of axes, neighbours joined where they touch."""
    levels: list[tuple[int, int]] = []
    for d in axes:
        if levels and levels[-1][1] == shape[d] * strides[d]:
            levels[-1] = (levels[-1][0] * shape[d], strides[d])
        else:
            levels.append((shape[d], strides[d]))
    return levels


def _joined(shape: tuple[int, ...], kept: tuple[bool, ...], apart: Apart) -> list[_Axis]:
    """The axes of more than one element, neighbours of one kind joined where they touch in all arrays."""
    axes: list[_Axis] = []
    for d, n in enumerate(shape):
        if n == 1:
            continue
        strides = tuple(steps[d] // size for steps, size in apart)
        last = axes[-1] if axes else None
        if last and last.kept == kept[d] and all(p == n * s for p, s in zip(last.strides, strides, strict=True)):
            axes[-1] = _Axis(kept[d], last.size * n, strides, (*last.axes, d))
        else:
            axes.append(_Axis(kept[d], n, strides, (d,)))
    return axes


def _thirds(shape: tuple[int, ...], kept: tuple[bool, ...], apart: Apart) -> tuple[_Axis, _Axis, _Axis] | None:
    """Outers, channels and runs, or None where there is more; one that is missing has one element."""
    left, n = _joined(shape, kept, apart), len(apart)
    inner = left.pop() if left and not left[-1].kept else _Axis(False, 1, (1,) * n, ())
    channels = left.pop() if left and left[-1].kept else _Axis(True, 1, (inner.size,) * n, ())
    outer = left.pop() if left and not left[-1].kept else _Axis(False, 1, (0,) * n, ())
    return None if left else (outer, channels, inner)
