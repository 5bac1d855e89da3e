"""The steps of the moments: closing a tile, merging parts, folding eps and gamma. Each takes one channel or several.

Welford's update, taken a tile at a time: within a tile the shifted sums S1 = sum(x - p) and
S2 = sum((x - p)^2) about a pivot p need no division and no dependency from one value to the next,
and between tiles Chan, Golub and LeVeque's merge (1979) joins (count, mean, M2) without cancellation.
"""

import math

import numpy as np

from .forms import LANES, Eight, Few
from .jit import helper, kernel, maybe
from .memory import at, load, moved, number, store
from .more import begin_extremes, close_higher, join_extremes, join_higher, merge_higher
from .room import clear
from .vector import select


@helper
def close(count, pivot, s1, s2):
    """(mean, M2) of `count` values, more than 0, from their sums about `pivot`."""
    shift = s1 / count
    m2 = s2 - s1 * shift
    # Where only the squares overflowed, the variance is beyond float64: infinite rather than unknown.
    beyond = select(abs(s1) < np.inf, np.inf, np.nan)
    return pivot + shift, select(abs(m2) < np.inf, select(m2 > 0.0, m2, 0.0), beyond)


@helper
def merge(na, ma, sa, nb, mb, sb):
    """(count, mean, M2) of two parts together (Chan et al. 1979, eq. 2.1)."""
    n = na + nb
    total = select(n > 0.0, n, 1.0)
    a, b, d = na / total, nb / total, mb - ma
    # Infinite means, or a difference beyond float64: the weighted sum is what IEEE arithmetic makes it.
    finite = abs(d) < np.inf
    mean = select(finite, ma + d * b, ma * a + mb * b)
    m2 = sa + sb + select(finite, d * d * (na * b), d * d)
    mean, m2 = select(na == 0.0, mb, mean), select(na == 0.0, sb, m2)
    return n, select(nb == 0.0, ma, mean), select(nb == 0.0, sa, m2)


@helper
def begin_part(parts, b, c0, channels, known_by):
    """Part b holds nothing of the channels from c0, whatever lies there.

    known_by: of how many of them that can be seen; the others are written before they are read.
    """
    at_channel = b * parts.channels + c0
    clear(at(parts.count, at_channel), known_by)
    clear(at(parts.mean, at_channel), known_by)
    clear(at(parts.m2, at_channel), known_by)
    clear(at(parts.higher, at_channel), channels)
    clear(at(parts.higher, at_channel + parts.parts * parts.channels), channels)
    begin_extremes(parts.extremes, parts.parts * parts.channels, at_channel, channels)


@helper
def take_in(parts, b, c0, channels, fresh, n, pivot, s1, s2, s3, s4):
    """Merge values of `channels` channels from c0, by their sums about a pivot, into part b.

    n (perhaps 0; one number for all, or for each), pivot and the sums: (channels,), s3 and s4 None where no third and
    fourth moments are kept. fresh: the part holds nothing yet and no n is 0, so that there is nothing to merge.
    """
    at = b * parts.channels + c0
    for c in range(0, channels // LANES * LANES, LANES):
        _take_in(parts, at, fresh, n, pivot, s1, s2, s3, s4, Eight(c))
    if channels % LANES > 0:
        rest = Few(channels // LANES * LANES, channels % LANES)
        _take_in(parts, at, fresh, n, pivot, s1, s2, s3, s4, rest)


@helper
def _take_in(parts, at, fresh, n, pivot, s1, s2, s3, s4, c):
    """`take_in` of the channels at an index; at: where the first channel of the part lies."""
    sums = load(s1, c), load(s2, c), maybe_load(s3, c), maybe_load(s4, c)
    take_in_sums(parts, moved(c, at), fresh, number(n, c), load(pivot, c), sums)


@maybe
def maybe_load(flat, c):
    """What lies at an index; None for None."""
    return load(flat, c)


@helper
def take_in_sums(parts, p, fresh, count, pivot, sums):
    """Merge `count` values, perhaps 0, by their sums about a pivot, of the first to the fourth power, at index p."""
    s1, s2, s3, s4 = sums
    known = select(count > 0.0, count, 1.0)
    mean, m2 = close(known, pivot, s1, s2)
    _take_in_higher(s3, s4, parts, p, known, count, mean, m2, s1, s2)
    if fresh:
        store(parts.count, p, count)
        store(parts.mean, p, mean)
        store(parts.m2, p, m2)
    else:
        n, both, sum2 = merge(load(parts.count, p), load(parts.mean, p), load(parts.m2, p), count, mean, m2)
        store(parts.count, p, n)
        store(parts.mean, p, both)
        store(parts.m2, p, sum2)


@maybe
def _take_in_higher(s3, s4, parts, p, known, count, mean, m2, s1, s2):
    """The same for third and fourth moments, before the others have changed."""
    q = moved(p, parts.parts * parts.channels)
    m3, m4 = close_higher(known, s1, s2, s3, s4)
    m3, m4 = merge_higher(
        load(parts.count, p), load(parts.mean, p), load(parts.m2, p), load(parts.higher, p), load(parts.higher, q),
        count, mean, m2, m3, m4,
    )  # fmt: skip
    store(parts.higher, p, m3)
    store(parts.higher, q, m4)


@helper
def join(into, p, part, q):
    """Merge what lies at index q of some parts into what lies at index p of others, or of the same, in place."""
    na, ma, sa = load(into.count, p), load(into.mean, p), load(into.m2, p)
    nb, mb, sb = load(part.count, q), load(part.mean, q), load(part.m2, q)
    join_higher(into.higher, part.higher, into, p, part, q)
    count, mean, m2 = merge(na, ma, sa, nb, mb, sb)
    store(into.count, p, count)
    store(into.mean, p, mean)
    store(into.m2, p, m2)
    join_extremes(into.extremes, part.extremes, into, p, part, q)


@kernel
def merge_tree(c0, c1, parts):
    """Merge the parts of channels c0..c1 in a fixed binary tree, in place; the result is part 0."""
    step, channels = 1, parts.channels
    rest = (c1 - c0) % LANES
    while step < parts.parts:
        for a in range(0, parts.parts - step, 2 * step):
            p, q = a * channels, (a + step) * channels
            for c in range(c0, c1 - rest, LANES):
                join(parts, Eight(p + c), parts, Eight(q + c))
            if rest > 0:
                join(parts, Few(p + c1 - rest, rest), parts, Few(q + c1 - rest, rest))
        step *= 2
    return True


@kernel
def merge_at(into, a, places, n, part):
    """Merge part 0 of `part` into part a of `into`, its channel k into channel places[k], in place; n channels."""
    for k in range(n):
        join(into, a * into.channels + np.intp(places[k]), part, k)
    return True


@helper
def scale_of(count, m2, gamma, eps):
    """gamma / sqrt(m2 / count + eps), and 0 without values, or where variance and eps are 0: the channel gives beta."""
    if count == 0.0:
        return 0.0
    total = m2 / count + eps
    if total == 0.0:
        return 0.0
    return gamma / math.sqrt(total)
