"""What the CUDA kernels of both loop families share: picks, sums of a thread, and how a block joins them.

Element (o, c, i) of an array lies at ``o * outer + c * channel + i``, as on the CPU. A pick is None, or (where,
weights, omit): `where` and `weights` each None or (flat, outer, channel, inner), three strides, each perhaps 0; `omit`
None or True. Everything is reckoned in float64.
"""

from numba import cuda

from .cuda_jit import device
from .jit import helper
from .memory import load
from .point import back, flow
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
def way_back(dy, p, x, q, mean, pick, o, c, i, act, residual, r):
    """(g, x - mean, weight, whether nothing of it counts) of an element; dy at p, x at q, the residual at r."""
    v = load(x, q)
    w = counted(pick, v, o, c, i)
    gone = pick is not None and w == 0.0 and not abs(v) < INFINITY
    return flow(act, load(dy, p), v, mean[c], c, residual, r), v - mean[c], w, gone


@helper
def gradient(g, d, w, gone, a, b, k, c):
    """The gradient of an element of x."""
    return 0.0 if gone else back(g, d, w, a, b, k, c)


@device
def merged(n, mean, m2, lane, lanes, apart_by):
    """Merge part lane + h * apart_by into part lane, h halving, until `apart_by` parts are left; shared: (lanes,).

    lanes / apart_by is a power of two; every thread of the block takes part.
    """
    h = lanes // apart_by // 2
    while h > 0:
        cuda.syncthreads()
        if lane < h * apart_by:
            other = lane + h * apart_by
            n[lane], mean[lane], m2[lane] = merge(n[lane], mean[lane], m2[lane], n[other], mean[other], m2[other])
        h //= 2


@device
def added(s1, s2, lane, lanes, apart_by):
    """Add up in the order of `merged`."""
    h = lanes // apart_by // 2
    while h > 0:
        cuda.syncthreads()
        if lane < h * apart_by:
            s1[lane] += s1[lane + h * apart_by]
            s2[lane] += s2[lane + h * apart_by]
        h //= 2
