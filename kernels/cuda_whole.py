"""CUDA, a channel at a time: one block of threads has all of a channel, sums it up, and writes it in the same launch.

That is for channels whose values are still in a cache when they are read again: they cross the memory once. The places
of a channel are as in `cuda_planes.py`. What is summed up has its own, `sum_...`, as its bits are not to depend on the
other arrays.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

from numba import cuda, float64, int64

from .activation import activate
from .cuda_common import added, gradient, merged
from .cuda_jit import kernel
from .cuda_learn import inverse_std
from .cuda_planes import part, stepped
from .cuda_wide import WIDE, divided, number_at, put_four, put_one, take_four, take_one
from .point import flow
from .welford import scale_of


@cache
def family(size: int, sum_wide: int, sum_deep: int, wide: int, deep: int) -> Any:
    """The kernels for blocks of `size` threads, a power of two; a grid has a block for each channel.

    (step_o, step_i): outers and places from one place of a thread to its next.
    """
    held = wide * deep
    take, put = (take_four, put_four) if wide == WIDE else (take_one, put_one)
    moments_of, sums_of = part(sum_wide, sum_deep).moments, part(sum_wide, sum_deep).sums

    @kernel
    def train(
        sum_x, sum_outer, sum_channel, sum_outers, sum_run, sum_step_o, sum_step_i,
        x, x_outer, x_channel, out, out_outer, out_channel, outer, channels, run, step_o, step_i, gamma, beta, eps,
        residual, r_outer, r_channel, activation, stats,
    ):  # fmt: skip
        """Out = activation((x - mean) * scale + beta + residual); stats (3, channels), flat: count, mean, M2."""
        # A line each: the simulator tells them apart by it.
        n = cuda.shared.array(size, float64)
        mean = cuda.shared.array(size, float64)
        m2 = cuda.shared.array(size, float64)
        v = cuda.local.array(held, float64)
        z = cuda.local.array(wide, float64)
        os = cuda.local.array(deep, int64)
        js = cuda.local.array(deep, int64)
        lane, c, end = cuda.threadIdx.x, cuda.blockIdx.x, outer * run
        o, i = divided(lane, sum_run)
        n[lane], mean[lane], m2[lane] = moments_of(
            sum_x, sum_outer, sum_channel, o, i, lane, sum_outers * sum_run, size, sum_step_o, sum_step_i, sum_run, c,
            None,
        )  # fmt: skip
        merged(n, mean, m2, lane, size, size, 1)
        m, a = mean[0], scale_of(n[0], m2[0], number_at(gamma, c), eps)
        f = 0.0 if beta is None else number_at(beta, c)
        if lane == 0:
            stats[c], stats[channels + c], stats[2 * channels + c] = n[0], mean[0], m2[0]
        p, q, s, place = c * x_channel, c * out_channel, c * r_channel, lane
        o, i = divided(place, run)
        while place + (deep - 1) * size < end:
            for u in range(deep):
                os[u], js[u] = o, i * wide
                take(x, p + o * x_outer + i * wide, v, u * wide)
                o, i = stepped(o, i, step_o, step_i, run)
            for u in range(deep):
                if residual is not None:
                    take(residual, s + os[u] * r_outer + js[u], z, 0)
                for e in range(wide):
                    value = (v[u * wide + e] - m) * a + f
                    v[u * wide + e] = activate(activation, value if residual is None else value + z[e])
                put(out, q + os[u] * out_outer + js[u], v, u * wide)
            place += deep * size
        while place < end:
            take(x, p + o * x_outer + i * wide, v, 0)
            if residual is not None:
                take(residual, s + o * r_outer + i * wide, z, 0)
            for e in range(wide):
                value = (v[e] - m) * a + f
                v[e] = activate(activation, value if residual is None else value + z[e])
            put(out, q + o * out_outer + i * wide, v, 0)
            o, i = stepped(o, i, step_o, step_i, run)
            place += size

    @kernel
    def back(
        sum_dy, sum_dy_outer, sum_dy_channel, sum_x, sum_outer, sum_channel, sum_r, sum_r_outer, sum_r_channel,
        sum_outers, sum_run, sum_step_o, sum_step_i,
        dy, dy_outer, dy_channel, x, x_outer, x_channel, dx, dx_outer, dx_channel, dz, dz_outer, dz_channel,
        outer, channels, run, step_o, step_i, stats, gamma, beta, eps, act, residual, r_outer, r_channel, ways,
    ):  # fmt: skip
        """Gradients of x, and of the residual into dz; ways (4, channels), flat: as those of `cuda_learn.ways`."""
        s1 = cuda.shared.array(size, float64)
        s2 = cuda.shared.array(size, float64)
        g = cuda.local.array(held, float64)
        v = cuda.local.array(held, float64)
        os = cuda.local.array(deep, int64)
        js = cuda.local.array(deep, int64)
        lane, c, end = cuda.threadIdx.x, cuda.blockIdx.x, outer * run
        n, m = number_at(stats, c), number_at(stats, channels + c)
        inverse = inverse_std(number_at(stats, 2 * channels + c) / n if n > 0.0 else 0.0, eps)
        a = inverse if gamma is None else inverse * number_at(gamma, c)
        f = None if beta is None else number_at(beta, c)
        one_act = None if act is None else (act, a, f)
        o, i = divided(lane, sum_run)
        s1[lane], s2[lane] = sums_of(
            sum_dy, sum_dy_outer, sum_dy_channel, sum_x, sum_outer, sum_channel, o, i, lane, sum_outers * sum_run, size,
            sum_step_o, sum_step_i, sum_run, c, None, m, one_act, sum_r, sum_r_outer, sum_r_channel,
        )  # fmt: skip
        added(s1, s2, lane, size, size, 1)
        share, sum_g, sum_gd = a / n if n > 0.0 else 0.0, s1[0], s2[0]
        b, k = share * sum_g, share * sum_gd * inverse * inverse
        if lane == 0:
            ways[c], ways[channels + c] = b, k
            ways[2 * channels + c], ways[3 * channels + c] = sum_gd * inverse, sum_g
        p, q, s, y, w, place = c * dy_channel, c * x_channel, c * r_channel, c * dx_channel, c * dz_channel, lane
        o, i = divided(place, run)
        while place + (deep - 1) * size < end:
            for u in range(deep):
                os[u], js[u] = o, i * wide
                take(dy, p + o * dy_outer + i * wide, g, u * wide)
                take(x, q + o * x_outer + i * wide, v, u * wide)
                o, i = stepped(o, i, step_o, step_i, run)
            for u in range(deep):
                for e in range(wide):
                    at, r = u * wide + e, s + os[u] * r_outer + js[u] + e
                    g[at] = flow(one_act, g[at], v[at], m, 0, residual, r)
                    v[at] = gradient(g[at], v[at], m, a, b, k, b, None, os[u], c, js[u] + e)
                if dz is not None:
                    put(dz, w + os[u] * dz_outer + js[u], g, u * wide)
                put(dx, y + os[u] * dx_outer + js[u], v, u * wide)
            place += deep * size
        while place < end:
            take(dy, p + o * dy_outer + i * wide, g, 0)
            take(x, q + o * x_outer + i * wide, v, 0)
            for e in range(wide):
                g[e] = flow(one_act, g[e], v[e], m, 0, residual, s + o * r_outer + i * wide + e)
                v[e] = gradient(g[e], v[e], m, a, b, k, b, None, o, c, i * wide + e)
            if dz is not None:
                put(dz, w + o * dz_outer + i * wide, g, 0)
            put(dx, y + o * dx_outer + i * wide, v, 0)
            o, i = stepped(o, i, step_o, step_i, run)
            place += size

    return SimpleNamespace(train=train, back=back)
