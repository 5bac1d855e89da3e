"""More of a channel in the same pass, on request: third and fourth moments, extremes, non-finite values.

Each group is an array or None, and one that is None compiles to nothing: `higher` holds (M3, M4), or the sums of
third and fourth powers about a pivot; `extremes` holds (min, max, how many values are NaN or infinite).
"""

import numpy as np

from .jit import helper, maybe


@maybe
def like(group, width):
    """Sums for `width` columns of a group of parts, or None."""
    return np.empty((group.shape[0], width))


@helper
def clear_higher(higher):
    """The sums of nothing, in place; (2, width)."""
    if higher is not None:
        higher[:] = 0.0


@helper
def clear_extremes(extremes):
    """The extremes of nothing, in place."""
    if extremes is not None:
        extremes[0] = np.inf
        extremes[1] = -np.inf
        extremes[2] = 0.0


@helper
def tally_higher(higher, j, w, d):
    """Add w d^3 and w d^4 to column j of (2, width)."""
    if higher is not None:
        cube = w * d * d * d
        higher[0, j] += cube
        higher[1, j] += cube * d


@helper
def tally_extremes(extremes, j, reached, w, value):
    """Take a value of weight w (before NaN are left out: `reached`) into column j of (3, width)."""
    if extremes is not None:
        lowest, highest = extremes[0, j], extremes[1, j]
        # A NaN that counts stays, as in NumPy's minimum and maximum.
        lower = value if not (lowest <= value or lowest != lowest) else lowest
        higher = value if not (highest >= value or highest != highest) else highest
        extremes[0, j] = lower if w != 0.0 else lowest
        extremes[1, j] = higher if w != 0.0 else highest
        extremes[2, j] += 0.0 if np.isfinite(value) else reached


@helper
def fold_extremes(extremes, j0, j1, into, part, channel):
    """Take columns j0..j1 of (3, width) into one channel of (3, parts, channels)."""
    if extremes is not None:
        for j in range(j0, j1):
            _widen(into, part, channel, extremes[0, j], extremes[1, j], extremes[2, j])


@helper
def _widen(into, part, channel, lowest, highest, nonfinite):
    if not (into[0, part, channel] <= lowest or into[0, part, channel] != into[0, part, channel]):
        into[0, part, channel] = lowest
    if not (into[1, part, channel] >= highest or into[1, part, channel] != into[1, part, channel]):
        into[1, part, channel] = highest
    into[2, part, channel] += nonfinite


@helper
def close_higher(n, s1, s2, s3, s4):
    """(M3, M4) of n values from the sums of their powers about a pivot; scalars."""
    d = s1 / n
    return s3 - d * (3.0 * s2 - 2.0 * s1 * d), s4 - d * (4.0 * s3 - d * (6.0 * s2 - 3.0 * s1 * d))


@helper
def merge_higher(na, ma, sa, ta, ua, nb, mb, sb, tb, ub):
    """(M3, M4) of two parts together, from the (count, mean, M2, M3, M4) of each (Pebay 2008, eq. 2.1); scalars."""
    if nb == 0:
        return ta, ua
    if na == 0:
        return tb, ub
    n = na + nb
    d = mb - ma
    e = d / n
    m3 = ta + tb + d * e * e * na * nb * (na - nb) + 3.0 * e * (na * sb - nb * sa)
    m4 = ua + ub + d * e * e * e * na * nb * (na * na - na * nb + nb * nb)
    return m3, m4 + 6.0 * e * e * (na * na * sb + nb * nb * sa) + 4.0 * e * (na * tb - nb * ta)


@helper
def join_higher(a, at_a, ca, b, at_b, cb, na, ma, sa, nb, mb, sb):
    """Merge part at_b of b, channel cb, into part at_a of a, channel ca; both (2, parts, channels) or None."""
    if a is not None:
        a[0, at_a, ca], a[1, at_a, ca] = merge_higher(
            na, ma, sa, a[0, at_a, ca], a[1, at_a, ca], nb, mb, sb, b[0, at_b, cb], b[1, at_b, cb]
        )


@helper
def join_extremes(a, at_a, ca, b, at_b, cb):
    """Take part at_b of b, channel cb, into part at_a of a, channel ca; both (3, parts, channels) or None."""
    if a is not None:
        _widen(a, at_a, ca, b[0, at_b, cb], b[1, at_b, cb], b[2, at_b, cb])
