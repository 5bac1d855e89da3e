"""Channels along the row: a matrix of `rows`, each channels x inner values in one contiguous run.

A row is cut into blocks of whole channels, and rows into blocks, so that an item is a rectangle
whose accumulators stay cached. Short rows that touch each other are taken several
(`pack`) at a time as one wide row. All columns of a channel share its pivot, so that folding the
columns into channels is plain addition.
"""

import numpy as np

from .columns import fold, spread
from .forms import LANES, Eight, Few
from .jit import helper, inlined, kernel, maybe, otherwise
from .lines import touch
from .memory import at, load, moved, store
from .more import begin_extremes, fold_extremes, tally_extremes, tally_higher
from .picks import ask_for_picks, block_of, count_rows, fill, place, room_of_pick, rows_from, view_of_row, within_rows
from .room import clear, free_room, is_missing, new_room, padded
from .vector import added, nothing, select, total, within
from .weights import deviation, four_weights, reach, weigh, weighted
from .welford import begin_part, take_in

# Rows between two merges: the error of M2 may grow with them, the cost falls. An eighth of them is odd, so that the
# eight rows that are read together do not meet in the same few lines of the first-level cache.
TILE = 8 * 129
NARROW = 128  # columns: an eighth of TILE rows of fewer is but a few pages, and read like many short streams
LONGEST = 16  # times as many rows that a tile of narrow ones may have


@inlined
def _add(x, p, view, pivot, sums, width, j):
    """Add one row's shifted values and squares at an index of its columns; the row begins at p."""
    s0, s1, s2, higher, extremes = sums
    v = load(x, moved(j, p))
    w = weigh(view, v, j)
    d = deviation(view, v, load(pivot, j), w, j)
    e = weighted(view, w, d)
    if view is not None:
        store(s0, j, load(s0, j) + w)
    store(s1, j, load(s1, j) + e)
    store(s2, j, load(s2, j) + e * d)
    tally_higher(higher, width, j, e * d, d)
    tally_extremes(extremes, width, j, reach(view, j), w, v)


@helper
def _add_row(x, p, view, pivot, sums, width):
    """`_add` of all columns."""
    rest = width % LANES
    for j in range(0, width - rest, LANES):
        _add(x, p, view, pivot, sums, width, Eight(j))
    if rest > 0:
        _add(x, p, view, pivot, sums, width, Few(width - rest, rest))


@inlined
def _add_eight(x, p0, p1, p2, p3, p4, p5, p6, p7, k0, k1, k2, k3, k4, k5, k6, k7, pivot, sums, j):
    """`_add` of eight rows, where there are no more than three sums."""
    s0, s1, s2, _, _ = sums
    p = load(pivot, j)
    v0, v1, v2, v3 = load(x, moved(j, p0)), load(x, moved(j, p1)), load(x, moved(j, p2)), load(x, moved(j, p3))
    v4, v5, v6, v7 = load(x, moved(j, p4)), load(x, moved(j, p5)), load(x, moved(j, p6)), load(x, moved(j, p7))
    w0, w1, w2, w3 = weigh(k0, v0, j), weigh(k1, v1, j), weigh(k2, v2, j), weigh(k3, v3, j)
    w4, w5, w6, w7 = weigh(k4, v4, j), weigh(k5, v5, j), weigh(k6, v6, j), weigh(k7, v7, j)
    d0, d1, d2, d3 = (
        deviation(k0, v0, p, w0, j),
        deviation(k1, v1, p, w1, j),
        deviation(k2, v2, p, w2, j),
        deviation(k3, v3, p, w3, j),
    )
    d4, d5, d6, d7 = (
        deviation(k4, v4, p, w4, j),
        deviation(k5, v5, p, w5, j),
        deviation(k6, v6, p, w6, j),
        deviation(k7, v7, p, w7, j),
    )
    e0, e1, e2, e3 = weighted(k0, w0, d0), weighted(k1, w1, d1), weighted(k2, w2, d2), weighted(k3, w3, d3)
    e4, e5, e6, e7 = weighted(k4, w4, d4), weighted(k5, w5, d5), weighted(k6, w6, d6), weighted(k7, w7, d7)
    if k0 is not None:
        first = four_weights(k0, k1, k2, k3, v0, v1, v2, v3, w0, w1, w2, w3, j)
        store(s0, j, load(s0, j) + (first + four_weights(k4, k5, k6, k7, v4, v5, v6, v7, w4, w5, w6, w7, j)))
    values = added(added(added(e0, e1), added(e2, e3)), added(added(e4, e5), added(e6, e7)))
    store(s1, j, added(load(s1, j), values))
    first = load(s2, j) + e0 * d0 + e1 * d1 + e2 * d2 + e3 * d3  # each of them one instruction
    store(s2, j, first + (e4 * d4 + e5 * d5 + e6 * d6 + e7 * d7))


