"""How the work on a device is cut into blocks of threads: by shape, strides and alignment, and never by the device.

So each run gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from ..devices import pointer_of
from ..geometry import KEPT, Window

COLS = 32  # threads beside each other, where rows are wide
SUMS, WRITES = 256, 128  # threads of a block, about: those that write do not wait for each other
JOIN = 256  # threads that join the parts of one channel, at most
BLOCKS = 1056  # blocks that keep a large card busy: 8 for each of 132 multiprocessors
EACH, STEPS = 4, 8  # steps of a thread at least, where there are so many: for a sum, and to write
SHORT, MANY = 1024, 64  # runs below this that no four values divide are taken as parts of rows, where so many lie
HELD = 1 << 25  # bytes that stay in the cache of a card
NEAR = 1 << 16  # bytes of a channel that one multiprocessor is soon done with
ODD = 1 << 24  # bytes of runs that no four values divide, which may be read by channel
FEW, STEEP = 1 << 21, 4096  # bytes of rows, and values of a channel in them, that may be read by channel
MOST = 65_535  # blocks along the second axis of a grid
WIDE, LINE = 4, 16  # values that are taken at once, and the bytes of memory of which that is a part
DEEP, UNDER_WAY = 8, 64  # loads that a thread has under way at once, at most: so many, of so many bytes


@dataclass(frozen=True, slots=True)
class Rows:
    """A grid of (blocks of columns, blocks of rows), each of cols x rows threads, over rows packed into wider ones.

    There are `full` wide rows; a block that writes has `chunk` of them. joined: one block of columns has them all, and
    joins what the rows of a pack have of a column.
    """

    grid: tuple[int, int]
    block: tuple[int, int]
    pack: int
    full: int
    chunk: int
    joined: bool
    wide: int


@dataclass(frozen=True, slots=True)
class Planes:
    """A grid of (channels, blocks) of `size` threads; an outer has `run` places, and a thread moves on by a `step`.

    whole: one block has all of a channel, small enough to be still in a cache when it is read again.
    """

    grid: tuple[int, int]
    size: int
    run: int
    step: tuple[int, int]
    wide: int
    whole: bool = False


def summed(window: Window, names: tuple[str, ...], beside: tuple[str, ...] = ()) -> Rows | Planes:
    """The cut for sums over these arrays, with others that are read where these are."""
    g = window.geometry
    whole = _whole(window, names)
    if whole is not None:
        return whole
    odd = g.inner < SHORT and g.inner % WIDE != 0 and g.outer >= MANY
    wide = _wide_rows(window, (*names, *beside)) if g.rows or odd else 1
    if g.rows or wide > 1:
        return _rows(g.outer, g.channels * g.inner, wide, EACH, (COLS, SUMS, BLOCKS))
    wide = _wide_planes(window, names)
    run = g.inner // wide
    blocks = max(1, min(BLOCKS // g.channels, g.outer * run // (EACH * SUMS)))
    return Planes((g.channels, blocks), SUMS, run, divmod(blocks * SUMS, run), wide)


def _whole(window: Window, names: tuple[str, ...]) -> Planes | None:
    """The cut into whole channels, where what is read of them is still in a cache for a second time; else None."""
    g = window.geometry
    values = g.outer * g.inner
    nbytes = values * sum(window.flat[name].itemsize for name in names)
    wide, at_once = _wide_planes(window, names), min(g.channels, BLOCKS // 4)
    if g.rows:
        fit = values <= STEEP and nbytes * g.channels <= FEW
    else:
        fit = nbytes * at_once <= HELD and (nbytes <= NEAR or at_once == BLOCKS // 4)
        fit = fit and (wide > 1 or nbytes * g.channels <= ODD)
    if not fit:
        return None
    threads = 1 << max(0, (values // wide // EACH).bit_length() - 1)
    return by_channel(window, names, min(2 * SUMS, max(COLS, threads)))


def by_channel(window: Window, names: tuple[str, ...], size: int) -> Planes:
    """The cut of these arrays for one block of threads for each channel."""
    g = window.geometry
    wide = _wide_planes(window, names)
    run = g.inner // wide
    return Planes((g.channels, 1), size, run, divmod(size, run), wide, True)


def written(window: Window, names: tuple[str, ...]) -> Rows:
    """The cut for what is written by reading these arrays and writing others of them."""
    g = window.geometry
    return _rows(g.outer, g.channels * g.inner, _wide_rows(window, names), STEPS, (COLS, WRITES, 2 * BLOCKS))


def join(parts: int) -> int:
    """How many threads join so many parts: a power of two."""
    return min(JOIN, max(JOIN // 8, 1 << (parts // 4).bit_length()))


def deep(wide: int, itemsize: int, arrays: int, work: int) -> int:
    """How many times `wide` values of each of some arrays are under way at once, by the work for each."""
    return max(1, min(DEEP, UNDER_WAY // (wide * itemsize)) // arrays // work)


def _wide_rows(window: Window, names: tuple[str, ...]) -> int:
    """How many neighbouring columns a thread can take of all these arrays at once."""
    g = window.geometry
    row, apart = g.channels * g.inner, False
    for name in names:
        dense = g.outer == 1 or g.outer_stride[name] == row
        if g.channels > 1 and g.channel_stride[name] != g.inner:
            return 1
        if not _aligned(window, name) or not (dense or g.outer_stride[name] % WIDE == 0):
            return 1
        apart = apart or not dense
    short = WIDE // math.gcd(WIDE, row)
    return 1 if (apart and short > 1) or short > g.outer else WIDE


def _wide_planes(window: Window, names: tuple[str, ...]) -> int:
    """How many neighbouring values of a run a thread can take of all these arrays at once."""
    g = window.geometry
    fit = g.inner % WIDE == 0 and all(
        _aligned(window, name)
        and (g.outer == 1 or g.outer_stride[name] % WIDE == 0)
        and (g.channels == 1 or g.channel_stride[name] % WIDE == 0)
        for name in names
    )
    return WIDE if fit else 1


def _aligned(window: Window, name: str) -> bool:
    flat = window.flat[name]
    return pointer_of(flat) % min(LINE, WIDE * flat.itemsize) == 0


@lru_cache(KEPT)
def _rows(outer: int, row: int, wide: int, each: int, sizes: tuple[int, int, int]) -> Rows:
    cols, size, wanted = sizes
    pack = WIDE // math.gcd(WIDE, row) if wide == WIDE else 1
    joined = pack * row <= size // 2 * wide
    if joined:
        while 2 * pack * row <= 2 * cols * wide and 2 * pack <= outer:
            pack *= 2
        cols = pack * row // wide
    full = outer // pack
    threads = 1 << max(0, (size // cols).bit_length() - 1)  # a power of two
    while not joined and threads > 1 and full < 2 * threads:
        threads, cols = threads // 2, cols * 2
    col_blocks = -(-pack * row // (cols * wide))
    chunk = -(-full // max(1, min(wanted // col_blocks, full // (each * threads), MOST)))
    return Rows((col_blocks, -(-full // chunk)), (cols, threads), pack, full, chunk, joined, wide)
