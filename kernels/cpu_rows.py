"""Channels along the row: a matrix of `rows`, each channels x inner values in one contiguous run.

A row is cut into blocks of whole channels, and rows into blocks, so that an item is a rectangle
whose accumulators stay cached. Short rows that touch each other are taken several
(`pack`) at a time as one wide row. All columns of a channel share its pivot, so that folding the
columns into channels is plain addition.
"""

import numpy as np
from numba import types
from numba.extending import overload

from .half import load, plus, store
from .jit import inlined, kernel, pasted
from .welford import close, merge

TILE = 1024  # rows between two merges: the bound on the error of M2 grows with it, the cost falls


@kernel
def _add_row(x, pivot, s1, s2):
    """Add one row's shifted values and squares; all (width,)."""
    for j in range(s1.size):
        d = load(x, j) - pivot[j]
        s1[j] += d
        s2[j] += d * d


@kernel
def _add_rows(x, stride, rows, pivot, s1, s2):
    """Add `rows` rows, eight at a time, one from each eighth of them.

    Eight streams far apart are each sequential to the prefetcher: eight neighbouring rows
    read side by side took twice the time for rows of 0.5 to 2 KB.
    """
    width = s1.size
    step = rows // 8
    h = step * stride
    for i in range(step):
        at = i * stride
        r0, r1, r2, r3 = x[at:], x[at + h :], x[at + 2 * h :], x[at + 3 * h :]
        r4, r5, r6, r7 = x[at + 4 * h :], x[at + 5 * h :], x[at + 6 * h :], x[at + 7 * h :]
        for j in range(width):
            p = pivot[j]
            d0, d1, d2, d3 = load(r0, j) - p, load(r1, j) - p, load(r2, j) - p, load(r3, j) - p
            d4, d5, d6, d7 = load(r4, j) - p, load(r5, j) - p, load(r6, j) - p, load(r7, j) - p
            s1[j] += ((d0 + d1) + (d2 + d3)) + ((d4 + d5) + (d6 + d7))
            s2[j] += ((d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)) + ((d4 * d4 + d5 * d5) + (d6 * d6 + d7 * d7))
    for i in range(8 * step, rows):
        _add_row(x[i * stride :], pivot, s1, s2)


@kernel
def _spread(value, inner, pack, out):
    """Repeat (channels,) over the pack x channels x inner columns of a wide row."""
    j = 0
    for _ in range(pack):
        for c in range(value.size):
            for _ in range(inner):
                out[j] = value[c]
                j += 1


@kernel
def _finite(value, out):
    """Pivots: the values, with 0 for NaN and infinity, which would spread to the mean."""
    for c in range(value.size):
        out[c] = value[c] if np.isfinite(value[c]) else 0.0