@helper
def _count_whole_rows(pick, inside, s0, width, n):
    """Where all of a row counts or does not, each of the n rows that do is a count of 1 in all columns."""
    if pick is not None and inside is None:
        for j in range(width):
            s0[j] = float(n)


@inlined
def ask_for(x, j, ahead, p, q, r, s):
    if ahead is not None:
        touch(x, p + j + ahead)
        touch(x, q + j + ahead)
        touch(x, r + j + ahead)
        touch(x, s + j + ahead)


@helper
def _add_rows(x, stride, rows, width, pick, pivot, sums, places, ahead):
    """Add `rows` rows, eight at a time, one from each eighth of them.

    sums: weights (where there is a pick), values, squares, each (width,), and the sums of `more.py`. Eight streams
    far apart are each sequential to the prefetcher: eight neighbouring rows read side by side took twice the time
    for rows of 0.5 to 2 KB. ahead: how many values further each stream asks for memory, or None. places: room for
    the rows that count, where all of a row does or does not.
    """
    s0, _, _, higher, extremes = sums
    outer, n = pick, count_rows(pick, rows, places)
    inside = within_rows(pick)
    _count_whole_rows(outer, inside, s0, width, n)
    step = n // 8 if higher is None and extremes is None else 0  # with more to add, one row at a time
    rest = width % LANES
    for i in range(step):
        p0, p1 = place(outer, places, i) * stride, place(outer, places, i + step) * stride
        p2, p3 = place(outer, places, i + 2 * step) * stride, place(outer, places, i + 3 * step) * stride
        p4, p5 = place(outer, places, i + 4 * step) * stride, place(outer, places, i + 5 * step) * stride
        p6, p7 = place(outer, places, i + 6 * step) * stride, place(outer, places, i + 7 * step) * stride
        fill(inside, i, step, 8)
        k0, k1 = view_of_row(inside, i, 0), view_of_row(inside, i + step, 1)
        k2, k3 = view_of_row(inside, i + 2 * step, 2), view_of_row(inside, i + 3 * step, 3)
        k4, k5 = view_of_row(inside, i + 4 * step, 4), view_of_row(inside, i + 5 * step, 5)
        k6, k7 = view_of_row(inside, i + 6 * step, 6), view_of_row(inside, i + 7 * step, 7)
        for j in range(0, width - rest, LANES):
            ask_for(x, j, ahead, p0, p1, p2, p3)
            ask_for(x, j, ahead, p4, p5, p6, p7)
            ask_for_picks(k0, k1, k2, k3, j, ahead)
            ask_for_picks(k4, k5, k6, k7, j, ahead)
            _add_eight(x, p0, p1, p2, p3, p4, p5, p6, p7, k0, k1, k2, k3, k4, k5, k6, k7, pivot, sums, Eight(j))
        if rest > 0:
            last = Few(width - rest, rest)
            _add_eight(x, p0, p1, p2, p3, p4, p5, p6, p7, k0, k1, k2, k3, k4, k5, k6, k7, pivot, sums, last)
    for i in range(8 * step, n):
        fill(inside, i, 0, 1)
        _add_row(x, place(outer, places, i) * stride, view_of_row(inside, i, 0), pivot, sums, width)


