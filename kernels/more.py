"""More of a channel in the same pass, on request: third and fourth moments, extremes, non-finite values.

Each group is flat, or None, and one that is None compiles to nothing: `higher` holds M3 and M4, or the sums of third
and fourth powers about a pivot; `extremes` holds the least, the most, and how many values are NaN or infinite.
"""

import numpy as np

from .jit import helper, maybe
from .memory import load, moved, store
from .vector import select


@maybe
def begin_extremes(extremes, plane, first, n):
    """The extremes of nothing, for n columns from `first` on; plane: how far the three of a column lie apart."""
    for j in range(first, first + n):
        extremes[j], extremes[plane + j], extremes[2 * plane + j] = np.inf, -np.inf, 0.0


@maybe
def tally_higher(higher, width, j, square, d):
    """Add the third and fourth power of a deviation, from its weighted square, to column j of (2, width)."""
    cube = square * d
    k = moved(j, width)
    store(higher, j, load(higher, j) + cube)
    store(higher, k, load(higher, k) + cube * d)


@maybe
def tally_extremes(extremes, width, j, reached, w, value):
    """Take a value of weight w (before NaN are left out: `reached`) into column j of (3, width)."""
    k, m = moved(j, width), moved(j, 2 * width)
    lowest, highest = load(extremes, j), load(extremes, k)
    # A NaN that counts stays, as in NumPy's minimum and maximum.
    keep_low = (lowest <= value) | (lowest != lowest) | (w == 0.0)
    keep_high = (highest >= value) | (highest != highest) | (w == 0.0)
    store(extremes, j, select(keep_low, lowest, value))
    store(extremes, k, select(keep_high, highest, value))
    store(extremes, m, load(extremes, m) + select(abs(value) < np.inf, 0.0, reached))


@maybe
def fold_extremes(extremes, width, j0, j1, into, plane, at_channel):
    """Take columns j0..j1 of (3, width) into the channel that lies at `at_channel` of the extremes of some parts."""
    for j in range(j0, j1):
        _widen(into, plane, at_channel, extremes[j], extremes[width + j], extremes[2 * width + j])


@helper
def _widen(into, plane, p, lowest, highest, nonfinite):
    """Take extremes into those at an index; plane: how far the three lie apart."""
    k, m = moved(p, plane), moved(p, 2 * plane)
    low, high = load(into, p), load(into, k)
    store(into, p, select((low <= lowest) | (low != low), low, lowest))
    store(into, k, select((high >= highest) | (high != high), high, highest))
    store(into, m, load(into, m) + nonfinite)


@maybe
def join_extremes(extremes, others, into, p, part, q):
    """Take the extremes at index q of some parts into those at index p of others."""
    plane = part.parts * part.channels
    lowest, highest = load(others, q), load(others, moved(q, plane))
    _widen(extremes, into.parts * into.channels, p, lowest, highest, load(others, moved(q, 2 * plane)))


@maybe
def join_higher(higher, others, into, p, part, q):
    """Merge third and fourth moments at index q of some parts into those at index p, before the rest has changed."""
    p2, q2 = moved(p, into.parts * into.channels), moved(q, part.parts * part.channels)
    m3, m4 = merge_higher(
        load(into.count, p), load(into.mean, p), load(into.m2, p), load(higher, p), load(higher, p2),
        load(part.count, q), load(part.mean, q), load(part.m2, q), load(others, q), load(others, q2),
    )  # fmt: skip
    store(higher, p, m3)
    store(higher, p2, m4)


@helper
def close_higher(n, s1, s2, s3, s4):
    """(M3, M4) of n values from the sums of their powers about a pivot."""
    d = s1 / n
    return s3 - d * (3.0 * s2 - 2.0 * s1 * d), s4 - d * (4.0 * s3 - d * (6.0 * s2 - 3.0 * s1 * d))


@helper
def merge_higher(na, ma, sa, ta, ua, nb, mb, sb, tb, ub):
    """(M3, M4) of two parts together, from the (count, mean, M2, M3, M4) of each (Pebay 2008, eq. 2.1)."""
    n = na + nb
    d = mb - ma
    e = d / select(n > 0.0, n, 1.0)
    m3 = ta + tb + d * e * e * na * nb * (na - nb) + 3.0 * e * (na * sb - nb * sa)
    m4 = ua + ub + d * e * e * e * na * nb * (na * na - na * nb + nb * nb)
    m4 = m4 + 6.0 * e * e * (na * na * sb + nb * nb * sa) + 4.0 * e * (na * tb - nb * ta)
    m3, m4 = select(na == 0.0, tb, m3), select(na == 0.0, ub, m4)
    return select(nb == 0.0, ta, m3), select(nb == 0.0, ua, m4)
