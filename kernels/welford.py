"""The scalar steps of the moments: closing a tile, merging parts, folding eps and gamma.

Welford's update, taken a tile at a time: within a tile the shifted sums S1 = sum(x - p) and
S2 = sum((x - p)^2) about a pivot p need no division and no dependency from one value to the next,
and between tiles Chan, Golub and LeVeque's merge (1979) joins (count, mean, M2) without cancellation.
"""

import math

import numpy as np

from .jit import helper, kernel
from .more import close_higher, join_extremes, join_higher, merge_higher


@helper
def close(count, pivot, s1, s2):
    """(mean, M2) of `count` values from their sums about `pivot`; scalars, count > 0."""
    shift = s1 / count
    m2 = s2 - s1 * shift
    # Where only the squares overflowed, the variance is beyond float64: infinite rather than unknown.
    beyond = np.inf if abs(s1) < np.inf else np.nan
    return pivot + shift, (m2 if m2 > 0.0 else 0.0) if abs(m2) < np.inf else beyond


@helper
def merge(na, ma, sa, nb, mb, sb):
    """(count, mean, M2) of two parts together (Chan et al. 1979, eq. 2.1); scalars, no branches: it vectorizes."""
    n = na + nb
    total = n if n > 0.0 else 1.0
    a, b, d = na / total, nb / total, mb - ma
    # Infinite means, or a difference beyond float64: the weighted sum is what IEEE arithmetic makes it.
    finite = abs(d) < np.inf
    mean = ma + d * b if finite else ma * a + mb * b
    m2 = sa + sb + (d * d * (na * b) if finite else d * d)
    mean, m2 = mb if na == 0.0 else mean, sb if na == 0.0 else m2
    return n, ma if nb == 0.0 else mean, sa if nb == 0.0 else m2


@helper
def take_in(parts, b, c0, fresh, n, pivot, s1, s2, powers):
    """Merge values of the channels from c0, by their sums about a pivot, into part b; parts as in `join`.

    n (perhaps 0), pivot, s1, s2: (channels,); powers: sums of third and fourth powers, (2, channels), or None.
    fresh: the part holds nothing yet and no n is 0, so that there is nothing to merge.
    """
    c1 = c0 + n.size
    count, mean, m2 = parts[0][b, c0:c1], parts[1][b, c0:c1], parts[2][b, c0:c1]
    take_in_higher(parts[3], b, c0, count, mean, m2, n, pivot, s1, s2, powers)
    if fresh:
        for c in range(n.size):
            count[c] = n[c]
            mean[c], m2[c] = close(n[c], pivot[c], s1[c], s2[c])
        return
    for c in range(n.size):
        tile_mean, tile_m2 = close(n[c] if n[c] > 0.0 else 1.0, pivot[c], s1[c], s2[c])
        count[c], mean[c], m2[c] = merge(count[c], mean[c], m2[c], n[c], tile_mean, tile_m2)


@helper
def take_in_higher(higher, b, c0, count, mean, m2, n, pivot, s1, s2, powers):
    """The same for third and fourth moments, before the others have changed."""
    if higher is not None:
        for c in range(n.size):
            if n[c] > 0.0:
                tile_mean, tile_m2 = close(n[c], pivot[c], s1[c], s2[c])
                m3, m4 = close_higher(n[c], s1[c], s2[c], powers[0, c], powers[1, c])
                higher[0, b, c0 + c], higher[1, b, c0 + c] = merge_higher(
                    count[c], mean[c], m2[c], higher[0, b, c0 + c], higher[1, b, c0 + c],
                    n[c], tile_mean, tile_m2, m3, m4,
                )  # fmt: skip


@helper
def join(into, a, ca, part, b, cb):
    """Merge part b, channel cb of `part` into part a, channel ca of `into`, in place.

    Both are (count, mean, M2, higher, extremes): three arrays (parts, channels), and those of `more.py` or None.
    """
    na, ma, sa = into[0][a, ca], into[1][a, ca], into[2][a, ca]
    nb, mb, sb = part[0][b, cb], part[1][b, cb], part[2][b, cb]
    join_higher(into[3], a, ca, part[3], b, cb, na, ma, sa, nb, mb, sb)
    into[0][a, ca], into[1][a, ca], into[2][a, ca] = merge(na, ma, sa, nb, mb, sb)
    join_extremes(into[4], a, ca, part[4], b, cb)


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
    return gamma / math.sqrt(total)
