"""CUDA, channels along the row: a block of threads takes some columns of a wide row, each row of its threads some rows.

`pack` rows are taken as one wide row of pack x channels x inner columns, so that the threads of a warp have
neighbouring columns also where rows are short. A thread stays in its column: its channel's parameters load once.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

from numba import cuda, float64

from .activation import activate
from .cuda_common import added, apart, closed, counted, finite_or_zero, gradient, merged, way_back
from .cuda_jit import kernel
from .jit import helper
from .memory import load, store
from .point import beside, plus


@helper
def place(j, channels, inner):
    """(row within the pack, channel, inner) of a column."""
    row = channels * inner
    return j // row, j % row // inner, j % inner


@helper
def ends(outer, pack, k, b, blocks):
    """The wide rows of block b that have a row k: from, to."""
    wide = (outer + pack - 1) // pack
    return wide * b // blocks, min(wide * (b + 1) // blocks, (outer - k + pack - 1) // pack)


@helper
def pivot_of(x, base, step, r, last, hop, pack, k, c, i, pick):
    """The first value of a thread's column that counts, or 0."""
    while r < last:
        value = load(x, base + r * step)
        if counted(pick, value, r * pack + k, c, i) != 0.0:
            return finite_or_zero(value)
        r += hop
    return 0.0


@helper
def column(x, base, step, r, last, hop, pack, k, c, i, pick):
    """(count, mean, M2) of the wide rows r, r + hop, ... before `last`, in one column."""
    pivot = pivot_of(x, base, step, r, last, hop, pack, k, c, i, pick)
    s0, s1, s2 = 0.0, 0.0, 0.0
    while r + 3 * hop < last:  # four loads are under way at once
        p, o = base + r * step, r * pack + k
        v0, v1 = load(x, p), load(x, p + hop * step)
        v2, v3 = load(x, p + 2 * hop * step), load(x, p + 3 * hop * step)
        w0, w1 = counted(pick, v0, o, c, i), counted(pick, v1, o + hop * pack, c, i)
        w2, w3 = counted(pick, v2, o + 2 * hop * pack, c, i), counted(pick, v3, o + 3 * hop * pack, c, i)
        d0, d1 = apart(pick, v0, pivot, w0), apart(pick, v1, pivot, w1)
        d2, d3 = apart(pick, v2, pivot, w2), apart(pick, v3, pivot, w3)
        s0 += (w0 + w1) + (w2 + w3)
        s1 += (w0 * d0 + w1 * d1) + (w2 * d2 + w3 * d3)
        s2 += (w0 * d0 * d0 + w1 * d1 * d1) + (w2 * d2 * d2 + w3 * d3 * d3)
        r += 4 * hop
    while r < last:
        v = load(x, base + r * step)
        w = counted(pick, v, r * pack + k, c, i)
        d = apart(pick, v, pivot, w)
        s0 += w
        s1 += w * d
        s2 += w * d * d
        r += hop
    return closed(s0, pivot, s1, s2)


@helper
def column_back(dy, p, dy_step, x, q, x_step, r, last, hop, pack, k, c, i, mean, pick, act, residual, s, r_step):
    """Sums of g and of g * (x - mean) over the wide rows r, r + hop, ... of one column."""
    s1, s2 = 0.0, 0.0
    while r < last:
        g, d, _, gone = way_back(
            dy, p + r * dy_step, x, q + r * x_step, mean, pick, r * pack + k, c, i, act, residual, s + r * r_step
        )
        s1 += 0.0 if gone else g
        s2 += 0.0 if gone else g * d
        r += hop
    return s1, s2


