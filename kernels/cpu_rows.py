"""Channels along the row: a matrix of `rows`, each channels x inner values in one contiguous run.

A row is cut into blocks of whole channels, and rows into blocks, so that an item is a rectangle
whose accumulators stay cached. Short rows that touch each other are taken several
(`pack`) at a time as one wide row. All columns of a channel share its pivot, so that folding the
columns into channels is plain addition.
"""

import numpy as np

from .activation import activate
from .half import beside, load, part_from, part_of, plus, store
from .jit import helper, inlined, kernel, maybe, pasted, reduction
from .more import clear_extremes, clear_higher, fold_extremes, like, tally_extremes, tally_higher
from .weights import (
    block_of,
    deviation,
    fill,
    reach,
    rows_from,
    rows_that_count,
    view_of_row,
    weigh,
    weighted,
    within_rows,
)
from .welford import merge_tree, scale_of, take_in

# Rows between two merges: the error of M2 may grow with them, the cost falls. An eighth of them is odd, so that the
# eight rows that are read together do not meet in the same few lines of the first-level cache.
TILE = 8 * 129


@helper
def _add_row(x, view, pivot, sums):
    """Add one row's shifted values and squares; x, pivot: (width,), sums as in `_add_rows`."""
    s0, s1, s2, higher, extremes = sums
    for j in range(s1.size):
        v = load(x, j)
        w = weigh(view, v, j)
        d = deviation(view, v, pivot[j], w)
        _count(view, s0, j, w)
        s1[j] += weighted(view, w, d)
        s2[j] += weighted(view, w, d) * d
        tally_higher(higher, j, w, d)
        tally_extremes(extremes, j, reach(view, j), w, v)


@helper
def _count(view, s0, j, w):
    if view is not None:
        s0[j] += w


@helper
def _number(order, rows, s0):
    """How many rows there are to add; where an order names them, each is a count of 1 in all columns."""
    if order is None:
        return rows
    s0[:] = order.size
    return order.size


@helper
def _place(order, i):
    return i if order is None else order[i]


@helper
def _add_rows(x, stride, rows, pick, pivot, sums):
    """Add `rows` rows, eight at a time, one from each eighth of them.

    sums: weights (where there is a pick), values, squares, each (width,), and the sums of `more.py`. Eight streams
    far apart are each sequential to the prefetcher: eight neighbouring rows read side by side took twice the time
    for rows of 0.5 to 2 KB.
    """
    s0, s1, s2, higher, extremes = sums
    order, pick = rows_that_count(pick, rows), within_rows(pick)
    rows = _number(order, rows, s0)
    step = rows // 8 if higher is None and extremes is None else 0  # with more to add, one row at a time
    for i in range(step):
        i1, i2, i3, i4, i5, i6, i7 = (
            i + step,
            i + 2 * step,
            i + 3 * step,
            i + 4 * step,
            i + 5 * step,
            i + 6 * step,
            i + 7 * step,
        )
        r0, r1 = x[_place(order, i) * stride :], x[_place(order, i1) * stride :]
        r2, r3 = x[_place(order, i2) * stride :], x[_place(order, i3) * stride :]
        r4, r5 = x[_place(order, i4) * stride :], x[_place(order, i5) * stride :]
        r6, r7 = x[_place(order, i6) * stride :], x[_place(order, i7) * stride :]
        fill(pick, i, step, 8)
        k0, k1, k2, k3 = (
            view_of_row(pick, i, 0),
            view_of_row(pick, i1, 1),
            view_of_row(pick, i2, 2),
            view_of_row(pick, i3, 3),
        )
        k4, k5, k6, k7 = (
            view_of_row(pick, i4, 4),
            view_of_row(pick, i5, 5),
            view_of_row(pick, i6, 6),
            view_of_row(pick, i7, 7),
        )
        for j in range(s1.size):
            p = pivot[j]
            v0, v1, v2, v3 = load(r0, j), load(r1, j), load(r2, j), load(r3, j)
            v4, v5, v6, v7 = load(r4, j), load(r5, j), load(r6, j), load(r7, j)
            w0, w1, w2, w3 = weigh(k0, v0, j), weigh(k1, v1, j), weigh(k2, v2, j), weigh(k3, v3, j)
            w4, w5, w6, w7 = weigh(k4, v4, j), weigh(k5, v5, j), weigh(k6, v6, j), weigh(k7, v7, j)
            d0, d1 = deviation(k0, v0, p, w0), deviation(k1, v1, p, w1)
            d2, d3 = deviation(k2, v2, p, w2), deviation(k3, v3, p, w3)
            d4, d5 = deviation(k4, v4, p, w4), deviation(k5, v5, p, w5)
            d6, d7 = deviation(k6, v6, p, w6), deviation(k7, v7, p, w7)
            e0, e1, e2, e3 = weighted(k0, w0, d0), weighted(k1, w1, d1), weighted(k2, w2, d2), weighted(k3, w3, d3)
            e4, e5, e6, e7 = weighted(k4, w4, d4), weighted(k5, w5, d5), weighted(k6, w6, d6), weighted(k7, w7, d7)
            _count(k0, s0, j, ((w0 + w1) + (w2 + w3)) + ((w4 + w5) + (w6 + w7)))
            s1[j] += ((e0 + e1) + (e2 + e3)) + ((e4 + e5) + (e6 + e7))
            s2[j] += ((e0 * d0 + e1 * d1) + (e2 * d2 + e3 * d3)) + ((e4 * d4 + e5 * d5) + (e6 * d6 + e7 * d7))
    for i in range(8 * step, rows):
        fill(pick, i, 0, 1)
        _add_row(x[_place(order, i) * stride :], view_of_row(pick, i, 0), pivot, sums)


