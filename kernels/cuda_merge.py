"""CUDA: the parts of each channel become one, in an order that the shape alone decides."""

from functools import cache
from types import SimpleNamespace
from typing import Any

from numba import cuda, float64

from .cuda_common import added, merged
from .cuda_jit import kernel
from .jit import helper
from .welford import merge, scale_of


@helper
def column_of(e, c, channels, inner, pack):
    """(part, column) number e of those of channel c; parts have pack x channels x inner columns."""
    b, q = e // (pack * inner), e % (pack * inner)
    return b, (q // inner * channels + c) * inner + q % inner


@cache
def family(size: int) -> Any:
    """The kernels for blocks of `size` threads, a power of two; a grid has a block for each channel."""

    @kernel
    def finish(parts, blocks, channels, inner, pack, stats, gamma, eps, scale):
        """Stats (3, channels), flat: count, mean, M2; and scale = gamma / sqrt(variance + eps) where gamma is given."""
        # A line each: the simulator tells them apart by it.
        n = cuda.shared.array(size, float64)
        mean = cuda.shared.array(size, float64)
        m2 = cuda.shared.array(size, float64)
        c, lane, width = cuda.blockIdx.x, cuda.threadIdx.x, pack * channels * inner
        na, ma, sa = 0.0, 0.0, 0.0
        for e in range(lane, blocks * pack * inner, size):
            b, j = column_of(e, c, channels, inner, pack)
            nb, mb, sb = parts[b * width + j], parts[(blocks + b) * width + j], parts[(2 * blocks + b) * width + j]
            na, ma, sa = merge(na, ma, sa, nb, mb, sb)
        n[lane], mean[lane], m2[lane] = na, ma, sa
        merged(n, mean, m2, lane, size, size, 1)
        if lane == 0:
            stats[c], stats[channels + c], stats[2 * channels + c] = n[0], mean[0], m2[0]
            if gamma is not None:
                scale[c] = scale_of(n[0], m2[0], gamma[c], eps)

    @kernel
    def total(parts, blocks, channels, inner, pack, sums):
        """Sums (2, channels), flat, of parts (2, blocks, columns)."""
        s1 = cuda.shared.array(size, float64)
        s2 = cuda.shared.array(size, float64)
        c, lane, width = cuda.blockIdx.x, cuda.threadIdx.x, pack * channels * inner
        t1, t2 = 0.0, 0.0
        for e in range(lane, blocks * pack * inner, size):
            b, j = column_of(e, c, channels, inner, pack)
            t1 += parts[b * width + j]
            t2 += parts[(blocks + b) * width + j]
        s1[lane], s2[lane] = t1, t2
        added(s1, s2, lane, size, size, 1)
        if lane == 0:
            sums[c], sums[channels + c] = s1[0], s2[0]

    return SimpleNamespace(finish=finish, total=total)
