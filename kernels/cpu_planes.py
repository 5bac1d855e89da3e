"""A long contiguous run of `inner` values for each (outer, channel), as in NCHW.

An item of the moments is a block of channels x a block of outers x a part of the run; the blocks
of channels keep neighbouring short runs together. Sums over several runs share one pivot until
enough values have passed for the merge to cost nothing.
"""

import numpy as np

from .cpu_rows import only_with
from .forms import LANES, Affine, Eight, Few
from .jit import helper, inlined, kernel
from .lines import gap, line_of, settle
from .memory import at, load, moved, store
from .more import clear_extremes, fold_extremes, tally_extremes, tally_higher
from .point import of_channel, run_place
from .room import free_room, is_missing, new_room, padded, seen_as
from .vector import total, within
from .weights import deviation, reach, view_of_run, weigh, weighted
from .welford import merge_tree, scale_of, take_in
from .written import write_past, write_some

TILE = 8192  # values between two merges
STREAMS = 4096  # values of a run that is read as four streams by itself; a shorter one together with three others
COLUMNS = 4 * LANES  # columns that a run is laid out in to find its extremes


@inlined
def _add_four(x, p0, p1, p2, p3, k0, k1, k2, k3, pivot, sums, j):
    """(weights, values, squares), of eight lanes each, with those of four streams at an index added."""
    s0, s1, s2 = sums
    v0, v1, v2, v3 = load(x, moved(j, p0)), load(x, moved(j, p1)), load(x, moved(j, p2)), load(x, moved(j, p3))
    w0, w1, w2, w3 = weigh(k0, v0, j), weigh(k1, v1, j), weigh(k2, v2, j), weigh(k3, v3, j)
    d0, d1 = within(deviation(k0, v0, pivot, w0), j), within(deviation(k1, v1, pivot, w1), j)
    d2, d3 = within(deviation(k2, v2, pivot, w2), j), within(deviation(k3, v3, pivot, w3), j)
    e0, e1, e2, e3 = weighted(k0, w0, d0), weighted(k1, w1, d1), weighted(k2, w2, d2), weighted(k3, w3, d3)
    s1 = s1 + ((e0 + e1) + (e2 + e3))
    s2 = s2 + ((e0 * d0 + e1 * d1) + (e2 * d2 + e3 * d3))
    return _counted(k0, s0, (w0 + w1) + (w2 + w3), j), s1, s2


@inlined
def _add_one(x, p, view, pivot, sums, j):
    """The same for one stream."""
    s0, s1, s2 = sums
    v = load(x, moved(j, p))
    w = weigh(view, v, j)
    d = within(deviation(view, v, pivot, w), j)
    e = weighted(view, w, d)
    return _counted(view, s0, w, j), s1 + e, s2 + e * d


@inlined
def _counted(view, s0, w, j):
    if view is None:
        return s0
    return s0 + within(w, j)