@kernel
def _block(x, stride, rows, inner, pack, count, mean, m2):
    """Merge `rows` rows into (count, mean, m2); mean, m2: (channels,). Returns the new count."""
    channels = mean.size
    width = pack * channels * inner
    seed, pivot, s1, s2 = np.empty(channels), np.empty(width), np.empty(width), np.empty(width)
    if count == 0:
        for c in range(channels):
            mean[c] = load(x, c * inner)
    for t in range(0, rows // pack, TILE):
        n = min(TILE, rows // pack - t)
        _finite(mean, seed)
        _spread(seed, inner, pack, pivot)
        s1[:] = 0.0
        s2[:] = 0.0
        _add_rows(x[t * pack * stride :], pack * stride, n, pivot, s1, s2)
        m = float(n * pack * inner)
        for c in range(channels):
            a, b = 0.0, 0.0
            for k in range(pack):
                at = (k * channels + c) * inner
                for j in range(at, at + inner):
                    a += s1[j]
                    b += s2[j]
            tile_mean, tile_m2 = close(m, seed[c], a, b)
            _, mean[c], m2[c] = merge(count, mean[c], m2[c], m, tile_mean, tile_m2)
        count += m
    return count


@kernel
def moments(x, stride, rows, channels, inner, pack, row_blocks, col_blocks, lo, hi, mean, m2):
    """Items lo..hi of row_blocks x col_blocks; x: flat; mean, m2: (row_blocks, channels)."""
    for item in range(lo, hi):
        b, k = item // col_blocks, item % col_blocks
        first, last = rows * b // row_blocks, rows * (b + 1) // row_blocks
        c0, c1 = channels * k // col_blocks, channels * (k + 1) // col_blocks
        part = x[first * stride + c0 * inner :]
        packed = (last - first) // pack * pack
        mean_b, m2_b = mean[b, c0:c1], m2[b, c0:c1]
        m2_b[:] = 0.0
        count = _block(part, stride, packed, inner, pack, 0.0, mean_b, m2_b)
        if packed < last - first:
            _block(part[packed * stride :], stride, last - first - packed, inner, 1, count, mean_b, m2_b)


@pasted
def _affine_row(x, out, mean, scale, shift):
    """out = (x - mean) * scale + shift; all (width,), shift None for 0."""
    for j in range(x.size):
        store(out, j, plus((load(x, j) - mean[j]) * scale[j], shift, j))


@inlined
def _affine_two_rows(x, y, out, out_y, mean, scale, shift):
    """`_affine_row` of x and y at once: the parameters load once for two.

    Both results come before both stores: a load close behind a store to the same place in a page waits for it.
    """
    for j in range(x.size):
        first = plus((load(x, j) - mean[j]) * scale[j], shift, j)
        second = plus((load(y, j) - mean[j]) * scale[j], shift, j)
        store(out, j, first)
        store(out_y, j, second)


@inlined
def _affine_rows(x, x_stride, out, out_stride, rows, width, mean, scale, shift):
    """`_affine_row` for each row, a row of each half at a time."""
    half = rows // 2
    for i in range(half):
        p, q, r, s = i * x_stride, (i + half) * x_stride, i * out_stride, (i + half) * out_stride
        _affine_two_rows(x[p : p + width], x[q : q + width], out[r : r + width], out[s : s + width], mean, scale, shift)
    if rows % 2:
        p, q = (rows - 1) * x_stride, (rows - 1) * out_stride
        _affine_row(x[p : p + width], out[q : q + width], mean, scale, shift)


@inlined
def _affine_rows_in_place(x, x_stride, rows, width, mean, scale, shift):
    """`_affine_row` for each row, one at a time: two would stop the vectorizer, which sees one array."""
    for i in range(rows):
        r = x[i * x_stride : i * x_stride + width]
        _affine_row(r, r, mean, scale, shift)


def _columns(value, c0, c1, inner, pack):
    """A parameter of channels c0..c1 for each column of a wide row; None stays None."""
    if value is None:
        return None
    # 64 more than needed: the parameters do not all start at one place in a page.
    out = np.empty(pack * (c1 - c0) * inner + 64)
    _spread(value[c0:c1], inner, pack, out)
    return out


@overload(_columns)
def _columns_of(value, c0, c1, inner, pack):
    return (lambda value, c0, c1, inner, pack: None) if isinstance(value, types.NoneType) else _columns


@kernel
def transform(
    x, x_stride, out, out_stride, rows, channels, inner, pack, row_blocks, col_blocks, lo, hi, mean, scale, shift
):
    """Items lo..hi, as `moments`; out: flat, or None for in place; the rest: (channels,), shift None for 0."""
    for item in range(lo, hi):
        b, k = item // col_blocks, item % col_blocks
        first, last = rows * b // row_blocks, rows * (b + 1) // row_blocks
        c0, c1 = channels * k // col_blocks, channels * (k + 1) // col_blocks
        row = (c1 - c0) * inner
        a = _columns(mean, c0, c1, inner, pack)
        s = _columns(scale, c0, c1, inner, pack)
        t = _columns(shift, c0, c1, inner, pack)
        packed = (last - first) // pack
        rest = (last - first) - packed * pack
        p, q = first * x_stride + c0 * inner, first * out_stride + c0 * inner
        p_rest, q_rest = p + packed * pack * x_stride, q + packed * pack * out_stride
        if out is None:
            _affine_rows_in_place(x[p:], pack * x_stride, packed, pack * row, a, s, t)
            _affine_rows_in_place(x[p_rest:], x_stride, min(rest, 1), rest * row, a, s, t)
        else:
            _affine_rows(x[p:], pack * x_stride, out[q:], pack * out_stride, packed, pack * row, a, s, t)
            _affine_rows(x[p_rest:], x_stride, out[q_rest:], out_stride, min(rest, 1), rest * row, a, s, t)
