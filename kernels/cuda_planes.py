"""CUDA, by channels: a block of threads takes a part of all that one channel has in its runs, for sums of it.

The places of a channel are counted through over all outers, so that short runs keep all threads busy too: there are
`run` in each, of `wide` neighbouring values. A thread is at `deep` of them at once. Blocks of neighbouring channels are
at work together, as they read what lies together.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

from numba import cuda, float64, int64

from .cuda_common import added, closed, counted, finite_or_zero, merged, plus_both, plus_one
from .cuda_jit import device, kernel
from .cuda_wide import WIDE, divided, number_at, take_four, take_one
from .jit import helper
from .memory import load
from .point import act_channel, flow


@helper
def stepped(o, i, step_o, step_i, run):
    """(outer, place in the run) that lie a step further."""
    o, i = o + step_o, i + step_i
    return (o + 1, i - run) if i >= run else (o, i)


@helper
def pivot_of(x, x_outer, base, o, i, place, end, far, step_o, step_i, run, wide, c, pick):
    """The first value that counts of places place, place + far, ... of a channel, or 0."""
    while place < end:
        for e in range(wide):
            value = load(x, base + o * x_outer + i * wide + e)
            if counted(pick, value, o, c, i * wide + e) != 0.0:
                return finite_or_zero(value)
        o, i = stepped(o, i, step_o, step_i, run)
        place += far
    return 0.0


@cache
def part(wide: int, deep: int) -> Any:
    """What a thread sums up of the places place, place + far, ... before `end` of channel c; its first is (o, i)."""
    held = wide * deep
    take = take_four if wide == WIDE else take_one

    @device
    def moments(x, x_outer, x_channel, o, i, place, end, far, step_o, step_i, run, c, pick):
        """(count, mean, M2)."""
        v = cuda.local.array(held, float64)
        s0 = cuda.local.array(1, float64)
        s1 = cuda.local.array(1, float64)
        s2 = cuda.local.array(1, float64)
        os = cuda.local.array(deep, int64)
        js = cuda.local.array(deep, int64)
        base, seen = c * x_channel, 0
        s0[0], s1[0], s2[0] = 0.0, 0.0, 0.0
        pivot = pivot_of(x, x_outer, base, o, i, place, end, far, step_o, step_i, run, wide, c, pick)
        while place + (deep - 1) * far < end:
            for u in range(deep):
                os[u], js[u] = o, i * wide
                take(x, base + o * x_outer + i * wide, v, u * wide)
                o, i = stepped(o, i, step_o, step_i, run)
            for u in range(deep):
                for e in range(wide):
                    plus_one(s0, s1, s2, 0, v[u * wide + e], pivot, pick, os[u], c, js[u] + e)
            seen += deep
            place += deep * far
        while place < end:
            take(x, base + o * x_outer + i * wide, v, 0)
            for e in range(wide):
                plus_one(s0, s1, s2, 0, v[e], pivot, pick, o, c, i * wide + e)
            o, i = stepped(o, i, step_o, step_i, run)
            seen += 1
            place += far
        if pick is None:
            s0[0] = float(seen * wide)
        return closed(s0[0], pivot, s1[0], s2[0])

    @device
    def sums(
        dy, dy_outer, dy_channel, x, x_outer, x_channel, o, i, place, end, far, step_o, step_i, run, c, pick, mean, act,
        residual, r_outer, r_channel,
    ):  # fmt: skip
        """Sums of g and of g * (x - mean); mean, and what belongs to `act`, are numbers."""
        g = cuda.local.array(held, float64)
        v = cuda.local.array(held, float64)
        os = cuda.local.array(deep, int64)
        js = cuda.local.array(deep, int64)
        p, q, s, t1, t2 = c * dy_channel, c * x_channel, c * r_channel, 0.0, 0.0
        while place + (deep - 1) * far < end:
            for u in range(deep):
                os[u], js[u] = o, i * wide
                take(dy, p + o * dy_outer + i * wide, g, u * wide)
                take(x, q + o * x_outer + i * wide, v, u * wide)
                o, i = stepped(o, i, step_o, step_i, run)
            for u in range(deep):
                for e in range(wide):
                    value, r = v[u * wide + e], s + os[u] * r_outer + js[u] + e
                    one = flow(act, g[u * wide + e], value, mean, 0, residual, r)
                    t1, t2 = plus_both(t1, t2, one, value, mean, pick, os[u], c, js[u] + e)
            place += deep * far
        while place < end:
            take(dy, p + o * dy_outer + i * wide, g, 0)
            take(x, q + o * x_outer + i * wide, v, 0)
            for e in range(wide):
                one = flow(act, g[e], v[e], mean, 0, residual, s + o * r_outer + i * wide + e)
                t1, t2 = plus_both(t1, t2, one, v[e], mean, pick, o, c, i * wide + e)
            o, i = stepped(o, i, step_o, step_i, run)
            place += far
        return t1, t2

    return SimpleNamespace(moments=moments, sums=sums)


@cache
def family(size: int, wide: int, deep: int) -> Any:
    """The kernels for blocks of `size` threads, a power of two; a grid is channels x blocks.

    Blocks take turns with the places. (step_o, step_i): outers and places from one of a thread to its next.
    """
    moments_of, sums_of = part(wide, deep).moments, part(wide, deep).sums

    @kernel
    def moments(x, x_outer, x_channel, outer, channels, run, step_o, step_i, pick, parts):
        """Parts (3, blocks of a channel, channels), flat: count, mean, M2."""
        # A line each: the simulator tells them apart by it.
        n = cuda.shared.array(size, float64)
        mean = cuda.shared.array(size, float64)
        m2 = cuda.shared.array(size, float64)
        lane, c, b, blocks = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y, cuda.gridDim.y
        place = b * size + lane
        o, i = divided(place, run)
        n[lane], mean[lane], m2[lane] = moments_of(
            x, x_outer, x_channel, o, i, place, outer * run, blocks * size, step_o, step_i, run, c, pick
        )
        merged(n, mean, m2, lane, size, size, 1)
        if lane == 0:
            parts[b * channels + c] = n[0]
            parts[(blocks + b) * channels + c] = mean[0]
            parts[(2 * blocks + b) * channels + c] = m2[0]

    @kernel
    def sums(
        dy, dy_outer, dy_channel, x, x_outer, x_channel, outer, channels, run, step_o, step_i, pick, mean, act,
        residual, r_outer, r_channel, parts,
    ):  # fmt: skip
        """Parts (2, blocks of a channel, channels), flat: sums of g and of g * (x - mean)."""
        s1 = cuda.shared.array(size, float64)
        s2 = cuda.shared.array(size, float64)
        lane, c, b, blocks = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y, cuda.gridDim.y
        place = b * size + lane
        o, i = divided(place, run)
        s1[lane], s2[lane] = sums_of(
            dy, dy_outer, dy_channel, x, x_outer, x_channel, o, i, place, outer * run, blocks * size, step_o, step_i,
            run, c, pick, number_at(mean, c), act_channel(act, c), residual, r_outer, r_channel,
        )  # fmt: skip
        added(s1, s2, lane, size, size, 1)
        if lane == 0:
            parts[b * channels + c] = s1[0]
            parts[(blocks + b) * channels + c] = s2[0]

    return SimpleNamespace(moments=moments, sums=sums)