@helper
def _spread(value, inner, pack, out):
    """Repeat (channels,) over the pack x channels x inner columns of a wide row."""
    for k in range(pack):
        some = out[k * value.size * inner :]
        if inner == 1:
            for c in range(value.size):
                some[c] = value[c]
        else:
            for c in range(value.size):
                some[c * inner : (c + 1) * inner] = value[c]


@helper
def _pivots(x, stride, rows, inner, pack, pick, count, mean, out):
    """A pivot for each channel: its mean so far, else its first value, else 0; never NaN or infinity."""
    _firsts(x, stride, rows, inner, pack, pick, count, out)
    for c in range(out.size):
        value = out[c] if count[c] == 0.0 else mean[c]
        out[c] = value if abs(value) < np.inf else 0.0


@helper
def _firsts(x, stride, rows, inner, pack, pick, count, out):
    """The first value that counts of each channel of which nothing has been seen, or 0."""
    if pick is None:
        if count[0] == 0.0:
            for c in range(out.size):
                out[c] = load(x, c * inner)
        return
    sought = count == 0.0
    for i in range(rows):
        if not sought.any():
            break
        fill(pick, i, 0, 1)
        view = view_of_row(pick, i, 0)
        for c in range(out.size):
            if sought[c]:
                out[c], sought[c] = _first(x[i * stride :], inner, pack, view, c, out.size)


@helper
def _first(row, inner, pack, view, c, channels):
    """(the first value of one channel that counts in a wide row, False), or (0, True)."""
    for k in range(pack):
        at = (k * channels + c) * inner
        for j in range(at, at + inner):
            v = load(row, j)
            if weigh(view, v, j) != 0.0:
                return v, False
    return 0.0, True


