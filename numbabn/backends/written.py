"""Which kernel writes a result, and how the work is cut."""

from __future__ import annotations

import math
from typing import Any

from ..geometry import Geometry, Window
from . import cuts, machine, passes
from .cuts import GRAIN, SMALL
from .scratch import Call
from .threads import parallel_for

LINE = 64  # bytes
PAST = 32 << 20  # bytes of a result that is too large to be found in a cache by who reads it next
HALVES = 512  # columns of 16 bits that several short rows fill together: beginning a row costs more than its memory
LONG = 32768  # columns of rows that are whole lines of memory together, at most: the parameters of more stay nowhere


def write(window: Window, task: Any, into: str) -> None:
    """Write what a task makes of a window into one of its arrays."""
    kernel, args, items = writing(window, task, into)
    over = kernel.over(*args)
    # Backwards: what a pass over x has just left in the cache comes first.
    parallel_for(lambda lo, hi: over(items - hi, items - lo), items, window.geometry.size <= SMALL)


def writing_piece(window: Window, task: Any, into: str) -> list[Call]:
    """The same as a call, for one thread."""
    kernel, args, items = writing(window, task, into)
    return [(kernel, (0, items, *args))]


def writing(window: Window, task: Any, into: str) -> passes.Pass:
    """The pass that writes what a task makes of a window into one of its arrays."""
    g = window.geometry
    if goes_past(window, into):
        out, items = window.flat[into], min(cuts.ITEMS, max(1, g.size // GRAIN))
        pack = _pack_of_lines(g, LINE // out.itemsize, HALVES if out.itemsize == 2 else cuts.NARROW)
        if pack:
            args: tuple[Any, ...] = (task, out, g.outer, g.channels, g.inner, pack, items)
            return passes.Pass(cuts.kernel("written", "rows_past"), args, items)
        if not cuts.by_rows(g):
            args = (task, out, g.channels, g.inner, g.size, items)
            return passes.Pass(cuts.kernel("written", "planes_past"), args, items)
    return passes.in_cache(g, task, *window.of(into))


def goes_past(window: Window, into: str) -> bool | None:
    """True where a result is to be stored past the cache, else None."""
    g, out = window.geometry, window.flat[into]
    apart = into not in ("x", "dy") and not g.picks and "dz" not in g.arrays
    together = g.outer == 1 or g.outer_stride[into] == g.channels * g.inner
    together = together and (g.channels == 1 or g.channel_stride[into] == g.inner)
    if not (apart and together and g.size * out.itemsize >= PAST and machine.past_the_cache()):
        return None
    other = window.flat.get("residual")
    own = other is None or other.__array_interface__["data"][0] != out.__array_interface__["data"][0]
    return True if own and (cuts.by_rows(g) or g.inner >= 2 * LINE // window.flat[into].itemsize) else None


def _pack_of_lines(g: Geometry, line: int, columns: int) -> int:
    """How many rows are whole lines of memory and so many columns; 0 for runs, and rows that are apart or too long."""
    if not cuts.by_rows(g):
        return 0
    row = g.channels * g.inner
    whole = line // math.gcd(line, row)
    pack = -(-columns // (row * whole)) * whole
    touching = all(g.outer_stride[name] == row for name in g.arrays)
    return pack if touching and pack * row <= LONG and g.outer >= 8 * pack else 0
