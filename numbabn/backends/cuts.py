"""How the work of a verb on the CPU is cut into items: by shape alone, so that any threads give the same bits."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ..arrays import NDArray
from ..geometry import KEPT, Geometry, Spread, Window
from . import machine

ITEMS = 128  # the most parts of one reduction, and so the most threads that share it
GRAIN = 131072  # values in an item at least: work that outweighs handing it out by far
SMALL = 4 * GRAIN  # values that the caller does alone: to wake a thread takes longer than half of the work
NARROW = 128  # columns that several short rows fill together: full vectors, parameters that stay in L1
BY_ITSELF = 5  # columns of a row that is worth taking by itself where all of it has one weight
WIDE = 16384  # columns that a block of a longer row has at least: reads are long and sequential
TALL = 256  # rows that a block has at least, where there are so many: closing one costs as much as some 20 rows
HUGE = 32 << 20  # values of which twice as many rows still make enough blocks
SPARE = 1 << 20  # numbers that are kept for the parts of the next call
PARTS = 65536  # partial results, parts x channels, that are kept beside 16 for each channel
FEW = 64  # a run of fewer values is normalized as part of a row, a longer one by itself
LONG = 8192  # values that a block of neighbouring planes has at least, and a block of a row to normalize at most
STREAM = 65536  # values that lie together in what one item reads of an outer, where it is only read
SHARED = 16  # items that a reduction is cut into, where it is worth it, and more only as long as each
MUCH = 1 << 20  # has so many values
MERGES = 65536  # merges of two parts of a channel that are worth handing out
SPREAD = 8  # blocks of channels that are enough to keep all threads busy with whole channels
HELD = 32 << 20  # bytes of all arrays together that the last level may be taken to hold
CACHED = 16 << 20  # bytes that one thread's channels may take for a second read to come from a cache


@cache
def kernels(name: str) -> Any:
    """A file of the kernels' room."""
    return importlib.import_module(f"numbabn.kernels.{name}")


@cache
def kernel(room: str, name: str) -> Any:
    """A kernel of the CPU, to be called like its Python function: see `kernels/entry.py`."""
    return kernels("entry").Kernel(room, name)


