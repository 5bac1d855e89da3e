"""The verbs on a CUDA device; the arrays of a layout are shadows on it. The work is cut by how they lie alone.

Everything goes on the stream of x. Parameters go to the device, and statistics come back, which waits for them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arrays import NDArray
from ..devices import Place, Shadow, download, empty, upload
from ..geometry import Geometry, Window
from ..layout import Layout
from . import Parts, cuda_cuts, cuts
from .cuda_gather import boxed
from .cuda_launch import launch

kernels = cuts.kernels
Cut = cuda_cuts.Rows | cuda_cuts.Planes


def moments(layout: Layout, omit: bool = False, higher: bool = False, extremes: bool = False) -> Parts:
    """As `Backend.moments`."""
    if higher or extremes:
        raise ValueError("`extra` is not there for arrays on a device; move the array to the host first")
    place = _place(layout)
    window = layout.window()
    if window is not None:
        return _parts(download(moments_of_window(window, omit, place)), layout.channels)
    return _moments_of_boxes(layout, omit)


def transform(layout: Layout, mean: NDArray, scale: NDArray, shift: NDArray | None, activation: Any = None) -> None:
    """As `Backend.transform`."""
    place, act = _place(layout), cuts.activation(activation)
    window = layout.window()
    if window is not None:
        m, a, b = _sent(place, mean, scale, shift)
        transform_window(window, m, a, b, act, place)
        return
    for box, at, part in boxed(layout, ("out",) if "out" in layout.arrays else ("x",)):
        m, a, b = _sent(place, *(None if p is None else p[at] for p in (mean, scale, shift)))
        transform_window(part, m, a, b, act, place)
        box.finish()


def train(
    layout: Layout, gamma: NDArray, beta: NDArray | None, eps: float, omit: bool = False, activation: Any = None
) -> Parts:
    """As `Backend.train`."""
    place = _place(layout)
    x, out = layout.input().window(), layout.unpicked().window()
    if x is None or out is None:
        from ..arithmetic import batch_scale

        parts = moments(layout.input(), omit)
        transform(layout.unpicked(), parts[1], batch_scale(parts[0], parts[2], gamma, eps), beta, activation)
        return parts
    weight, bias = _sent(place, gamma, beta)
    stats = train_window(x, out, weight, bias, eps, omit, cuts.activation(activation), place)
    return _parts(download(stats), layout.channels)


def grad_sums(layout: Layout, mean: NDArray, omit: bool = False, act: Any = None) -> NDArray:
    """As `Backend.grad_sums`."""
    place = _place(layout)
    window = layout.window()
    if window is not None:
        return download(sums_of_window(window, mean, omit, act, place)).reshape(2, -1)
    sums = np.zeros((2, layout.channels))
    for _, at, part in boxed(layout):
        sums[:, at] += download(sums_of_window(part, mean[at], omit, _some(act, at), place)).reshape(2, -1)
    return sums


def grad_inputs(
    layout: Layout,
    mean: NDArray,
    a: NDArray,
    b: NDArray | None,
    k: NDArray | None,
    omit: bool = False,
    act: Any = None,
) -> None:
    """As `Backend.grad_inputs`."""
    place = _place(layout)
    window = layout.window()
    if window is not None:
        inputs_of_window(window, mean, a, b, k, omit, act, place)
        return
    written = ("dx" if "dx" in layout.arrays else "dy", *(("dz",) if "dz" in layout.arrays else ()))
    for box, at, part in boxed(layout, written):
        offset, slope = None if b is None else b[at], None if k is None else k[at]
        inputs_of_window(part, mean[at], a[at], offset, slope, omit, _some(act, at), place)
        box.finish()


def moments_of_window(
    window: Window,
    omit: bool,
    place: Place,
    gamma: Any = None,
    eps: float = 0.0,
    into: tuple[Shadow | None, Shadow | None] = (None, None),
) -> NDArray:
    """Count, mean and M2 of each channel, on the device, (3 * channels,); and the scale by gamma, where it is given.

    into: vectors for the statistics and for the scale.
    """
    g, pick = window.geometry, _pick(window, omit)
    cut = cuda_cuts.summed(window, ("x",))
    parts, many = _parts_of(cut, 3, g, place)
    kernel = _kernel("moments", cut, window, 1, _work(pick, None))
    launch(kernel, cut.grid, _block(cut), place, *window.of("x"), *_taken(cut, g), pick, *many)
    given, scale = into
    stats = empty((3 * g.channels,), np.float64, place) if given is None else given
    blocks, inner, pack = parts
    size = cuda_cuts.join(blocks * inner * pack)
    kernel = kernels("cuda_merge").family(size).finish
    last = (stats, gamma, eps, scale)
    launch(kernel, (g.channels, 1), (size, 1), place, many[-1], blocks, g.channels, inner, pack, *last)
    return stats


def transform_window(window: Window, mean: Any, scale: Any, shift: Any, activation: Any, place: Place) -> None:
    """As `Backend.transform`; parameters on the device."""
    g = window.geometry
    x = window.of("x")
    out = window.of("out") if "out" in window.flat else x
    cut = cuda_cuts.written(window, g.arrays)
    kernel = _kernel("transform", cut, window, 1, _work(None, activation))
    rest = (mean, scale, shift, *window.of("residual"), activation)
    launch(kernel, cut.grid, cut.block, place, *x, *out, *_taken(cut, g), cut.chunk, *rest)


def train_window(
    x: Window,
    out: Window,
    gamma: Any,
    beta: Any,
    eps: float,
    omit: bool,
    activation: Any,
    place: Place,
    into: tuple[Shadow, Shadow] | None = None,
) -> NDArray:
    """Statistics of x on the device, and the transform by them, without the host; x with its picks, out with x."""
    channels = x.geometry.channels
    cut = cuda_cuts.summed(x, ("x",))
    if isinstance(cut, cuda_cuts.Planes) and cut.whole and not (omit or x.geometry.picks):
        learned = into[0] if into else empty((3 * channels,), np.float64, place)
        writes = cuda_cuts.by_channel(out, out.geometry.arrays, cut.size)
        first = out.of("x")
        target = out.of("out") if "out" in out.flat else first
        rest = (gamma, beta, eps, *out.of("residual"), activation, learned)
        sums = (*x.of("x"), x.geometry.outer, cut.run, *cut.step)
        kernel = _whole(cut, writes, out.flat["x"].itemsize, 1, activation).train
        launch(kernel, cut.grid, _block(cut), place, *sums, *first, *target, *_taken(writes, out.geometry), *rest)
        return learned
    new = into or (None, empty((channels,), np.float64, place))
    stats = moments_of_window(x, omit, place, gamma, eps, new)
    transform_window(out, stats[channels : 2 * channels], new[1], beta, activation, place)
    return stats


def back_window(
    forward: Window,
    back: Window,
    stats: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    activation: Any,
    ways: Any,
    place: Place,
) -> bool:
    """The whole way back in one launch, without picks; False where the channels are not small enough for that."""
    cut = cuda_cuts.summed(forward, ("dy", "x"))
    if not (isinstance(cut, cuda_cuts.Planes) and cut.whole):
        return False
    dy, x, dx, dz, other = (back.of(name) for name in ("dy", "x", "dx", "dz", "residual"))
    writes = cuda_cuts.by_channel(back, tuple(name for name in back.geometry.arrays if name != "residual"), cut.size)
    sums = (*forward.of("dy"), *forward.of("x"), *forward.of("residual"), forward.geometry.outer, cut.run, *cut.step)
    rest = (stats, gamma, beta, eps, activation, *other, ways)
    kernel = _whole(cut, writes, back.flat["x"].itemsize, 2, activation).back
    dx = dy if dx[0] is None else dx
    launch(kernel, cut.grid, _block(cut), place, *sums, *dy, *x, *dx, *dz, *_taken(writes, back.geometry), *rest)
    return True


def sums_of_window(window: Window, mean: NDArray, omit: bool, act: Any, place: Place) -> NDArray:
    """Sums of g, then of g * (x - mean), on the device, (2 * channels,)."""
    g = window.geometry
    dy, x, other = window.of("dy"), window.of("x"), window.of("residual")
    pick = _pick(window, omit)
    flow = _act(act, place)
    rest = (pick, *_sent(place, mean), flow, *other)
    cut = cuda_cuts.summed(window, ("dy", "x"), () if other[0] is None else ("residual",))
    parts, many = _parts_of(cut, 2, g, place)
    kernel = _kernel("sums", cut, window, 2, _work(pick, flow and flow[0]))
    launch(kernel, cut.grid, _block(cut), place, *dy, *x, *_taken(cut, g), *rest, *many)
    sums = empty((2 * g.channels,), np.float64, place)
    blocks, inner, pack = parts
    size = cuda_cuts.join(blocks * inner * pack)
    kernel = kernels("cuda_merge").family(size).total
    launch(kernel, (g.channels, 1), (size, 1), place, many[-1], blocks, g.channels, inner, pack, sums)
    return sums


def inputs_of_window(
    window: Window, mean: NDArray, a: NDArray, b: Any, k: Any, omit: bool, act: Any, place: Place
) -> None:
    g = window.geometry
    dy, x, dx, dz, other = (window.of(name) for name in ("dy", "x", "dx", "dz", "residual"))
    if dx[0] is None:
        dx = dy
    pick = _pick(window, omit)
    flow = _act(act, place)
    rest = (pick, *_sent(place, mean), flow, *other, *_sent(place, a, b, k))
    cut = cuda_cuts.written(window, g.arrays)
    kernel = _kernel("inputs", cut, window, 2, _work(pick, flow and flow[0]))
    launch(kernel, cut.grid, cut.block, place, *dy, *x, *dx, *dz, *_taken(cut, g), cut.chunk, *rest)


def _kernel(verb: str, cut: Cut, window: Window, arrays: int, work: int) -> Any:
    """The kernel of a verb for a cut; arrays: how many are read beside each other."""
    deep = cuda_cuts.deep(cut.wide, window.flat["x"].itemsize, arrays, work)
    if isinstance(cut, cuda_cuts.Planes):
        family = kernels("cuda_planes").family(cut.size, cut.wide, deep)
    else:
        room = "cuda_rows" if verb in ("moments", "sums") else "cuda_columns"
        family = kernels(room).family(*cut.block, cut.wide, deep)
    return getattr(family, verb)


def _whole(sums: cuda_cuts.Planes, writes: cuda_cuts.Planes, itemsize: int, arrays: int, activation: Any) -> Any:
    """The kernels for whole channels."""
    work = _work(None, activation)
    sum_deep = cuda_cuts.deep(sums.wide, itemsize, arrays, work if arrays > 1 else 1)
    deep = min(cuda_cuts.EACH, cuda_cuts.deep(writes.wide, itemsize, arrays, work))
    return kernels("cuda_whole").family(sums.size, sums.wide, sum_deep, writes.wide, deep)


def _work(pick: Any, activation: Any) -> int:
    """How much there is to do for a value: with an exponential it takes longer than the memory does."""
    slow = type(activation).__name__ in ("Elu", "Gelu", "Sigmoid", "Silu", "Softplus", "Tanh")
    return 4 if slow else 1 if pick is None else 2


def _block(cut: Cut) -> tuple[int, int]:
    """The threads of a block."""
    return cut.block if isinstance(cut, cuda_cuts.Rows) else (cut.size, 1)


def _taken(cut: Cut, g: Geometry) -> tuple[int, ...]:
    """The shape, as the kernels of a cut take it."""
    if isinstance(cut, cuda_cuts.Rows):
        return g.outer, g.channels, g.inner, cut.pack, cut.full
    return g.outer, g.channels, cut.run, *cut.step


def _parts_of(cut: Cut, numbers: int, g: Geometry, place: Place) -> tuple[tuple[int, int, int], tuple[Any, ...]]:
    """(blocks, inner, pack) that a channel has parts of; and what the kernels take last: where the parts go."""
    if isinstance(cut, cuda_cuts.Rows):
        of = cut.grid[1], g.inner, 1 if cut.joined else cut.pack
        return of, (cut.joined, empty((numbers * math.prod(of) * g.channels,), np.float64, place))
    return (cut.grid[1], 1, 1), (empty((numbers * cut.grid[1] * g.channels,), np.float64, place),)


def _moments_of_boxes(layout: Layout, omit: bool) -> Parts:
    parts = cuts.new_parts(1, layout.channels, False, False)
    place = _place(layout)
    for _, at, part in boxed(layout):
        count, mean, m2, _, _ = _parts(download(moments_of_window(part, omit, place)), at.size)
        cuts.merge_at(parts, 0, at, (count[None], mean[None], m2[None], None, None))
    return parts[0][0], parts[1][0], parts[2][0], None, None


def _place(layout: Layout) -> Place:
    return layout.arrays["x"].place  # type: ignore[attr-defined, no-any-return]


def _parts(stats: NDArray, channels: int) -> Parts:
    count, mean, m2 = (np.array(row) for row in stats.reshape(3, channels))
    return count, mean, m2, None, None


def _sent(place: Place, *parameters: NDArray | None) -> tuple[Any, ...]:
    return tuple(p if p is None or isinstance(p, Shadow) else upload(p, place) for p in parameters)


def _pick(window: Window, omit: bool) -> Any:
    """The pick as the kernels take it (see `kernels/cuda_common.py`)."""
    if not window.geometry.picks and not omit:
        return None
    where, weights = (
        None if s is None else (s.flat, s.outer, s.channel, s.inner)
        for s in (window.spread("where"), window.spread("weights"))
    )
    return where, weights, True if omit else None


def _act(act: Any, place: Place) -> Any:
    """(activation, scale, shift) as the kernels take it."""
    return None if act is None else (cuts.activation(act[0]), *_sent(place, *act[1:]))


def _some(act: Any, at: NDArray) -> Any:
    return None if act is None else (act[0], act[1][at], None if act[2] is None else act[2][at])
