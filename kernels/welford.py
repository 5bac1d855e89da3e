"""The scalar steps of the moments: closing a tile, merging parts, folding eps and gamma.

Welford's update, taken a tile at a time: within a tile the shifted sums S1 = sum(x - p) and
S2 = sum((x - p)^2) about a pivot p need no division and no dependency from one value to the next,
and between tiles Chan, Golub and LeVeque's merge (1979) joins (count, mean, M2) without cancellation.
"""

import numpy as np

from .jit import helper, inlined, kernel
from .more import close_higher, merge_extremes, merge_higher


@inlined
def close(count, pivot, s1, s2):
    """(mean, M2) of `count` values from their sums about `pivot`; scalars, count > 0."""
    mean = pivot + s1 / count
    m2 = s2 - s1 * (s1 / count)
    if np.isfinite(m2):
        return mean, max(m2, 0.0)
    # Only the squares overflowed: the variance is beyond float64, and infinite rather than unknown.
    if np.isfinite(s1):
        return mean, np.inf
    return mean, np.nan


@inlined
def take_in(parts, b, c, n, pivot, s1, s2, s3, s4):
    """Merge n values of channel c, by their sums about `pivot`, into part b; parts as in `join`, n may be 0."""
    if n > 0.0:
        mean, m2 = close(n, pivot, s1, s2)
        m3, m4 = _closed_higher(parts[3], n, s1, s2, s3, s4)
        _add(parts, b, c, n, mean, m2, m3, m4)


@inlined
def _closed_higher(higher, n, s1, s2, s3, s4):
    if higher is None:
        return 0.0, 0.0
    return close_higher(n, s1, s2, s3, s4)


@inlined
def _add(into, a, ca, nb, mb, sb, tb, ub):
    na, ma, sa = into[0][a, ca], into[1][a, ca], into[2][a, ca]
    _add_higher(into[3], a, ca, na, ma, sa, nb, mb, sb, tb, ub)
    into[0][a, ca], into[1][a, ca], into[2][a, ca] = merge(na, ma, sa, nb, mb, sb)


@inlined
def _add_higher(higher, a, ca, na, ma, sa, nb, mb, sb, tb, ub):
    if higher is not None:
        higher[0, a, ca], higher[1, a, ca] = merge_higher(
            na, ma, sa, higher[0, a, ca], higher[1, a, ca], nb, mb, sb, tb, ub
        )


@inlined
def merge(na, ma, sa, nb, mb, sb):
    """(count, mean, M2) of two parts together (Chan et al. 1979, eq. 2.1); scalars."""
    if nb == 0:
        return na, ma, sa
    if na == 0:
        return nb, mb, sb
    n = na + nb
    d = mb - ma
    if np.isfinite(d):
        return n, ma + d * (nb / n), sa + sb + d * d * (na * (nb / n))
    # Infinite means, or a difference beyond float64: the weighted sum is what IEEE arithmetic makes it.
    return n, ma * (na / n) + mb * (nb / n), sa + sb + d * d


@helper
def join(into, a, ca, part, b, cb):
    """Merge part b, channel cb of `part` into part a, channel ca of `into`, in place.

    Both are (count, mean, M2, higher, extremes): three arrays (parts, channels), and those of `more.py` or None.
    """
    m3, m4 = _higher_of(part[3], b, cb)
    _add(into, a, ca, part[0][b, cb], part[1][b, cb], part[2][b, cb], m3, m4)
    merge_extremes(into[4], a, ca, part[4], b, cb)


@helper
def _higher_of(higher, b, c):
    if higher is None:
        return 0.0, 0.0
    return higher[0, b, c], higher[1, b, c]


@kernel
def merge_tree(parts, c0, c1):
    """Merge the parts of channels c0..c1 in a fixed binary tree, in place; the result is part 0."""
    step = 1
    while step < parts[1].shape[0]:
        for a in range(0, parts[1].shape[0] - step, 2 * step):
            for c in range(c0, c1):
                join(parts, a, c, parts, a + step, c)
        step *= 2


@kernel
def merge_at(into, a, at, part):
    """Merge part 0 of `part` into part a of `into`, its channel k into channel at[k], in place."""
    for k in range(at.size):
        join(into, a, at[k], part, 0, k)


@helper
def scale_of(count, m2, gamma, eps):
    """gamma / sqrt(m2 / count + eps), and 0 without values, or where variance and eps are 0: the channel gives beta."""
    if count == 0.0:
        return 0.0
    total = m2 / count + eps
    if total == 0.0:
        return 0.0
    return gamma / np.sqrt(total)