def shares(values: int) -> int:
    """Into how many items a reduction over so many values is cut: each has a result, which has to be merged."""
    if values <= SMALL:
        return 1
    return max(1, min(ITEMS, values // GRAIN, max(SHARED, values // MUCH)))


@lru_cache(KEPT)
def row_blocks(g: Geometry) -> tuple[int, int, int]:
    """(rows packed into one, blocks of rows, blocks of columns) of the moments."""
    row, pack = g.channels * g.inner, _pack(g)
    wanted, tall = shares(g.size), TALL if g.size < HUGE else 2 * TALL
    blocks = max(1, min(wanted, g.outer // (tall * pack), max(16, PARTS // g.channels)))
    return pack, blocks, max(1, min(-(-wanted // blocks), row // WIDE, g.channels))


@lru_cache(KEPT)
def written_row_blocks(g: Geometry) -> tuple[int, int, int]:
    """The same for a pass that keeps no sums."""
    row, pack = g.channels * g.inner, _pack(g)
    col_blocks = min(g.channels, -(-row // LONG))
    wanted = min(ITEMS, max(1, g.size // GRAIN))
    return pack, max(1, min(-(-wanted // col_blocks), g.outer // (8 * pack))), col_blocks


def pack_written(g: Geometry) -> int:
    """Rows that `written_row_blocks` packs into one."""
    return _pack(g)


def _pack(g: Geometry) -> int:
    row = g.channels * g.inner
    contiguous = all(g.outer_stride[name] == row for name in g.arrays)
    # A weight for each row of many columns is one number to a row by itself, and a gather to several together.
    by_row = bool(g.picks) and row >= BY_ITSELF and all(_one_for_a_row(g, name) for name in g.picks)
    if not contiguous or by_row:
        return 1
    pack = max(1, min(NARROW // row, g.outer))
    # One shuffle repeats eight weights.
    return pack // 8 * 8 if g.picks and pack >= 8 else pack


def _one_for_a_row(g: Geometry, name: str) -> bool:
    """Whether a pick has one value for all of a row."""
    return (g.channels == 1 or g.channel_stride[name] == 0) and (g.inner == 1 or g.inner_stride[name] == 0)


@lru_cache(KEPT)
def plane_blocks(g: Geometry) -> tuple[int, int, int]:
    """(blocks of channels, blocks of outers, blocks of the run)."""
    together = min(g.channels, -(-LONG // g.inner))
    blocks = -(-g.channels // together)
    wanted = 1 if g.size <= SMALL else min(-(-ITEMS // blocks), max(1, g.size // GRAIN // blocks))
    outer_blocks = min(g.outer, wanted)
    inner_blocks = max(1, min(wanted // outer_blocks, g.inner // LONG))
    return blocks, outer_blocks, inner_blocks


@lru_cache(KEPT)
def read_blocks(g: Geometry) -> int:
    """Blocks of channels where planes are only read: each stream is to be long. They change no bit of a result."""
    _, outer_blocks, inner_blocks = plane_blocks(g)
    parts, row = outer_blocks * inner_blocks, g.channels * g.inner
    wanted = -(-shares(g.size) // parts)
    few = -(-min(SHARED, wanted * parts) // parts)  # as many that several threads have something to do
    return min(g.channels, max(1, min(wanted, row // STREAM), min(few, row // LONG)))


@lru_cache(KEPT)
def by_rows(g: Geometry) -> bool:
    """Whether a window is written row by row, rather than run by run."""
    return g.rows and (g.inner < FEW or any(g.inner_stride[name] > 1 for name in g.picks))


def trained_while_cached(window: Window) -> bool:
    """Whether channels are trained one block after the other, as they stay cached between the two passes.

    The bits are the same either way. Of what the last level holds altogether, a block has to stay in the second level
    for that: else two passes, whose reads are longer, are faster.
    """
    g = window.geometry
    blocks, _, _ = plane_blocks(g)
    values, block = len(g.arrays) * window.flat["x"].itemsize, -(-g.size // blocks)
    if g.size * values <= HELD and block * values > machine.second_level():
        return False
    share = g.size // blocks * (1 + len(g.arrays)) * window.flat["x"].itemsize
    return share <= CACHED and blocks >= SPREAD


def pick_of_rows(window: Window, pack: int, omit: bool) -> Any:
    """The pick as the kernels for rows take it (see `kernels/picks.py`)."""
    g = window.geometry

    def form(spread: Spread | None) -> Any:
        if spread is None:
            return None
        forms = kernels("forms")
        single, short = g.channels == 1, g.inner == 1
        if spread.nest is not None:
            if (single or spread.channel == 0) and (short or spread.inner == 0):
                return _nested(spread, None if pack == 1 else True)
            return forms.NestedDense(spread.flat, spread.channel, _axes(spread))
        beside = (single or spread.channel == g.inner) and (short or spread.inner == 1)
        if beside and (pack == 1 or spread.outer == g.channels * g.inner):
            return forms.Dense(spread.flat, spread.outer, spread.channel)
        shared = single or spread.channel == 0
        if shared and (short or spread.inner == 0):
            if pack == 1:
                return forms.Constant(spread.flat, spread.outer, 0)
            return forms.ByRow(spread.flat, spread.outer)
        if shared and spread.inner == 1 and pack == 1:
            return forms.ByRun(spread.flat, spread.outer)
        return forms.Scattered(spread.flat, spread.outer, spread.channel, spread.inner)

    return _pick(window, form, omit)


def pick_of_planes(window: Window, omit: bool) -> Any:
    """The pick as the kernels for planes take it."""

    def form(spread: Spread | None) -> Any:
        if spread is None:
            return None
        if spread.nest is not None:
            return _nested(spread, None)
        kind = kernels("forms").Dense if spread.inner == 1 else kernels("forms").Constant
        return kind(spread.flat, spread.outer, spread.channel)

    return _pick(window, form, omit)


def _nested(spread: Spread, packed: bool | None) -> Any:
    return kernels("forms").Nested(spread.flat, spread.outer, spread.channel, _axes(spread), packed)


def _axes(spread: Spread) -> Any:
    n = spread.nest
    assert n is not None
    return kernels("forms").Axes(n.slowest, n.many, n.slow, n.few, n.fast)


def _pick(window: Window, form: Any, omit: bool) -> Any:
    if not window.geometry.picks and not omit:
        return None
    return form(window.spread("where")), form(window.spread("weights")), True if omit else None


def activation(spec: tuple[Any, ...] | None) -> Any:
    """The activation as the kernels take it, from (kind, numbers)."""
    if spec is None:
        return None
    return getattr(kernels("forms"), spec[0])(*map(float, spec[1:]))


def new_parts(parts: int, channels: int, higher: bool, extremes: bool) -> tuple[Any, ...]:
    """Parts of nothing: (count, mean, M2, higher, extremes), as in `kernels/welford.join`."""
    count, mean, m2 = np.zeros((3, parts, channels))
    wide: NDArray | None = None
    if extremes:
        wide = np.zeros((3, parts, channels))
        wide[0], wide[1] = np.inf, -np.inf
    return count, mean, m2, np.zeros((2, parts, channels)) if higher else None, wide


_spare: list[NDArray] = []  # memory of parts that nobody uses: new pages take longer than the work on them


@contextlib.contextmanager
def borrowed_parts(parts: int, channels: int, higher: bool, extremes: bool) -> Iterator[tuple[Any, ...]]:
    """Parts that hold anything, to be given back: what is kept of them is a copy."""
    rows = 3 + 2 * higher + 3 * extremes
    size = rows * parts * channels
    memory = _spare.pop() if _spare else np.empty(0)
    if memory.size < size:
        memory = np.empty(size)
    box = memory[:size].reshape(rows, parts, channels)
    yield box[0], box[1], box[2], box[3:5] if higher else None, box[-3:] if extremes else None
    if memory.size <= SPARE and not _spare:
        _spare.append(memory)


def flat_parts(parts: tuple[Any, ...]) -> Any:
    """Parts as the kernels take them."""
    each, channels = parts[0].shape
    return kernels("forms").Parts(*(None if p is None else p.reshape(-1) for p in parts), each, channels)


def merge_at(parts: tuple[Any, ...], a: int, places: NDArray, part: tuple[Any, ...]) -> None:
    """Merge part 0 of `part` into part a of `parts`, its channel k into channel places[k], in place."""
    kernel("welford", "merge_at")(flat_parts(parts), a, places, places.size, flat_parts(part))
