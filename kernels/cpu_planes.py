"""A long contiguous run of `inner` values for each (outer, channel), as in NCHW.

An item of the moments is a block of channels x a block of outers x a part of the run; the blocks
of channels keep neighbouring short runs together. Sums over several runs share one pivot until
enough values have passed for the merge to cost nothing.
"""

import numpy as np

from .cpu_rows import ask_for, only_with
from .forms import LANES, Affine, Eight, Few
from .jit import helper, inlined, kernel, maybe
from .lines import gap, line_of, settle
from .memory import at, load, moved, store
from .more_of_runs import COLUMNS, add_more, add_more_of_streams, fold_more
from .picks import ask_for_picks, has_nested, one_for_all, view_of_values
from .point import of_channel, run_place
from .room import clear, free_room, is_missing, new_room, padded
from .single import eight_known, only_if, suited
from .vector import added, nothing, select, total, within
from .weights import deviation, four_weights, weigh, weighted
from .welford import begin_part, merge_tree, scale_of, take_in, take_in_sums
from .written import room_of_runs, write_past, write_some

TILE = 8192  # values of short runs between two merges
FAR_APART = 32768  # values of a run whose weights do not stay cached for the next channel
PIECE = 2048  # values of each of four streams between two merges
VIEW = 2 * PIECE + 4 * LANES  # room for the masks or weights of a stream, of fewer than twice as many


@inlined
def _add_four(x, p0, p1, p2, p3, k0, k1, k2, k3, pivot, sums, j):
    """(weights, values, squares of two streams, of the others), of eight lanes each, with those at an index added."""
    s0, s1, q0, q1 = sums
    v0, v1, v2, v3 = load(x, moved(j, p0)), load(x, moved(j, p1)), load(x, moved(j, p2)), load(x, moved(j, p3))
    w0, w1, w2, w3 = weigh(k0, v0, j), weigh(k1, v1, j), weigh(k2, v2, j), weigh(k3, v3, j)
    d0, d1 = within(deviation(k0, v0, pivot, w0, j), j), within(deviation(k1, v1, pivot, w1, j), j)
    d2, d3 = within(deviation(k2, v2, pivot, w2, j), j), within(deviation(k3, v3, pivot, w3, j), j)
    e0, e1, e2, e3 = weighted(k0, w0, d0), weighted(k1, w1, d1), weighted(k2, w2, d2), weighted(k3, w3, d3)
    s0 = _counted(k0, s0, four_weights(k0, k1, k2, k3, v0, v1, v2, v3, w0, w1, w2, w3, j), j)
    s1 = added(s1, added(added(e0, e1), added(e2, e3)))
    return s0, s1, q0 + e0 * d0 + e1 * d1, q1 + e2 * d2 + e3 * d3


@inlined
def _add_one(x, p, view, pivot, sums, j):
    """(weights, values, squares), of eight lanes each, with those of one stream at an index added."""
    s0, s1, s2 = sums
    v = load(x, moved(j, p))
    w = weigh(view, v, j)
    d = within(deviation(view, v, pivot, w, j), j)
    e = weighted(view, w, d)
    return _counted(view, s0, w, j), s1 + e, s2 + e * d


@inlined
def _counted(view, s0, w, j):
    if view is None:
        return s0
    return s0 + within(w, j)


@helper
def _add_streams(x, p, hop, n, k0, k1, k2, k3, pivot, acc, ahead):
    """Add four streams of n values, `hop` apart, to the sums of their channel.

    Two have squares of their own: to sum those of all four first takes two additions more.
    """
    none = nothing(Eight(0))
    sums = load(acc, Eight(0)), load(acc, Eight(LANES)), load(acc, Eight(2 * LANES)), none
    p1, p2, p3, rest = p + hop, p + 2 * hop, p + 3 * hop, n % LANES
    for j in range(0, n - rest, LANES):
        ask_for(x, j, ahead, p, p1, p2, p3)
        ask_for_picks(k0, k1, k2, k3, j, ahead)
        sums = _add_four(x, p, p1, p2, p3, k0, k1, k2, k3, pivot, sums, Eight(j))
    if rest > 0:
        sums = _add_four(x, p, p1, p2, p3, k0, k1, k2, k3, pivot, sums, Few(n - rest, rest))
    s0, s1, q0, q1 = sums
    _keep_sums(acc, (s0, s1, q0 + q1))


