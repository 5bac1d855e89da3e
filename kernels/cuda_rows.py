"""CUDA, sums by columns: a block of threads takes some columns of wide rows, each row of its threads some of the rows.

Wide rows, and what `wide` and `deep` are: see `cuda_columns.py`. Blocks take turns with the wide rows, so that those at
work together read what lies together.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

from numba import cuda, float64, int64

from .cuda_columns import places
from .cuda_common import added, closed, counted, finite_or_zero, merged, plus_both, plus_one
from .cuda_jit import kernel
from .cuda_wide import WIDE, number_at, take_four, take_one
from .jit import helper
from .memory import load
from .point import flow


@helper
def pivot_of(x, p, hop, r, full, far, pack, k, c, i, pick):
    """The first value that counts of rows r, r + far, ... of a column, which begin at p, hop apart; or 0."""
    while r < full:
        value = load(x, p)
        if counted(pick, value, r * pack + k, c, i) != 0.0:
            return finite_or_zero(value)
        r += far
        p += hop
    return 0.0


@cache
def family(cols: int, rows: int, wide: int, deep: int) -> Any:
    """The kernels for blocks of cols x rows threads, rows a power of two; a grid has blocks of columns x of rows.

    There are `full` wide rows; the last block has the rows that fill none as well. Where one block of columns has them
    all, `joined` sums are those of the pack together.
    """
    size, held = cols * rows * wide, wide * deep
    take = take_four if wide == WIDE else take_one

    @kernel
    def moments(x, x_outer, x_channel, outer, channels, inner, pack, full, pick, joined, parts):
        """Parts (3, blocks of rows, columns), flat: count, mean, M2; columns of one row where they are joined."""
        # A line each: the simulator tells them apart by it.
        n = cuda.shared.array(size, float64)
        mean = cuda.shared.array(size, float64)
        m2 = cuda.shared.array(size, float64)
        v = cuda.local.array(held, float64)
        pivot = cuda.local.array(wide, float64)
        s0 = cuda.local.array(wide, float64)
        s1 = cuda.local.array(wide, float64)
        s2 = cuda.local.array(wide, float64)
        ks = cuda.local.array(wide, int64)
        cs = cuda.local.array(wide, int64)
        js = cuda.local.array(wide, int64)
        x_thread, t, b, blocks = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y, cuda.gridDim.y
        first_lane, width = (t * cols + x_thread) * wide, pack * channels * inner
        j = (cuda.blockIdx.x * cols + x_thread) * wide
        for e in range(wide):
            n[first_lane + e], mean[first_lane + e], m2[first_lane + e] = 0.0, 0.0, 0.0
        if j < width:
            places(j, channels, inner, pack, wide, ks, cs, js)
            start, step = ks[0] * x_outer + cs[0] * x_channel + js[0], pack * x_outer
            r, far = b * rows + t, blocks * rows
            hop = far * step
            p = start + r * step
            for e in range(wide):
                pivot[e] = pivot_of(x, p + e, hop, r, full, far, pack, ks[e], cs[e], js[e], pick)
                s0[e], s1[e], s2[e] = 0.0, 0.0, 0.0
            seen = 0
            while r + (deep - 1) * far < full:
                for u in range(deep):
                    take(x, p + u * hop, v, u * wide)
                for u in range(deep):
                    for e in range(wide):
                        o = (r + u * far) * pack + ks[e]
                        plus_one(s0, s1, s2, e, v[u * wide + e], pivot[e], pick, o, cs[e], js[e])
                r += deep * far
                p += deep * hop
                seen += deep
            while r < full:
                take(x, p, v, 0)
                for e in range(wide):
                    plus_one(s0, s1, s2, e, v[e], pivot[e], pick, r * pack + ks[e], cs[e], js[e])
                r += far
                p += hop
                seen += 1
            for e in range(wide):
                if pick is None:
                    s0[e] = float(seen)
                o = full * pack + ks[e]
                if b == blocks - 1 and t == 0 and o < outer:  # in the rows that fill no wide row
                    value = load(x, start + full * step + e)
                    if s0[e] == 0.0:
                        pivot[e] = finite_or_zero(value) if counted(pick, value, o, cs[e], js[e]) != 0.0 else 0.0
                    plus_one(s0, s1, s2, e, value, pivot[e], pick, o, cs[e], js[e])
                    if pick is None:
                        s0[e] += 1.0
                lane = first_lane + e
                n[lane], mean[lane], m2[lane] = closed(s0[e], pivot[e], s1[e], s2[e])
        left = channels * inner if joined else cols * wide
        merged(n, mean, m2, t * cols + x_thread, cols * rows, size, left)
        stride = channels * inner if joined else width
        for e in range(t * cols + x_thread, left, cols * rows):
            at = cuda.blockIdx.x * cols * wide + e
            if at < stride:
                parts[b * stride + at] = n[e]
                parts[(blocks + b) * stride + at] = mean[e]
                parts[(2 * blocks + b) * stride + at] = m2[e]

    @kernel
    def sums(
        dy, dy_outer, dy_channel, x, x_outer, x_channel, outer, channels, inner, pack, full,
        pick, mean, act,        residual, r_outer, r_channel, joined, parts,
    ):  # fmt: skip
        """Parts (2, blocks of rows, columns), flat: sums of g and of g * (x - mean); as those of `moments`."""
        s1 = cuda.shared.array(size, float64)
        s2 = cuda.shared.array(size, float64)
        g = cuda.local.array(held, float64)
        v = cuda.local.array(held, float64)
        m = cuda.local.array(wide, float64)
        t1 = cuda.local.array(wide, float64)
        t2 = cuda.local.array(wide, float64)
        ks = cuda.local.array(wide, int64)
        cs = cuda.local.array(wide, int64)
        js = cuda.local.array(wide, int64)
        x_thread, t, b, blocks = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y, cuda.gridDim.y
        thread, width = t * cols + x_thread, pack * channels * inner
        j = (cuda.blockIdx.x * cols + x_thread) * wide
        for e in range(wide):
            t1[e], t2[e] = 0.0, 0.0
        if j < width:
            places(j, channels, inner, pack, wide, ks, cs, js)
            r, far = b * rows + t, blocks * rows
            dy_hop, x_hop, r_hop = pack * dy_outer, pack * x_outer, pack * r_outer
            p = ks[0] * dy_outer + cs[0] * dy_channel + js[0] + r * dy_hop
            q = ks[0] * x_outer + cs[0] * x_channel + js[0] + r * x_hop
            s = ks[0] * r_outer + cs[0] * r_channel + js[0] + r * r_hop
            dy_hop, x_hop, r_hop = far * dy_hop, far * x_hop, far * r_hop
            for e in range(wide):
                m[e] = number_at(mean, cs[e])
            while r + (deep - 1) * far < full:
                for u in range(deep):
                    take(dy, p + u * dy_hop, g, u * wide)
                    take(x, q + u * x_hop, v, u * wide)
                for u in range(deep):
                    for e in range(wide):
                        value, o = v[u * wide + e], (r + u * far) * pack + ks[e]
                        one = flow(act, g[u * wide + e], value, m[e], cs[e], residual, s + u * r_hop + e)
                        t1[e], t2[e] = plus_both(t1[e], t2[e], one, value, m[e], pick, o, cs[e], js[e])
                r, p, q, s = r + deep * far, p + deep * dy_hop, q + deep * x_hop, s + deep * r_hop
            while r < full:
                take(dy, p, g, 0)
                take(x, q, v, 0)
                for e in range(wide):
                    one = flow(act, g[e], v[e], m[e], cs[e], residual, s + e)
                    t1[e], t2[e] = plus_both(t1[e], t2[e], one, v[e], m[e], pick, r * pack + ks[e], cs[e], js[e])
                r, p, q, s = r + far, p + dy_hop, q + x_hop, s + r_hop
            if b == blocks - 1 and t == 0:  # the rows that fill no wide row
                for e in range(wide):
                    o = full * pack + ks[e]
                    if o < outer:
                        value = load(x, o * x_outer + cs[e] * x_channel + js[e])
                        one = load(dy, o * dy_outer + cs[e] * dy_channel + js[e])
                        one = flow(act, one, value, m[e], cs[e], residual, o * r_outer + cs[e] * r_channel + js[e])
                        t1[e], t2[e] = plus_both(t1[e], t2[e], one, value, m[e], pick, o, cs[e], js[e])
        for e in range(wide):
            s1[thread * wide + e], s2[thread * wide + e] = t1[e], t2[e]
        left = channels * inner if joined else cols * wide
        added(s1, s2, thread, cols * rows, size, left)
        stride = channels * inner if joined else width
        for e in range(thread, left, cols * rows):
            at = cuda.blockIdx.x * cols * wide + e
            if at < stride:
                parts[b * stride + at] = s1[e]
                parts[(blocks + b) * stride + at] = s2[e]

    return SimpleNamespace(moments=moments, sums=sums)