@helper
def _add_run(x, p, n, pick, o, c, i, pivot, acc):
    """Add a run of n values to the sums of its channel, read as four streams."""
    sums = load(acc, Eight(0)), load(acc, Eight(LANES)), load(acc, Eight(2 * LANES))
    # Memory answers several streams faster; a short run has its four next to each other.
    hop, step = (n // 4 // LANES * LANES, LANES) if n >= STREAMS else (LANES, 4 * LANES)
    k0, k1 = view_of_run(pick, o, c, i), view_of_run(pick, o, c, i + hop)
    k2, k3 = view_of_run(pick, o, c, i + 2 * hop), view_of_run(pick, o, c, i + 3 * hop)
    end = hop if step == LANES else n // step * step
    for j in range(0, end, step):
        sums = _add_four(x, p, p + hop, p + 2 * hop, p + 3 * hop, k0, k1, k2, k3, pivot, sums, Eight(j))
    begun, rest = 4 * hop if step == LANES else end, n % LANES
    for j in range(begun, n - rest, LANES):
        sums = _add_one(x, p, k0, pivot, sums, Eight(j))
    if rest > 0:
        sums = _add_one(x, p, k0, pivot, sums, Few(n - rest, rest))
    _keep_sums(acc, sums)


@helper
def _add_runs(x, p, hop, n, pick, o, step, c, i, pivot, acc):
    """The same for four runs, `hop` apart in x and `step` outers."""
    sums = load(acc, Eight(0)), load(acc, Eight(LANES)), load(acc, Eight(2 * LANES))
    k0, k1 = view_of_run(pick, o, c, i), view_of_run(pick, o + step, c, i)
    k2, k3 = view_of_run(pick, o + 2 * step, c, i), view_of_run(pick, o + 3 * step, c, i)
    p1, p2, p3, rest = p + hop, p + 2 * hop, p + 3 * hop, n % LANES
    for j in range(0, n - rest, LANES):
        sums = _add_four(x, p, p1, p2, p3, k0, k1, k2, k3, pivot, sums, Eight(j))
    if rest > 0:
        sums = _add_four(x, p, p1, p2, p3, k0, k1, k2, k3, pivot, sums, Few(n - rest, rest))
    _keep_sums(acc, sums)


@inlined
def _keep_sums(acc, sums):
    s0, s1, s2 = sums
    store(acc, Eight(0), s0)
    store(acc, Eight(LANES), s1)
    store(acc, Eight(2 * LANES), s2)


@inlined
def _more(x, p, view, pivot, higher, extremes, j):
    """Add what is kept beside the sums, at an index of a run, to their lanes."""
    v = load(x, moved(j, p))
    w = weigh(view, v, j)
    d = within(deviation(view, v, pivot, w), j)
    lanes = Eight(j.i % COLUMNS)
    tally_higher(higher, COLUMNS, lanes, weighted(view, w, d) * d, d)
    # What an index leaves out has no weight.
    ones = within(1.0, j)
    tally_extremes(extremes, COLUMNS, lanes, reach(view, j) * ones, w * ones, v)


@helper
def _add_more(x, p, n, view, pivot, higher, extremes):
    """Third and fourth powers and extremes of a run, into (2, COLUMNS) and (3, COLUMNS) lanes, or None."""
    if higher is None and extremes is None:
        return
    rest = n % LANES
    for j in range(0, n - rest, LANES):
        _more(x, p, view, pivot, higher, extremes, Eight(j))
    if rest > 0:
        _more(x, p, view, pivot, higher, extremes, Few(n - rest, rest))


@helper
def _pivot(x, p, n, view, known, mean):
    """The mean so far where any is known, else the first value of the run that counts; 0 for NaN and infinity.

    NaN where there is none: the next run may have one.
    """
    pivot = mean
    if known == 0.0:
        pivot = np.nan
        for i in range(n):
            v = load(x, p + i)
            if weigh(view, v, i) != 0.0:
                pivot = v if v == v else 0.0
                break
    return 0.0 if abs(pivot) == np.inf or (known > 0.0 and pivot != pivot) else pivot


@helper
def _lanes_of(group, c):
    """Where channel c keeps its lanes of third and fourth powers."""
    return at(group, 2 * COLUMNS * c)


@helper
def _block(x, outer_stride, channel_stride, outer, n, pick, o0, c0, i0, channels, parts, b, room):
    """Merge runs of n values into part b, channels from c0; x begins at (o0, c0, i0), which is where pick is read."""
    w, lanes = padded(channels), padded(3 * LANES)
    pivot, n_of, s1, s2, s3, s4 = room, at(room, w), at(room, 2 * w), at(room, 3 * w), at(room, 4 * w), at(room, 5 * w)
    acc = at(room, 6 * w)
    more = at(acc, channels * lanes)
    extremes, higher = only_with(parts.extremes, more), only_with(parts.higher, at(more, 4 * COLUMNS))
    _clear(acc, channels * lanes)
    _clear(higher, 2 * COLUMNS * channels)
    part_at, pending = b * parts.channels + c0, 0
    # Short runs are taken four at a time, one from each quarter of the outers.
    quarter = outer // 4 if n < STREAMS and parts.higher is None and parts.extremes is None else 0
    steps = outer - 3 * quarter
    for t in range(steps):
        runs, o = (4, t) if t < quarter else (1, t + 3 * quarter)
        for lo in range(0, n, TILE):
            size = min(TILE, n - lo)
            for c in range(channels):
                p = o * outer_stride + c * channel_stride + lo
                if pending == 0 or pivot[c] != pivot[c]:
                    view = view_of_run(pick, o0 + o, c0 + c, i0 + lo)
                    pivot[c] = _pivot(x, p, size, view, parts.count[part_at + c], parts.mean[part_at + c])
                if runs == 4:
                    hop = quarter * outer_stride
                    if pivot[c] != pivot[c]:  # nothing counts in the first of four: the others may have values
                        _pivot_of_others(x, p, hop, size, pick, o0 + o, quarter, c0 + c, i0 + lo, pivot, c)
                    own = at(acc, c * lanes)
                    _add_runs(x, p, hop, size, pick, o0 + o, quarter, c0 + c, i0 + lo, pivot[c], own)
                else:
                    _add_run(x, p, size, pick, o0 + o, c0 + c, i0 + lo, pivot[c], at(acc, c * lanes))
                    _add_all_more(
                        x, p, size, pick, o0 + o, c0 + c, i0 + lo, pivot[c], higher, extremes, parts, part_at, c
                    )
            pending += runs * size
            if pending >= TILE or (t + 1 == steps and lo + size == n):
                for c in range(channels):
                    own = at(acc, c * lanes)
                    n_of[c] = _count(pick, pending, own)
                    s1[c], s2[c] = total(load(own, Eight(LANES))), total(load(own, Eight(2 * LANES)))
                    pivot[c] = pivot[c] if pivot[c] == pivot[c] else 0.0
                    _close_lanes(_lanes_of(higher, c), s3, s4, c)
                fresh = pick is None and parts.count[part_at] == 0.0
                take_in(
                    parts, b, c0, channels, fresh, n_of, pivot, s1, s2, only_with(parts.higher, s3),
                    only_with(parts.higher, s4),
                )  # fmt: skip
                _clear(acc, channels * lanes)
                _clear(higher, 2 * COLUMNS * channels)
                pending = 0


@helper
def _clear(numbers, n):
    if numbers is not None:
        for k in range(n):
            numbers[k] = 0.0


@helper
def _count(pick, pending, acc):
    """The weights since the last merge."""
    return float(pending) if pick is None else total(load(acc, Eight(0)))


@helper
def _close_lanes(lanes, s3, s4, c):
    """The sums of third and fourth powers of a channel, from its lanes."""
    if lanes is not None:
        s3[c] = s4[c] = 0.0
        for k in range(COLUMNS):
            s3[c] += lanes[k]
            s4[c] += lanes[COLUMNS + k]


@helper
def _pivot_of_others(x, p, hop, n, pick, o, step, c, i, pivot, at_c):
    for k in range(1, 4):
        if pivot[at_c] != pivot[at_c]:
            pivot[at_c] = _pivot(x, p + k * hop, n, view_of_run(pick, o + k * step, c, i), 0.0, 0.0)


@helper
def _add_all_more(x, p, n, pick, o, c, i, pivot, higher, extremes, parts, part_at, at_c):
    """`_add_more` of a run to its channel, and its extremes into the part."""
    clear_extremes(extremes, COLUMNS)
    _add_more(x, p, n, view_of_run(pick, o, c, i), pivot, _lanes_of(higher, at_c), extremes)
    plane = parts.parts * parts.channels
    fold_extremes(extremes, COLUMNS, 0, COLUMNS, parts.extremes, plane, part_at + at_c)


@helper
def _item(x, outer_stride, channel_stride, outer, inner, c0, c1, outer_blocks, inner_blocks, pick, parts, b, room):
    """Part b of outer_blocks x inner_blocks, channels c0..c1, merged into part b."""
    j, k = b // inner_blocks, b % inner_blocks
    o0, o1 = outer * j // outer_blocks, outer * (j + 1) // outer_blocks
    i0, i1 = inner * k // inner_blocks, inner * (k + 1) // inner_blocks
    first = at(x, o0 * outer_stride + c0 * channel_stride + i0)
    _block(first, outer_stride, channel_stride, o1 - o0, i1 - i0, pick, o0, c0, i0, c1 - c0, parts, b, room)


@helper
def _room_of_block(channels, higher):
    """Room for what `_block` keeps."""
    lanes = 0 if higher is None else 2 * COLUMNS * channels
    return 6 * padded(channels) + channels * padded(3 * LANES) + 4 * COLUMNS + lanes


@kernel
def moments(
    lo, hi, x, outer_stride, channel_stride, outer, channels, inner, blocks, outer_blocks, inner_blocks, pick, parts
):
    """Items lo..hi of channel blocks x parts; x: flat; parts: cleared, outer_blocks * inner_blocks of them."""
    room = new_room(_room_of_block(-(-channels // blocks), parts.higher))
    if is_missing(room):
        return False
    each = outer_blocks * inner_blocks
    for item in range(lo, hi):
        g, b = item // each, item % each
        c0, c1 = channels * g // blocks, channels * (g + 1) // blocks
        _item(x, outer_stride, channel_stride, outer, inner, c0, c1, outer_blocks, inner_blocks, pick, parts, b, room)
    free_room(room)
    return True


@kernel
def train(
    lo, hi, x, x_outer, x_channel, out, out_outer, out_channel, outer, channels, inner, blocks, outer_blocks,
    inner_blocks, pick, parts, gamma, beta, eps, residual, r_outer, r_channel, activation, past,
):  # fmt: skip
    """Channel blocks lo..hi: moments as in `moments`, merged into part 0, then the transform.

    The second pass goes backwards, to meet first what is still cached.
    """
    room = new_room(_room_of_block(-(-channels // blocks), parts.higher) + padded(channels) + padded(line_of(out)))
    if is_missing(room):
        return False
    scale = at(room, _room_of_block(-(-channels // blocks), parts.higher))
    carry = at(scale, padded(channels))
    t = Affine(x, x_outer, x_channel, parts.mean, scale, beta, residual, r_outer, r_channel, activation)
    for g in range(lo, hi):
        c0, c1 = channels * g // blocks, channels * (g + 1) // blocks
        for b in range(outer_blocks * inner_blocks):
            _item(x, x_outer, x_channel, outer, inner, c0, c1, outer_blocks, inner_blocks, pick, parts, b, room)
        merge_tree(parts, c0, c1)
        for c in range(c0, c1):
            scale[c] = scale_of(parts.count[c], parts.m2[c], gamma[c], eps)
        _write_channels(t, out, out_outer, out_channel, outer, channels, c0, c1, inner, carry, past)
    free_room(room)
    return True


@helper
def _write_channels(t, out, out_outer, out_channel, outer, channels, c0, c1, inner, carry, past):
    """All outers of channels c0..c1, the last ones first; past the cache where all channels touch."""
    if past is not None:
        _write_channels_past(t, out, outer, channels, c0, c1, inner, seen_as(carry, out, line_of(out)))
        return
    for o in range(outer - 1, -1, -1):
        for c in range(c1 - 1, c0 - 1, -1):
            write_some(of_channel(t, c), run_place(t, o, c, 0), 0, out, o * out_outer + c * out_channel, inner)


@helper
def _write_channels_past(t, out, outer, channels, c0, c1, inner, carry):
    """The lines that are whole, of all outers; then what is left at both ends, as one must not come between others."""
    line, phase = line_of(out), gap(out)
    for o in range(outer - 1, -1, -1):
        first, last = _lines(o, channels, c0, c1, inner, phase, line)
        write_past(t, out, first, last, channels, inner, carry)
    settle()
    for o in range(outer - 1, -1, -1):
        first, last = _lines(o, channels, c0, c1, inner, phase, line)
        begin, end = (o * channels + c0) * inner, (o * channels + c1) * inner
        write_some(of_channel(t, c0), run_place(t, o, c0, 0), 0, out, begin, first - begin)
        last_run = run_place(t, o, c1 - 1, inner - (end - last))
        write_some(of_channel(t, c1 - 1), last_run, 0, out, last, end - last)


@helper
def _lines(o, channels, c0, c1, inner, phase, line):
    """From where to where an outer of channels c0..c1 has whole lines; inner is more than one of them."""
    begin, end = (o * channels + c0) * inner, (o * channels + c1) * inner
    first = begin + (phase - begin) % line
    return first, end - (end - phase) % line