@cache
def family(cols: int, rows: int) -> Any:
    """The kernels for blocks of cols x rows threads, rows a power of two; a grid has blocks of columns x of rows."""
    size = cols * rows

    @kernel
    def moments(x, x_outer, x_channel, outer, channels, inner, pack, pick, parts):
        """Parts (3, blocks of rows, columns), flat: count, mean, M2 of each block's columns."""
        # A line each: the simulator tells them apart by it.
        n = cuda.shared.array(size, float64)
        mean = cuda.shared.array(size, float64)
        m2 = cuda.shared.array(size, float64)
        j, t, b, blocks = cuda.blockIdx.x * cols + cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y, cuda.gridDim.y
        lane, width = t * cols + cuda.threadIdx.x, pack * channels * inner
        n[lane], mean[lane], m2[lane] = 0.0, 0.0, 0.0
        if j < width:
            k, c, i = place(j, channels, inner)
            first, last = ends(outer, pack, k, b, blocks)
            base = k * x_outer + c * x_channel + i
            n[lane], mean[lane], m2[lane] = column(x, base, pack * x_outer, first + t, last, rows, pack, k, c, i, pick)
        merged(n, mean, m2, lane, size, cols)
        if j < width and t == 0:
            parts[b * width + j] = n[lane]
            parts[(blocks + b) * width + j] = mean[lane]
            parts[(2 * blocks + b) * width + j] = m2[lane]

    @kernel
    def transform(
        x, x_outer, x_channel, out, out_outer, out_channel, outer, channels, inner, pack, mean, scale, shift,
        residual, r_outer, r_channel, activation,
    ):  # fmt: skip
        """out = activation((x - mean) * scale + shift + residual), the last blocks of rows first."""
        j, blocks = cuda.blockIdx.x * cols + cuda.threadIdx.x, cuda.gridDim.y
        if j < pack * channels * inner:
            k, c, i = place(j, channels, inner)
            first, last = ends(outer, pack, k, blocks - 1 - cuda.blockIdx.y, blocks)
            m, a, b = mean[c], scale[c], plus(0.0, shift, c)
            p, q, s = (
                k * x_outer + c * x_channel + i,
                k * out_outer + c * out_channel + i,
                k * r_outer + c * r_channel + i,
            )
            r = first + cuda.threadIdx.y
            while r + 3 * rows < last:
                u = r * pack
                v0, v1 = load(x, p + u * x_outer), load(x, p + (u + rows * pack) * x_outer)
                v2, v3 = load(x, p + (u + 2 * rows * pack) * x_outer), load(x, p + (u + 3 * rows * pack) * x_outer)
                for e in range(4):
                    v = v0 if e == 0 else v1 if e == 1 else v2 if e == 2 else v3
                    at = u + e * rows * pack
                    value = beside((v - m) * a + b, residual, s + at * r_outer)
                    store(out, q + at * out_outer, activate(activation, value))
                r += 4 * rows
            while r < last:
                at = r * pack
                value = beside((load(x, p + at * x_outer) - m) * a + b, residual, s + at * r_outer)
                store(out, q + at * out_outer, activate(activation, value))
                r += rows

    @kernel
    def sums(
        dy, dy_outer, dy_channel, x, x_outer, x_channel, outer, channels, inner, pack, pick, mean, act,
        residual, r_outer, r_channel, parts,
    ):  # fmt: skip
        """Parts (2, blocks of rows, columns), flat: sums of g and of g * (x - mean)."""
        s1 = cuda.shared.array(size, float64)
        s2 = cuda.shared.array(size, float64)
        j, t, b, blocks = cuda.blockIdx.x * cols + cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y, cuda.gridDim.y
        lane, width = t * cols + cuda.threadIdx.x, pack * channels * inner
        s1[lane], s2[lane] = 0.0, 0.0
        if j < width:
            k, c, i = place(j, channels, inner)
            first, last = ends(outer, pack, k, b, blocks)
            s1[lane], s2[lane] = column_back(
                dy, k * dy_outer + c * dy_channel + i, pack * dy_outer, x, k * x_outer + c * x_channel + i,
                pack * x_outer, first + t, last, rows, pack, k, c, i, mean, pick, act,
                residual, k * r_outer + c * r_channel + i, pack * r_outer,
            )  # fmt: skip
        added(s1, s2, lane, size, cols)
        if j < width and t == 0:
            parts[b * width + j] = s1[lane]
            parts[(blocks + b) * width + j] = s2[lane]

    @kernel
    def inputs(
        dy, dy_outer, dy_channel, x, x_outer, x_channel, dx, dx_outer, dx_channel, dz, dz_outer, dz_channel,
        outer, channels, inner, pack, pick, mean, act, residual, r_outer, r_channel, a, b, k_,
    ):  # fmt: skip
        """dx = a * g - weight * (b + (x - mean) * k), and g into dz where that is there; the last blocks first."""
        j, blocks = cuda.blockIdx.x * cols + cuda.threadIdx.x, cuda.gridDim.y
        if j < pack * channels * inner:
            k, c, i = place(j, channels, inner)
            first, last = ends(outer, pack, k, blocks - 1 - cuda.blockIdx.y, blocks)
            for r in range(first + cuda.threadIdx.y, last, rows):
                o = r * pack + k
                g, d, w, gone = way_back(
                    dy, o * dy_outer + c * dy_channel + i, x, o * x_outer + c * x_channel + i, mean, pick, o, c, i,
                    act, residual, o * r_outer + c * r_channel + i,
                )  # fmt: skip
                if dz is not None:
                    store(dz, o * dz_outer + c * dz_channel + i, g)
                store(dx, o * dx_outer + c * dx_channel + i, gradient(g, d, w, gone, a, b, k_, c))

    return SimpleNamespace(moments=moments, transform=transform, sums=sums, inputs=inputs)