@helper
def _add_rest(x, p, n, view, pivot, acc):
    """The same for one stream of a few values."""
    sums = load(acc, Eight(0)), load(acc, Eight(LANES)), load(acc, Eight(2 * LANES))
    rest = n % LANES
    for j in range(0, n - rest, LANES):
        sums = _add_one(x, p, view, pivot, sums, Eight(j))
    if rest > 0:
        sums = _add_one(x, p, view, pivot, sums, Few(n - rest, rest))
    _keep_sums(acc, sums)


@inlined
def _keep_sums(acc, sums):
    s0, s1, s2 = sums
    store(acc, Eight(0), s0)
    store(acc, Eight(LANES), s1)
    store(acc, Eight(2 * LANES), s2)


@helper
def _block(x, outer_stride, channel_stride, outer, n, pick, o0, c0, i0, channels, parts, b, ahead, room):
    """Merge runs of n values into part b, channels from c0; x begins at (o0, c0, i0), which is where pick is read.

    Memory answers several streams faster: four runs are taken at once, one from each quarter of the outers, and of one
    that is left over its four quarters. Long runs are merged piece by piece, short ones when there are enough of them.
    """
    w, lanes = padded(channels), padded(5 * LANES)
    pivot, n_of, s1, s2, s3, s4 = room, at(room, w), at(room, 2 * w), at(room, 3 * w), at(room, 4 * w), at(room, 5 * w)
    acc = at(room, 6 * w)
    more = at(acc, channels * lanes)
    extremes, higher = only_with(parts.extremes, more), only_with(parts.higher, at(more, 3 * COLUMNS))
    clear(acc, channels * lanes)
    seen = at(more, 5 * COLUMNS)
    in_turn = one_for_all(pick) and (n >= FAR_APART or has_nested(pick))
    k0, k1, k2, k3 = _views(pick, o0, 0, c0, i0, 0, 0, seen)
    part_at, pending, quarter = b * parts.channels + c0, 0, outer // 4
    for t in range(outer - 3 * quarter):
        four, o = t < quarter, t if t < quarter else t + 3 * quarter
        each = n if four else n // 4 // LANES * LANES
        hop, next_o, next_i = (quarter * outer_stride, quarter, 0) if four else (each, 0, each)
        pieces = each // PIECE if each >= PIECE else 1
        long = each >= PIECE
        c = k = 0
        for _ in range(channels * pieces):
            own, p = at(acc, c * lanes), o * outer_stride + c * channel_stride
            lo, hi = 0, each
            if pieces > 1:
                lo, hi = each * k // pieces // LANES * LANES, each * (k + 1) // pieces // LANES * LANES
                hi = each if k + 1 == pieces else hi
            i, behind = i0 + lo, n - 4 * each if k + 1 == pieces and not four else 0
            if not in_turn or c == 0:  # else those of the last channel
                k0, k1, k2, k3 = _views(pick, o0 + o, next_o, c0 + c, i, next_i, hi - lo, seen)
            rest = view_of_values(pick, o0 + o, c0 + c, i0 + 4 * each, behind, at(seen, 4 * VIEW), 5 * VIEW)
            if pending == 0 or long or pivot[c] != pivot[c]:
                known, mean = parts.count[part_at + c], parts.mean[part_at + c]
                pivot[c] = _pivot(x, p + lo, hop, hi - lo, k0, k1, k2, k3, known, mean)
                if behind > 0 and pivot[c] != pivot[c]:
                    pivot[c] = _first(x, p + 4 * each, behind, rest)
            _add_streams(x, p + lo, hop, hi - lo, k0, k1, k2, k3, pivot[c], own, ahead)
            add_more_of_streams(x, p + lo, hop, hi - lo, k0, k1, k2, k3, pivot[c], higher, extremes)
            if behind > 0:
                _add_rest(x, p + 4 * each, behind, rest, pivot[c], own)
                add_more(x, p + 4 * each, behind, rest, pivot[c], higher, extremes)
            fold_more(higher, extremes, own, parts, part_at + c)
            if long:
                count = _count(pick, 4 * (hi - lo) + behind, own)
                fresh = pick is None and parts.count[part_at + c] == 0.0
                take_in_sums(parts, part_at + c, fresh, count, pivot[c], _sums_of(higher, own))
                clear(own, lanes)
            if in_turn:  # a piece of every channel, then the next
                c += 1
                if c == channels:
                    c, k = 0, k + 1
            else:
                k += 1
                if k == pieces:
                    c, k = c + 1, 0
        pending += 0 if long else n * (4 if four else 1)
        if pending >= TILE or (pending > 0 and t + 1 == outer - 3 * quarter):
            for c in range(channels):
                own = at(acc, c * lanes)
                n_of[c] = _count(pick, pending, own)
                s1[c], s2[c] = total(load(own, Eight(LANES))), total(load(own, Eight(2 * LANES)))
                s3[c], s4[c] = total(load(own, Eight(3 * LANES))), total(load(own, Eight(4 * LANES)))
                pivot[c] = pivot[c] if pivot[c] == pivot[c] else 0.0
            fresh = pick is None and parts.count[part_at] == 0.0
            third, fourth = only_with(parts.higher, s3), only_with(parts.higher, s4)
            take_in(parts, b, c0, channels, fresh, n_of, pivot, s1, s2, third, fourth)
            clear(acc, channels * lanes)
            pending = 0


