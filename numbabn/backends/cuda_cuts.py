"""How the work on a device is cut into blocks of threads: by shape alone, so that each run gives the same bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..layout import KEPT, Geometry

COLS, ROWS = 32, 8  # threads of a block: a warp beside each other, and so many rows of them
SIZE = 256  # threads of a block for a run
JOIN = 128  # threads that join the parts of one channel
BLOCKS = 1056  # blocks that keep a large card busy: 8 for each of 132 multiprocessors
NARROW = 128  # columns that several short rows fill together
EACH = 4  # values of a thread at least, where there are so many
RUN = 8192  # values of a run for one block of the transform
MOST = 65_535  # blocks along the second axis of a grid


@dataclass(frozen=True, slots=True)
class Rows:
    """A grid of (blocks of columns, blocks of rows), each of cols x rows threads, over rows packed into wider ones."""

    grid: tuple[int, int]
    block: tuple[int, int]
    pack: int


@dataclass(frozen=True, slots=True)
class Planes:
    """Parts of a channel for sums, and how many blocks share a run to be written; `size` threads each."""

    outer_blocks: int
    inner_blocks: int
    runs: int
    size: int


def rows(g: Geometry) -> Rows:
    """The cut of a window of rows."""
    return _rows(g, COLS, ROWS, BLOCKS)


def planes(g: Geometry) -> Planes:
    """The cut of a window of planes."""
    return _planes(g, SIZE, BLOCKS)


@lru_cache(KEPT)
def _rows(g: Geometry, cols: int, threads: int, wanted: int) -> Rows:
    row = g.channels * g.inner
    pack = max(1, min(NARROW // row, g.outer))
    col_blocks = -(-pack * row // cols)
    wide = -(-g.outer // pack)
    row_blocks = max(1, min(wanted // col_blocks, wide // (EACH * threads), MOST))
    return Rows((col_blocks, row_blocks), (cols, threads), pack)


@lru_cache(KEPT)
def _planes(g: Geometry, size: int, wanted: int) -> Planes:
    blocks = max(1, wanted // g.channels)
    outer_blocks = min(g.outer, blocks)
    inner_blocks = max(1, min(blocks // outer_blocks, g.inner // (EACH * size)))
    return Planes(outer_blocks, inner_blocks, max(1, g.inner // RUN), size)
