"""CUDA, long contiguous runs: a block of threads takes a part of the outers and of the run of one channel.

The threads have neighbouring values of a run. Blocks are numbered channel by channel, so that those at work together
read what lies together.
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
def part_of_channel(item, outer, inner, outer_blocks, inner_blocks):
    """(channel, part, from outer, to outer, from inner, to inner) of a block of threads."""
    each = outer_blocks * inner_blocks
    c, b = item // each, item % each
    j, k = b // inner_blocks, b % inner_blocks
    return (
        c,
        b,
        outer * j // outer_blocks,
        outer * (j + 1) // outer_blocks,
        inner * k // inner_blocks,
        inner * (k + 1) // inner_blocks,
    )


@helper
def pivot_of(x, x_outer, at, o0, o1, i0, i1, hop, c, pick):
    """The first value that counts of a thread's part of a channel, or 0."""
    for o in range(o0, o1):
        for i in range(i0, i1, hop):
            value = load(x, o * x_outer + at + i)
            if counted(pick, value, o, c, i) != 0.0:
                return finite_or_zero(value)
    return 0.0


@helper
def runs(x, x_outer, at, o0, o1, i0, i1, hop, c, pick):
    """(count, mean, M2) of values i0, i0 + hop, ... before i1 of the outers o0..o1 of channel c."""
    pivot = pivot_of(x, x_outer, at, o0, o1, i0, i1, hop, c, pick)
    s0, s1, s2 = 0.0, 0.0, 0.0
    for o in range(o0, o1):
        base, i = o * x_outer + at, i0
        while i + 3 * hop < i1:  # four loads are under way at once
            v0, v1 = load(x, base + i), load(x, base + i + hop)
            v2, v3 = load(x, base + i + 2 * hop), load(x, base + i + 3 * hop)
            w0, w1 = counted(pick, v0, o, c, i), counted(pick, v1, o, c, i + hop)
            w2, w3 = counted(pick, v2, o, c, i + 2 * hop), counted(pick, v3, o, c, i + 3 * hop)
            d0, d1 = apart(pick, v0, pivot, w0), apart(pick, v1, pivot, w1)
            d2, d3 = apart(pick, v2, pivot, w2), apart(pick, v3, pivot, w3)
            s0 += (w0 + w1) + (w2 + w3)
            s1 += (w0 * d0 + w1 * d1) + (w2 * d2 + w3 * d3)
            s2 += (w0 * d0 * d0 + w1 * d1 * d1) + (w2 * d2 * d2 + w3 * d3 * d3)
            i += 4 * hop
        while i < i1:
            v = load(x, base + i)
            w = counted(pick, v, o, c, i)
            d = apart(pick, v, pivot, w)
            s0 += w
            s1 += w * d
            s2 += w * d * d
            i += hop
    return closed(s0, pivot, s1, s2)