@inlined
def _views(pick, o, next_o, c, i, next_i, n, room):
    """A pick at n values of four streams."""
    return (
        view_of_values(pick, o, c, i, n, room, 5 * VIEW),
        view_of_values(pick, o + next_o, c, i + next_i, n, at(room, VIEW), 5 * VIEW),
        view_of_values(pick, o + 2 * next_o, c, i + 2 * next_i, n, at(room, 2 * VIEW), 5 * VIEW),
        view_of_values(pick, o + 3 * next_o, c, i + 3 * next_i, n, at(room, 3 * VIEW), 5 * VIEW),
    )


@helper
def _pivot(x, p, hop, n, k0, k1, k2, k3, known, mean):
    """The mean so far where any is known, else the first value of four runs that counts; 0 for NaN and infinity.

    NaN where there is none: the next runs may have one.
    """
    pivot = mean
    if known == 0.0:
        pivot = _first(x, p, n, k0)
        if pivot != pivot:
            pivot = _first(x, p + hop, n, k1)
        if pivot != pivot:
            pivot = _first(x, p + 2 * hop, n, k2)
        if pivot != pivot:
            pivot = _first(x, p + 3 * hop, n, k3)
    elif mean != mean or abs(mean) == np.inf:
        pivot = 0.0
    return pivot


@helper
def _first(x, p, n, view):
    """The first value of a run that counts, 0 for NaN and infinity; NaN where there is none."""
    begin = 0
    while begin + LANES <= n and total(nothing(Eight(0)) + _counting(x, p, view, Eight(begin))) == 0.0:
        begin += LANES
    for i in range(begin, n):
        v = load(x, p + i)
        if weigh(view, v, i) != 0.0:
            return v if abs(v) < np.inf else 0.0
    return np.nan


@inlined
def _counting(x, p, view, i):
    return select(weigh(view, load(x, moved(i, p)), i) != 0.0, 1.0, 0.0)


@helper
def _count(pick, values, acc):
    """The weights that were added."""
    return float(values) if pick is None else total(load(acc, Eight(0)))


@helper
def _sums_of(higher, acc):
    """The sums of the first to the fourth power of a channel, the last two None where they are not kept."""
    third, fourth = _powers_of(higher, acc, 3 * LANES), _powers_of(higher, acc, 4 * LANES)
    return total(load(acc, Eight(LANES))), total(load(acc, Eight(2 * LANES))), third, fourth


@maybe
def _powers_of(higher, acc, i):
    return total(load(acc, Eight(i)))


@helper
def _item(
    x, outer_stride, channel_stride, outer, inner, c0, c1, outer_blocks, inner_blocks, pick, parts, b, ahead, room
):
    """Part b of outer_blocks x inner_blocks, channels c0..c1, merged into part b."""
    j, k = b // inner_blocks, b % inner_blocks
    o0, o1 = outer * j // outer_blocks, outer * (j + 1) // outer_blocks
    i0, i1 = inner * k // inner_blocks, inner * (k + 1) // inner_blocks
    first = at(x, o0 * outer_stride + c0 * channel_stride + i0)
    begin_part(parts, b, c0, c1 - c0, c1 - c0)
    _block(first, outer_stride, channel_stride, o1 - o0, i1 - i0, pick, o0, c0, i0, c1 - c0, parts, b, ahead, room)