@helper
def _block(x, stride, rows, inner, pack, pick, parts, b, c0, channels):
    """Merge `rows` rows into part b, channels from c0; pick: opened for these rows; parts as in `welford.join`."""
    width = pack * channels * inner
    count, mean = parts[0][b, c0 : c0 + channels], parts[1][b, c0 : c0 + channels]
    seed, pivot, s0, s1, s2 = np.empty(channels), np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    higher, extremes = like(parts[3], width), like(parts[4], width)
    for t in range(0, rows // pack, TILE):
        n = min(TILE, rows // pack - t)
        part, seen = x[t * pack * stride :], rows_from(pick, t)
        _pivots(part, pack * stride, n, inner, pack, seen, count, mean, seed)
        _spread(seed, inner, pack, pivot)
        s1[:] = s2[:] = 0.0
        clear_higher(higher)
        clear_extremes(extremes)
        if pick is None:
            s0[:channels] = n
        else:
            s0[:] = 0.0
        _add_rows(part, pack * stride, n, seen, pivot, (s0, s1, s2, higher, extremes))
        _fold_counts(pick, s0, channels, inner, pack)
        _fold(s1, channels, inner, pack)
        _fold(s2, channels, inner, pack)
        _fold_higher(higher, channels, inner, pack)
        _fold_extremes(extremes, channels, inner, pack, parts[4], b, c0)
        take_in(parts, b, c0, pick is None and count[0] == 0.0, s0[:channels], seed, s1, s2, higher)


@helper
def _fold(sums, channels, inner, pack):
    """Add up the columns of each channel, in place: the first (channels,) of (width,)."""
    if pack * inner > 1:
        for c in range(channels):
            total = 0.0
            for k in range(pack):
                at = (k * channels + c) * inner
                total += sums[at] if inner == 1 else _total(sums[at : at + inner])
            sums[c] = total  # no later channel has a column before this one


@reduction
def _total(values):
    total = 0.0
    for j in range(values.size):
        total += values[j]
    return total


@helper
def _fold_counts(pick, counts, channels, inner, pack):
    """`_fold` of the weights; without a pick all columns have the same."""
    if pick is not None:
        _fold(counts, channels, inner, pack)
    elif pack * inner > 1:
        for c in range(channels):
            counts[c] *= pack * inner


@helper
def _fold_higher(higher, channels, inner, pack):
    if higher is not None:
        _fold(higher[0], channels, inner, pack)
        _fold(higher[1], channels, inner, pack)


@helper
def _fold_extremes(extremes, channels, inner, pack, into, b, c0):
    """Take the columns of each channel into part b."""
    if extremes is not None:
        for k in range(pack):
            for c in range(channels):
                at = (k * channels + c) * inner
                fold_extremes(extremes, at, at + inner, into, b, c0 + c)


@kernel
def moments(x, stride, rows, channels, inner, pack, row_blocks, col_blocks, lo, hi, pick, parts):
    """Items lo..hi of row_blocks x col_blocks, into the parts: (row_blocks, channels); x: flat."""
    for item in range(lo, hi):
        b, k = item // col_blocks, item % col_blocks
        first, last = rows * b // row_blocks, rows * (b + 1) // row_blocks
        c0, c1 = channels * k // col_blocks, channels * (k + 1) // col_blocks
        packed = (last - first) // pack * pack
        # One call for both, in a loop: what is compiled twice takes twice the time.
        for at, n, p in ((first, packed, pack), (first + packed, last - first - packed, 1)):
            if n > 0:
                seen = block_of(pick, at, c0, c1 - c0, p, inner)
                _block(x[at * stride + c0 * inner :], stride, n, inner, p, seen, parts, b, c0, c1 - c0)


@pasted
def _affine_row(x, out, mean, scale, shift, residual, activation):
    """out = activation((x - mean) * scale + shift + residual); all (width,), shift and residual None for 0."""
    for j in range(x.size):
        value = beside(plus((load(x, j) - mean[j]) * scale[j], shift, j), residual, j)
        store(out, j, activate(activation, value))


@inlined
def _affine_two_rows(x, y, out, out_y, mean, scale, shift, residual, residual_y, activation):
    """`_affine_row` of x and y at once: the parameters load once for two.

    Both results come before both stores: a load close behind a store to the same place in a page waits for it.
    """
    for j in range(x.size):
        first = beside(plus((load(x, j) - mean[j]) * scale[j], shift, j), residual, j)
        second = beside(plus((load(y, j) - mean[j]) * scale[j], shift, j), residual_y, j)
        store(out, j, activate(activation, first))
        store(out_y, j, activate(activation, second))


@inlined
def _affine_rows(x, x_stride, out, out_stride, rows, width, mean, scale, shift, residual, step, activation):
    """`_affine_row` for each row, a row of each half at a time; step: from row to row of the residual."""
    half = rows // 2
    for i in range(half):
        p, q, r, s = i * x_stride, (i + half) * x_stride, i * out_stride, (i + half) * out_stride
        _affine_two_rows(
            x[p : p + width], x[q : q + width], out[r : r + width], out[s : s + width], mean, scale, shift,
            part_of(residual, i * step, width), part_of(residual, (i + half) * step, width), activation,
        )  # fmt: skip
    if rows % 2:
        p, q = (rows - 1) * x_stride, (rows - 1) * out_stride
        other = part_of(residual, (rows - 1) * step, width)
        _affine_row(x[p : p + width], out[q : q + width], mean, scale, shift, other, activation)


@inlined
def _affine_rows_in_place(x, x_stride, rows, width, mean, scale, shift, residual, step, activation):
    """`_affine_row` for each row, one at a time: two would stop the vectorizer, which sees one array."""
    for i in range(rows):
        r = x[i * x_stride : i * x_stride + width]
        _affine_row(r, r, mean, scale, shift, part_of(residual, i * step, width), activation)


@maybe
def columns(value, c0, c1, inner, pack):
    """A parameter of channels c0..c1 for each column of a wide row; None stays None."""
    # 64 more than needed: the parameters do not all start at one place in a page.
    out = np.empty(pack * (c1 - c0) * inner + 64)
    _spread(value[c0:c1], inner, pack, out)
    return out


@kernel
def transform(
    x, x_stride, out, out_stride, rows, channels, inner, pack, row_blocks, col_blocks, lo, hi, mean, scale, shift,
    residual, step, activation,
):  # fmt: skip
    """Items lo..hi, as `moments`; out: flat, or None for in place; parameters: (channels,), shift None for 0.

    residual: flat with rows `helper` apart, or None.
    """
    for item in range(lo, hi):
        b, k = item // col_blocks, item % col_blocks
        first, last = rows * b // row_blocks, rows * (b + 1) // row_blocks
        c0, c1 = channels * k // col_blocks, channels * (k + 1) // col_blocks
        row = (c1 - c0) * inner
        a = columns(mean, c0, c1, inner, pack)
        s = columns(scale, c0, c1, inner, pack)
        t = columns(shift, c0, c1, inner, pack)
        packed = (last - first) // pack
        rest = (last - first) - packed * pack
        p, q, r = first * x_stride + c0 * inner, first * out_stride + c0 * inner, first * step + c0 * inner
        p_rest, q_rest = p + packed * pack * x_stride, q + packed * pack * out_stride
        other, other_rest = part_from(residual, r), part_from(residual, r + packed * pack * step)
        wide, once = pack * x_stride, min(rest, 1)
        if out is None:
            _affine_rows_in_place(x[p:], wide, packed, pack * row, a, s, t, other, pack * step, activation)
            _affine_rows_in_place(x[p_rest:], x_stride, once, rest * row, a, s, t, other_rest, step, activation)
        else:
            _affine_rows(
                x[p:], wide, out[q:], pack * out_stride, packed, pack * row, a, s, t, other, pack * step, activation
            )
            _affine_rows(
                x[p_rest:], x_stride, out[q_rest:], out_stride, once, rest * row, a, s, t, other_rest, step, activation
            )


@kernel
def train(
    x, out, rows, channels, inner, pack, row_blocks, col_blocks, out_row_blocks, out_col_blocks, lo, parts,
    gamma, beta, eps, activation,
):  # fmt: skip
    """All items from `lo` on of a small array: its moments, merged into part 0, then the transform; beta None for 0."""
    row = channels * inner
    # No number is written out here: numba would compile `moments` once more, for that number.
    moments(x, row, rows, channels, inner, pack, row_blocks, col_blocks, lo, row_blocks * col_blocks, None, parts)
    merge_tree(parts, lo, channels)
    scale = np.empty(channels)
    for c in range(channels):
        scale[c] = scale_of(parts[0][0, c], parts[2][0, c], gamma[c], eps)
    transform(
        x, row, out, row, rows, channels, inner, pack, out_row_blocks, out_col_blocks, lo,
        out_row_blocks * out_col_blocks, parts[1][0], scale, beta, None, row, activation,
    )  # fmt: skip