@cache
def family(size: int) -> Any:
    """The kernels for blocks of `size` threads, a power of two; a grid is channels x parts for the sums."""

    @kernel
    def moments(x, x_outer, x_channel, outer, channels, inner, outer_blocks, inner_blocks, pick, parts):
        """Parts (3, parts of a channel, channels), flat: count, mean, M2."""
        # A line each: the simulator tells them apart by it.
        n = cuda.shared.array(size, float64)
        mean = cuda.shared.array(size, float64)
        m2 = cuda.shared.array(size, float64)
        lane, each = cuda.threadIdx.x, outer_blocks * inner_blocks
        c, b, o0, o1, i0, i1 = part_of_channel(cuda.blockIdx.x, outer, inner, outer_blocks, inner_blocks)
        n[lane], mean[lane], m2[lane] = runs(x, x_outer, c * x_channel, o0, o1, i0 + lane, i1, size, c, pick)
        merged(n, mean, m2, lane, size, 1)
        if lane == 0:
            parts[b * channels + c] = n[0]
            parts[(each + b) * channels + c] = mean[0]
            parts[(2 * each + b) * channels + c] = m2[0]

    @kernel
    def transform(
        x, x_outer, x_channel, out, out_outer, out_channel, channels, inner, inner_blocks, mean, scale, shift,
        residual, r_outer, r_channel, activation,
    ):  # fmt: skip
        """out = activation((x - mean) * scale + shift + residual), the last planes first."""
        item = cuda.gridDim.x - 1 - cuda.blockIdx.x
        plane, part = item // inner_blocks, item % inner_blocks
        o, c = plane // channels, plane % channels
        m, a, b = mean[c], scale[c], plus(0.0, shift, c)
        p, q, s = o * x_outer + c * x_channel, o * out_outer + c * out_channel, o * r_outer + c * r_channel
        i, last = inner * part // inner_blocks + cuda.threadIdx.x, inner * (part + 1) // inner_blocks
        while i + 3 * size < last:
            v0, v1 = load(x, p + i), load(x, p + i + size)
            v2, v3 = load(x, p + i + 2 * size), load(x, p + i + 3 * size)
            for e in range(4):
                v = v0 if e == 0 else v1 if e == 1 else v2 if e == 2 else v3
                at = i + e * size
                store(out, q + at, activate(activation, beside((v - m) * a + b, residual, s + at)))
            i += 4 * size
        while i < last:
            store(out, q + i, activate(activation, beside((load(x, p + i) - m) * a + b, residual, s + i)))
            i += size

    @kernel
    def sums(
        dy, dy_outer, dy_channel, x, x_outer, x_channel, outer, channels, inner, outer_blocks, inner_blocks,
        pick, mean, act, residual, r_outer, r_channel, parts,
    ):  # fmt: skip
        """Parts (2, parts of a channel, channels), flat: sums of g and of g * (x - mean)."""
        s1 = cuda.shared.array(size, float64)
        s2 = cuda.shared.array(size, float64)
        lane, each = cuda.threadIdx.x, outer_blocks * inner_blocks
        c, b, o0, o1, i0, i1 = part_of_channel(cuda.blockIdx.x, outer, inner, outer_blocks, inner_blocks)
        t1, t2 = 0.0, 0.0
        for o in range(o0, o1):
            p, q, r = o * dy_outer + c * dy_channel, o * x_outer + c * x_channel, o * r_outer + c * r_channel
            for i in range(i0 + lane, i1, size):
                g, d, _, gone = way_back(dy, p + i, x, q + i, mean, pick, o, c, i, act, residual, r + i)
                t1 += 0.0 if gone else g
                t2 += 0.0 if gone else g * d
        s1[lane], s2[lane] = t1, t2
        added(s1, s2, lane, size, 1)
        if lane == 0:
            parts[b * channels + c] = s1[0]
            parts[(each + b) * channels + c] = s2[0]

    @kernel
    def inputs(
        dy, dy_outer, dy_channel, x, x_outer, x_channel, dx, dx_outer, dx_channel, dz, dz_outer, dz_channel,
        channels, inner, inner_blocks, pick, mean, act, residual, r_outer, r_channel, a, b, k,
    ):  # fmt: skip
        """dx = a * g - weight * (b + (x - mean) * k), and g into dz where that is there; the last planes first."""
        item = cuda.gridDim.x - 1 - cuda.blockIdx.x
        plane, part = item // inner_blocks, item % inner_blocks
        o, c = plane // channels, plane % channels
        p, q, r = o * dy_outer + c * dy_channel, o * x_outer + c * x_channel, o * r_outer + c * r_channel
        u, z = o * dx_outer + c * dx_channel, o * dz_outer + c * dz_channel
        for i in range(inner * part // inner_blocks + cuda.threadIdx.x, inner * (part + 1) // inner_blocks, size):
            g, d, w, gone = way_back(dy, p + i, x, q + i, mean, pick, o, c, i, act, residual, r + i)
            if dz is not None:
                store(dz, z + i, g)
            store(dx, u + i, gradient(g, d, w, gone, a, b, k, c))

    return SimpleNamespace(moments=moments, transform=transform, sums=sums, inputs=inputs)