@helper
def _pivots(x, stride, rows, channels, inner, pack, pick, count, mean, out, columns):
    """A pivot for each channel: its mean so far, else its first value, else 0; never NaN or infinity."""
    _firsts(x, stride, rows, channels, inner, pack, pick, count, out, columns)
    rest, fresh = channels % LANES, pick is None and count[0] == 0.0
    for c in range(0, channels - rest, LANES):
        _finish_pivots(pick, fresh, count, mean, out, Eight(c))
    if rest > 0:
        _finish_pivots(pick, fresh, count, mean, out, Few(channels - rest, rest))


@helper
def _finish_pivots(pick, fresh, count, mean, out, c):
    """fresh: whether nothing has been seen of any channel, where all of them have been seen as often."""
    value = load(out, c)
    if not fresh:
        value = _known_pivot(pick, count, mean, value, c)
    store(out, c, select(abs(value) < np.inf, value, 0.0))


@otherwise(lambda pick, count, mean, value, c: load(mean, c))
def _known_pivot(pick, count, mean, value, c):
    return select(load(count, c) == 0.0, value, load(mean, c))


@helper
def _looked_at(pick, higher, channels):
    """Of how many channels a part is read before its first values are in it: of one where all have the same count."""
    return 1 if pick is None and higher is None else channels


@helper
def _firsts(x, stride, rows, channels, inner, pack, pick, count, out, columns):
    """The first value that counts of each channel of which nothing has been seen, or 0."""
    if pick is None:
        if count[0] == 0.0:
            _first_row(x, channels, inner, out)
        return
    sought, width = 0, pack * channels * inner
    for c in range(channels):
        out[c] = np.nan if count[c] == 0.0 else 0.0  # NaN until a value is found
        sought += count[c] == 0.0
    spread(out, channels, inner, pack, columns)
    for i in range(rows):
        if sought == 0:
            break
        fill(pick, i, 0, 1)
        view = view_of_row(pick, i, 0)
        if _has_sought(x, i * stride, width, view, columns):
            for c in range(channels):
                if out[c] != out[c]:
                    found = _first(x, i * stride, inner, pack, view, c, channels)
                    out[c] = found
                    sought -= found == found
            spread(out, channels, inner, pack, columns)
    # A NaN that counts was found, and makes no pivot either.


@helper
def _has_sought(x, p, width, view, columns):
    """Whether a value counts in a row that begins at p, in a column that has NaN: most rows need no closer look."""
    found, rest = nothing(Eight(0)), width % LANES
    for j in range(0, width - rest, LANES):
        found = found + _is_sought(x, p, view, columns, Eight(j))
    if rest > 0:
        found = found + _is_sought(x, p, view, columns, Few(width - rest, rest))
    return total(found) > 0.0


@inlined
def _is_sought(x, p, view, columns, j):
    c = load(columns, j)
    counts = weigh(view, load(x, moved(j, p)), j) != 0.0
    return within(select((c != c) & counts, 1.0, 0.0), j)


@helper
def _first_row(x, channels, inner, out):
    """The first value of each channel in a row."""
    whole = channels // LANES * LANES if inner == 1 else 0
    for c in range(0, whole, LANES):
        store(out, Eight(c), load(x, Eight(c)))
    for c in range(whole, channels):
        out[c] = load(x, c * inner)


@helper
def _first(x, p, inner, pack, view, c, channels):
    """The first value of one channel that counts in a wide row which begins at p, infinity for NaN; NaN for none."""
    for k in range(pack):
        column = (k * channels + c) * inner
        for j in range(column, column + inner):
            v = load(x, p + j)
            if weigh(view, v, j) != 0.0:
                return v if v == v else np.inf
    return np.nan