@helper
def _room_of_block(channels, pick):
    """Room for what `_block` keeps."""
    seen = 2 * 5 * VIEW if has_nested(pick) else 0
    return 6 * padded(channels) + channels * padded(5 * LANES) + 5 * COLUMNS + seen


@kernel
def moments(
    lo,
    hi,
    x,
    outer_stride,
    channel_stride,
    outer,
    channels,
    inner,
    blocks,
    outer_blocks,
    inner_blocks,
    pick,
    parts,
    ahead,
):
    """Items lo..hi of channel blocks x parts, outer_blocks * inner_blocks of these, whatever they held; x: flat."""
    room = new_room(_room_of_block(-(-channels // blocks), pick))
    if is_missing(room):
        return False
    each = outer_blocks * inner_blocks
    for item in range(lo, hi):
        g, b = item // each, item % each
        c0, c1 = channels * g // blocks, channels * (g + 1) // blocks
        _item(
            x,
            outer_stride,
            channel_stride,
            outer,
            inner,
            c0,
            c1,
            outer_blocks,
            inner_blocks,
            pick,
            parts,
            b,
            ahead,
            room,
        )
    free_room(room)
    return True


@kernel
def train(
    lo, hi, x, x_outer, x_channel, out, out_outer, out_channel, outer, channels, inner, blocks, outer_blocks,
    inner_blocks, pick, parts, gamma, beta, eps, residual, r_outer, r_channel, activation, past, ahead,
):  # fmt: skip
    """Channel blocks lo..hi: moments as in `moments`, merged into part 0, then the transform.

    The second pass goes backwards, to meet first what is still cached.
    """
    room = new_room(_room_of_block(-(-channels // blocks), pick) + padded(channels) + padded(room_of_runs(out)))
    if is_missing(room):
        return False
    scale = at(room, _room_of_block(-(-channels // blocks), pick))
    carry = at(scale, padded(channels))
    t = Affine(x, x_outer, x_channel, parts.mean, scale, beta, residual, r_outer, r_channel, activation)
    for g in range(lo, hi):
        c0, c1 = channels * g // blocks, channels * (g + 1) // blocks
        for b in range(outer_blocks * inner_blocks):
            _item(x, x_outer, x_channel, outer, inner, c0, c1, outer_blocks, inner_blocks, pick, parts, b, ahead, room)
        merge_tree(c0, c1, parts)
        for c in range(c0, c1):
            scale[c] = scale_of(parts.count[c], parts.m2[c], gamma[c], eps)
        _write_channels(t, out, out_outer, out_channel, outer, channels, c0, c1, inner, carry, past)
    free_room(room)
    return True


@helper
def _write_channels(t, out, out_outer, out_channel, outer, channels, c0, c1, inner, carry, past):
    """All outers of channels c0..c1, the last ones first; past the cache where all channels touch."""
    if past is not None:
        _write_channels_past(t, out, outer, channels, c0, c1, inner, carry)
        return
    known, eight = -1, only_if(suited(t, out), carry)
    for o in range(outer - 1, -1, -1):
        for c in range(c1 - 1, c0 - 1, -1):
            known, q = eight_known(eight, t, out, c, channels, known), o * out_outer + c * out_channel
            write_some(of_channel(t, c), eight, c, run_place(t, o, c, 0), 0, out, q, inner)


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
        write_some(of_channel(t, c0), None, c0, run_place(t, o, c0, 0), 0, out, begin, first - begin)
        last_run = run_place(t, o, c1 - 1, inner - (end - last))
        write_some(of_channel(t, c1 - 1), None, c1 - 1, last_run, 0, out, last, end - last)


@helper
def _lines(o, channels, c0, c1, inner, phase, line):
    """From where to where an outer of channels c0..c1 has whole lines; inner is more than one of them."""
    begin, end = (o * channels + c0) * inner, (o * channels + c1) * inner
    first = begin + (phase - begin) % line
    return first, end - (end - phase) % line
