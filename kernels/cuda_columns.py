"""CUDA, what is written: a block of threads takes some columns of wide rows, each row of its threads some of the rows.

`pack` rows are taken as one wide row of pack x channels x inner columns. A thread has `wide` neighbouring columns, and
stays there: the parameters of their channels load once, and lie in registers like the values of `deep` rows that are
under way at once. An array is taken several values at a time where these lie side by side, at a multiple of so many.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

from numba import cuda, float64, int64

from .activation import activate
from .cuda_common import gradient
from .cuda_jit import kernel
from .cuda_wide import WIDE, divided, number_at, put_four, put_one, take_four, take_one
from .jit import helper
from .memory import load, store
from .point import beside, flow


@helper
def places(j, channels, inner, pack, wide, ks, cs, js):
    """(row within the pack, channel, inner) of `wide` columns from j on."""
    k, c, i = 0, j, 0
    if inner > 1:
        c, i = divided(j, inner)
    if pack > 1:
        k, c = divided(c, channels)
    for e in range(wide):
        ks[e], cs[e], js[e] = k, c, i
        i += 1
        if i == inner:
            c, i = c + 1, 0
            if c == channels:
                k, c = k + 1, 0


@helper
def affine(v, at, wide, m, a, f, z, residual, activation):
    """The results of `wide` values of v, from `at` on, in their place; z: the residual, where there is one."""
    for e in range(wide):
        value = (v[at + e] - m[e]) * a[e] + f[e]
        v[at + e] = activate(activation, value if residual is None else value + z[e])


@cache
def family(cols: int, rows: int, wide: int, deep: int) -> Any:
    """The kernels for blocks of cols x rows threads; a grid has blocks of columns x of rows.

    Of `full` wide rows each block has `chunk`, the first block the last of them: what a sum has read last may still be
    in the cache. The last rows, which fill no wide row, are taken with them.
    """
    held = wide * deep
    take, put = (take_four, put_four) if wide == WIDE else (take_one, put_one)

    @kernel
    def transform(
        x, x_outer, x_channel, out, out_outer, out_channel, outer, channels, inner, pack, full, chunk,
        mean, scale, shift,
        residual, r_outer, r_channel, activation,
    ):  # fmt: skip
        """out = activation((x - mean) * scale + shift + residual)."""
        v = cuda.local.array(held, float64)
        z = cuda.local.array(wide, float64)
        m = cuda.local.array(wide, float64)
        a = cuda.local.array(wide, float64)
        f = cuda.local.array(wide, float64)
        ks = cuda.local.array(wide, int64)
        cs = cuda.local.array(wide, int64)
        js = cuda.local.array(wide, int64)
        j, blocks = (cuda.blockIdx.x * cols + cuda.threadIdx.x) * wide, cuda.gridDim.y
        if j < pack * channels * inner:
            places(j, channels, inner, pack, wide, ks, cs, js)
            for e in range(wide):
                m[e], a[e] = number_at(mean, cs[e]), number_at(scale, cs[e])
                f[e] = 0.0 if shift is None else number_at(shift, cs[e])
            b = blocks - 1 - cuda.blockIdx.y
            r, last = b * chunk + cuda.threadIdx.y, min((b + 1) * chunk, full)
            x_hop, out_hop, r_hop = pack * x_outer, pack * out_outer, pack * r_outer
            p = ks[0] * x_outer + cs[0] * x_channel + js[0] + r * x_hop
            q = ks[0] * out_outer + cs[0] * out_channel + js[0] + r * out_hop
            s = ks[0] * r_outer + cs[0] * r_channel + js[0] + r * r_hop
            x_hop, out_hop, r_hop = rows * x_hop, rows * out_hop, rows * r_hop
            while r + (deep - 1) * rows < last:
                for u in range(deep):
                    take(x, p + u * x_hop, v, u * wide)
                for u in range(deep):
                    if residual is not None:
                        take(residual, s + u * r_hop, z, 0)
                    affine(v, u * wide, wide, m, a, f, z, residual, activation)
                    put(out, q + u * out_hop, v, u * wide)
                r, p, q, s = r + deep * rows, p + deep * x_hop, q + deep * out_hop, s + deep * r_hop
            while r < last:
                take(x, p, v, 0)
                if residual is not None:
                    take(residual, s, z, 0)
                affine(v, 0, wide, m, a, f, z, residual, activation)
                put(out, q, v, 0)
                r, p, q, s = r + rows, p + x_hop, q + out_hop, s + r_hop
            if b == blocks - 1 and cuda.threadIdx.y == 0:  # the rows that fill no wide row
                for e in range(wide):
                    o = full * pack + ks[e]
                    if o < outer:
                        value = (load(x, o * x_outer + cs[e] * x_channel + js[e]) - m[e]) * a[e] + f[e]
                        value = beside(value, residual, o * r_outer + cs[e] * r_channel + js[e])
                        store(out, o * out_outer + cs[e] * out_channel + js[e], activate(activation, value))

    @kernel
    def inputs(
        dy, dy_outer, dy_channel, x, x_outer, x_channel, dx, dx_outer, dx_channel, dz, dz_outer, dz_channel,
        outer, channels, inner, pack, full, chunk, pick, mean, act, residual, r_outer, r_channel, scale, offset, slope,
    ):  # fmt: skip
        """dx = scale * g - weight * (offset + (x - mean) * slope), and g into dz, if there."""
        g = cuda.local.array(held, float64)
        v = cuda.local.array(held, float64)
        m = cuda.local.array(wide, float64)
        a = cuda.local.array(wide, float64)
        b = cuda.local.array(wide, float64)
        k = cuda.local.array(wide, float64)
        ks = cuda.local.array(wide, int64)
        cs = cuda.local.array(wide, int64)
        js = cuda.local.array(wide, int64)
        j, blocks = (cuda.blockIdx.x * cols + cuda.threadIdx.x) * wide, cuda.gridDim.y
        if j < pack * channels * inner:
            places(j, channels, inner, pack, wide, ks, cs, js)
            for e in range(wide):
                m[e], a[e] = number_at(mean, cs[e]), number_at(scale, cs[e])
                b[e] = 0.0 if offset is None else number_at(offset, cs[e])
                k[e] = 0.0 if slope is None else number_at(slope, cs[e])
            block = blocks - 1 - cuda.blockIdx.y
            r, last = block * chunk + cuda.threadIdx.y, min((block + 1) * chunk, full)
            dy_hop, x_hop, dx_hop, dz_hop, r_hop = (
                pack * dy_outer, pack * x_outer, pack * dx_outer, pack * dz_outer, pack * r_outer,
            )  # fmt: skip
            p = ks[0] * dy_outer + cs[0] * dy_channel + js[0] + r * dy_hop
            q = ks[0] * x_outer + cs[0] * x_channel + js[0] + r * x_hop
            y = ks[0] * dx_outer + cs[0] * dx_channel + js[0] + r * dx_hop
            z = ks[0] * dz_outer + cs[0] * dz_channel + js[0] + r * dz_hop
            s = ks[0] * r_outer + cs[0] * r_channel + js[0] + r * r_hop
            dy_hop, x_hop, dx_hop, dz_hop, r_hop = (
                rows * dy_hop, rows * x_hop, rows * dx_hop, rows * dz_hop, rows * r_hop,
            )  # fmt: skip
            while r + (deep - 1) * rows < last:
                for u in range(deep):
                    take(dy, p + u * dy_hop, g, u * wide)
                    take(x, q + u * x_hop, v, u * wide)
                for u in range(deep):
                    for e in range(wide):
                        at, o = u * wide + e, (r + u * rows) * pack + ks[e]
                        g[at] = flow(act, g[at], v[at], m[e], cs[e], residual, s + u * r_hop + e)
                        v[at] = gradient(g[at], v[at], m[e], a[e], b[e], k[e], offset, pick, o, cs[e], js[e])
                    if dz is not None:
                        put(dz, z + u * dz_hop, g, u * wide)
                    put(dx, y + u * dx_hop, v, u * wide)
                r, p, q, s = r + deep * rows, p + deep * dy_hop, q + deep * x_hop, s + deep * r_hop
                y, z = y + deep * dx_hop, z + deep * dz_hop
            while r < last:
                take(dy, p, g, 0)
                take(x, q, v, 0)
                for e in range(wide):
                    g[e] = flow(act, g[e], v[e], m[e], cs[e], residual, s + e)
                    v[e] = gradient(g[e], v[e], m[e], a[e], b[e], k[e], offset, pick, r * pack + ks[e], cs[e], js[e])
                if dz is not None:
                    put(dz, z, g, 0)
                put(dx, y, v, 0)
                r, p, q, s, y, z = r + rows, p + dy_hop, q + x_hop, s + r_hop, y + dx_hop, z + dz_hop
            if block == blocks - 1 and cuda.threadIdx.y == 0:  # the rows that fill no wide row
                for e in range(wide):
                    o = full * pack + ks[e]
                    if o < outer:
                        c, i = cs[e], js[e]
                        value = load(x, o * x_outer + c * x_channel + i)
                        one = load(dy, o * dy_outer + c * dy_channel + i)
                        one = flow(act, one, value, m[e], c, residual, o * r_outer + c * r_channel + i)
                        if dz is not None:
                            store(dz, o * dz_outer + c * dz_channel + i, one)
                        one = gradient(one, value, m[e], a[e], b[e], k[e], offset, pick, o, c, i)
                        store(dx, o * dx_outer + c * dx_channel + i, one)

    return SimpleNamespace(transform=transform, inputs=inputs)