@helper
def _longest_tile(width):
    """Rows between two merges, at most, of rows of so many columns."""
    return TILE * max(1, min(LONGEST, NARROW // width))


@helper
def _block(x, stride, rows, channels, inner, pack, pick, parts, b, c0, ahead, tile, room):
    """Merge `rows` rows into part b, channels from c0; pick: opened for these rows; tile: rows between two merges.

    The first tile is no longer than others, as its pivot is one value: what follows has a mean to be near to.
    """
    width = pack * channels * inner
    w, part_at = padded(width), b * parts.channels + c0
    count, mean = at(parts.count, part_at), at(parts.mean, part_at)
    seed, s0, s1, s2 = room, at(room, 2 * w), at(room, 3 * w), at(room, 4 * w)
    pivot = at(room, w) if width > channels else seed
    places = at(room, 5 * w)
    more = at(places, padded(tile))
    higher, extremes = only_with(parts.higher, more), only_with(parts.extremes, at(more, 2 * w))
    t = 0
    while t < rows // pack:
        n = min(TILE if t == 0 else tile, rows // pack - t)
        part, seen = at(x, t * pack * stride), rows_from(pick, t, n)
        _pivots(part, pack * stride, n, channels, inner, pack, seen, count, mean, seed, at(room, w))
        if width > channels:
            spread(seed, channels, inner, pack, pivot)
        _clear_counts(pick, s0, width)
        clear(s1, width)
        clear(s2, width)
        clear(higher, 2 * width)
        begin_extremes(extremes, width, 0, width)
        _add_rows(part, pack * stride, n, width, seen, pivot, (s0, s1, s2, higher, extremes), places, ahead)
        counts = _counts(pick, s0, channels, inner, pack, n)
        fold(s1, channels, inner, pack)
        fold(s2, channels, inner, pack)
        s3, s4 = higher, at(higher, width)
        fold(s3, channels, inner, pack)
        fold(s4, channels, inner, pack)
        _fold_extremes(extremes, width, channels, inner, pack, parts, part_at)
        take_in(parts, b, c0, channels, pick is None and count[0] == 0.0, counts, seed, s1, s2, s3, s4)
        t += n


@maybe
def _clear_counts(pick, s0, width):
    clear(s0, width)


@otherwise(lambda pick, s0, channels, inner, pack, n: float(n * pack * inner))
def _counts(pick, s0, channels, inner, pack, n):
    """The weights of n wide rows: of each channel, and one number for all where each value counts 1."""
    fold(s0, channels, inner, pack)
    return s0


@maybe
def only_with(group, room):
    """Room for a group of sums; None where there is no such group."""
    return room


@maybe
def _fold_extremes(extremes, width, channels, inner, pack, parts, part_at):
    """Take the columns of each channel into the extremes of a part."""
    for k in range(pack):
        for c in range(channels):
            column = (k * channels + c) * inner
            plane = parts.parts * parts.channels
            fold_extremes(extremes, width, column, column + inner, parts.extremes, plane, part_at + c)


@helper
def _room_of_block(width, tile, higher, extremes):
    """Room for what `_block` keeps."""
    return (5 if higher is None and extremes is None else 10) * padded(width) + padded(tile)


@kernel
def moments(lo, hi, x, stride, rows, channels, inner, pack, row_blocks, col_blocks, pick, parts, ahead):
    """Items lo..hi of row_blocks x col_blocks, into the parts: row_blocks of them, whatever they held; x: flat."""
    most = pack * (-(-channels // col_blocks)) * inner
    tile = min(_longest_tile(most), rows)
    places = min(tile * pack, rows)
    own, ahead_of = _room_of_block(most, tile, parts.higher, parts.extremes), room_of_pick(pick, most, places)
    room = new_room(own + 2 * ahead_of)
    if is_missing(room):
        return False
    for item in range(lo, hi):
        b, k = item // col_blocks, item % col_blocks
        first, last = rows * b // row_blocks, rows * (b + 1) // row_blocks
        c0, c1 = channels * k // col_blocks, channels * (k + 1) // col_blocks
        packed = (last - first) // pack * pack
        begin_part(parts, b, c0, c1 - c0, _looked_at(pick, parts.higher, c1 - c0))
        # One call for both, in a loop: what is compiled twice takes twice the time.
        for row, n, p in ((first, packed, pack), (first + packed, last - first - packed, 1)):
            if n > 0:
                more = at(room, own)
                seen = block_of(pick, row, c0, c1 - c0, p, inner, places, more, at(more, ahead_of))
                block = at(x, row * stride + c0 * inner)
                _block(block, stride, n, c1 - c0, inner, p, seen, parts, b, c0, ahead, tile, room)
    free_room(room)
    return True
