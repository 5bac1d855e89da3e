"""The scalar steps of the moments: closing a tile, merging two parts, folding eps and gamma.

Welford's update, taken a tile at a time: within a tile the shifted sums S1 = sum(x - p) and
S2 = sum((x - p)^2) about a pivot p need no division and no dependency from one value to the next,
and between tiles Chan, Golub and LeVeque's merge (1979) joins (count, mean, M2) without cancellation.
"""

import numpy as np

from .jit import kernel


@kernel
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


@kernel
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


@kernel
def merge_tree(count, mean, m2):
    """Merge parts in a fixed binary tree, in place; count: (parts,), mean and m2: (parts, channels)."""
    parts, channels = mean.shape
    step = 1
    while step < parts:
        for a in range(0, parts - step, 2 * step):
            b = a + step
            n = count[a]
            for c in range(channels):
                n, mean[a, c], m2[a, c] = merge(count[a], mean[a, c], m2[a, c], count[b], mean[b, c], m2[b, c])
            count[a] = n
        step *= 2


@kernel
def merge_at(count, mean, m2, at, part_count, part_mean, part_m2):
    """Merge a part into channels `at`, in place; count, mean, m2: (channels,), the rest: (at.size,)."""
    for k in range(at.size):
        c = at[k]
        count[c], mean[c], m2[c] = merge(count[c], mean[c], m2[c], part_count[k], part_mean[k], part_m2[k])


@kernel
def scale_of(var, gamma, eps):
    """gamma / sqrt(var + eps), and 0 where both var and eps are 0: a constant channel gives beta."""
    total = var + eps
    if total == 0.0:
        return 0.0
    return gamma / np.sqrt(total)
