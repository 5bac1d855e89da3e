"""What the CUDA kernels of both loop families share: picks, sums of a thread, and how a block joins them.

Element (o, c, i) of an array lies at ``o * outer + c * channel + i``, as on the CPU. A pick is None, or (where,
weights, omit): `where` and `weights` each None or (flat, outer, channel, inner), three strides, each perhaps 0; `omit`
None or True. Everything is reckoned in float64.
"""

from numba import cuda

from .cuda_jit import device
from .jit import helper
from .memory import load
from .weights import present
from .welford import close, merge

INFINITY = float("inf")


@helper
def spot(form, o, c, i):
    """What a mask or weights say of an element; 1 for None."""
    if form is None:
        return 1.0
    flat, outer, channel, inner = form
    return load(flat, o * outer + c * channel + i * inner)


@helper
def counted(pick, value, o, c, i):
    """The weight of an element, whose value is given; 1 without a pick."""
    if pick is None:
        return 1.0
    where, weights, omit = pick
    w = spot(weights, o, c, i)
    return present(omit, value, w if spot(where, o, c, i) != 0.0 else 0.0)


@helper
def apart(pick, value, pivot, w):
    """value - pivot, and 0 where nothing is to be seen of the value."""
    if pick is None:
        return value - pivot
    return value - pivot if w != 0.0 else 0.0


@helper
def closed(s0, pivot, s1, s2):
    """(count, mean, M2) of what a thread has seen, by its sums about a pivot; zeros for nothing."""
    mean, m2 = close(s0 if s0 > 0.0 else 1.0, pivot, s1, s2)
    return s0, mean if s0 > 0.0 else 0.0, m2 if s0 > 0.0 else 0.0


@helper
def finite_or_zero(value):
    """A pivot: the value, and 0 for NaN and infinity."""
    return value if abs(value) < INFINITY else 0.0


@helper
def plus_one(s0, s1, s2, e, value, pivot, pick, o, c, i):
    """Sums number e with a value added, by its weight; what has no pick is counted by others."""
    w = counted(pick, value, o, c, i)
    d = apart(pick, value, pivot, w)
    if pick is not None:
        s0[e] += w
    s1[e] += w * d
    s2[e] += w * d * d


@helper
def plus_both(s1, s2, g, value, mean, pick, o, c, i):
    """Sums with g and g * (value - mean) of an element added, where anything of it counts."""
    if gone(pick, value, counted(pick, value, o, c, i)):
        return s1, s2
    return s1 + g, s2 + g * (value - mean)


@helper
def gradient(g, value, mean, a, b, k, offset, pick, o, c, i):
    """The gradient of an element of x; offset: None where the statistics are frozen."""
    w = counted(pick, value, o, c, i)
    result = a * g if offset is None else a * g - w * (b + (value - mean) * k)
    return 0.0 if gone(pick, value, w) else result


@helper
def gone(pick, value, w):
    """Whether nothing of an element counts: its weight is 0, and its value no number."""
    return pick is not None and w == 0.0 and not abs(value) < INFINITY


@device
def merged(n, mean, m2, thread, threads, lanes, left):
    """Merge part p + h * left into part p, h halving, until `left` parts are left, for all to see; shared: (lanes,).

    lanes / left is a power of two; every thread of the block takes part.
    """
    h = lanes // left // 2
    while h > 0:
        cuda.syncthreads()
        for p in range(thread, h * left, threads):
            q = p + h * left
            n[p], mean[p], m2[p] = merge(n[p], mean[p], m2[p], n[q], mean[q], m2[q])
        h //= 2
    cuda.syncthreads()


@device
def added(s1, s2, thread, threads, lanes, left):
    """Add up in the order of `merged`."""
    h = lanes // left // 2
    while h > 0:
        cuda.syncthreads()
        for p in range(thread, h * left, threads):
            s1[p] += s1[p + h * left]
            s2[p] += s2[p + h * left]
        h //= 2
    cuda.syncthreads()
