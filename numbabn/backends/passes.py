"""The two passes over a window: which kernel measures, which one writes, and how the work is cut for it."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..geometry import Geometry, Window
from . import cuts, machine
from .cuts import GRAIN


class Pass(NamedTuple):
    """A kernel, its arguments behind the range of items, and how many items there are."""

    kernel: Any
    args: tuple[Any, ...]
    items: int


def parts_of(g: Geometry) -> int:
    """How many parts the statistics of a window have."""
    if g.rows:
        return cuts.row_blocks(g)[1]
    _, outer_blocks, inner_blocks = cuts.plane_blocks(g)
    return outer_blocks * inner_blocks


def measuring(window: Window, parts: Any, omit: bool = False) -> Pass:
    """The moments of a window into flat parts, `parts_of` of them."""
    g = window.geometry
    x, outer_stride, channel_stride = window.of("x")
    where: tuple[Any, ...]
    if g.rows:
        pack, row_blocks, col_blocks = cuts.row_blocks(g)
        kernel, items = cuts.kernel("cpu_rows", "moments"), row_blocks * col_blocks
        pick = cuts.pick_of_rows(window, pack, omit)
        where = (x, outer_stride, g.outer, g.channels, g.inner, pack, row_blocks, col_blocks)
    else:
        _, outer_blocks, inner_blocks = cuts.plane_blocks(g)
        blocks = cuts.read_blocks(g)
        kernel, items = cuts.kernel("cpu_planes", "moments"), blocks * outer_blocks * inner_blocks
        pick, shape = cuts.pick_of_planes(window, omit), (g.outer, g.channels, g.inner)
        where = (x, outer_stride, channel_stride, *shape, blocks, outer_blocks, inner_blocks)
    return Pass(kernel, (*where, pick, parts, machine.ahead(window.flat["x"].itemsize)), items)


def in_cache(g: Geometry, task: Any, out: Any, out_outer: int, out_channel: int) -> Pass:
    """What a task makes of a window, through the cache."""
    if cuts.by_rows(g):
        pack, row_blocks, col_blocks = cuts.written_row_blocks(g)
        args: tuple[Any, ...] = (task, out, out_outer, g.outer, g.channels, g.inner, pack, row_blocks, col_blocks)
        return Pass(cuts.kernel("written", "rows"), args, row_blocks * col_blocks)
    inner_blocks = max(1, g.inner // GRAIN)
    args = (task, out, out_outer, out_channel, g.channels, g.inner, inner_blocks)
    return Pass(cuts.kernel("written", "planes"), args, g.outer * g.channels * inner_blocks)


def merging(parts: Any) -> Pass:
    """Flat parts merged into the first of them."""
    return Pass(cuts.kernel("welford", "merge_tree"), (parts,), parts.channels)


def training(
    window: Window, into: str, parts: Any, gamma: Any, beta: Any, eps: float, activation: Any,
    omit: bool = False, past: bool | None = None,
) -> Pass:  # fmt: skip
    """Both passes over planes, channels that stay cached between the two; their moments into the first of the parts."""
    g = window.geometry
    blocks, outer_blocks, inner_blocks = cuts.plane_blocks(g)
    where = (*window.of("x"), *window.of(into), g.outer, g.channels, g.inner, blocks, outer_blocks, inner_blocks)
    by = (cuts.pick_of_planes(window, omit), parts, gamma, beta, eps, *window.of("residual"), activation)
    return Pass(
        cuts.kernel("cpu_planes", "train"), (*where, *by, past, machine.ahead(window.flat["x"].itemsize)), blocks
    )


def summing(g: Geometry, dy: Any, x: Any, pick: Any, mean: Any, act: Any, residual: Any, sums: Any) -> Pass:
    """The sums of the way back into zeros, (2, `parts_of`, channels); dy, x and residual as `window.of` gives them."""
    if g.rows:
        pack, row_blocks, col_blocks = cuts.row_blocks(g)
        where = (*dy[:2], *x[:2], g.outer, g.channels, g.inner, pack, row_blocks, col_blocks)
        args, items = (*where, pick, mean, act, *residual[:2], sums), row_blocks * col_blocks
        return Pass(cuts.kernel("grads", "rows"), args, items)
    blocks, outer_blocks, inner_blocks = cuts.plane_blocks(g)
    where = (*dy, *x, g.outer, g.channels, g.inner, blocks, outer_blocks, inner_blocks)
    args, items = (*where, pick, mean, act, *residual, sums), blocks * outer_blocks * inner_blocks
    return Pass(cuts.kernel("grads", "planes"), args, items)
