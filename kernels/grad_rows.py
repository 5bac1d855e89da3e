"""The way back, channels along the row: sums over the gradient, and the gradient of x.

Rows, blocks and columns are as in `cpu_rows.py`. With g the gradient behind the activation, d = x - mean and p the
weight of an element in the statistics: the sums are of g and of g * d, and dx = a * g - p * (b + d * k), where a, b and
k hold one number for each channel; b and k are None where the statistics are frozen.
"""

import numpy as np
from numba import types
from numba.extending import overload

from .activation import slope
from .cpu_rows import columns
from .half import beside, load, part_from, part_of, plus, store
from .jit import helper, inlined, kernel, maybe
from .weights import block_of, fill, missing, view_of_row, weigh


@helper
def flow(act, g, v, mean, j, residual, i):
    """The gradient g behind the activation at a value v; act: None, or (activation, scale, shift) read at j."""
    if act is None:
        return g
    activation, scale, shift = act
    return g * slope(activation, beside(plus((v - mean) * scale[j], shift, j), residual, i))


@helper
def back(g, d, w, a, b, k, j):
    """The gradient of one element of x; b and k None where the statistics are frozen."""
    if b is None:
        return a[j] * g
    return a[j] * g - w * (b[j] + d * k[j])


@maybe
def act_columns(act, c0, c1, inner, pack):
    """The parameters that an activation needs, for each column; None stays None."""
    activation, scale, shift = act
    return activation, columns(scale, c0, c1, inner, pack), columns(shift, c0, c1, inner, pack)


@inlined
def _add_row(dy, x, view, mean, act, residual, s1, s2):
    """Add one row's gradients, and their products with the deviations; all (width,)."""
    for j in range(s1.size):
        v = load(x, j)
        g = 0.0 if missing(view, v, j) else flow(act, load(dy, j), v, mean[j], j, residual, j)
        s1[j] += g
        s2[j] += 0.0 if missing(view, v, j) else g * (v - mean[j])


@inlined
def _add_four_rows(dy, x, h, h_dy, k0, k1, k2, k3, mean, act, r0, r1, r2, r3, s1, s2):
    """`_add_row` of four rows, h and h_dy apart, at once."""
    x0, x1, x2, x3 = x, x[h:], x[2 * h :], x[3 * h :]
    y0, y1, y2, y3 = dy, dy[h_dy:], dy[2 * h_dy :], dy[3 * h_dy :]
    for j in range(s1.size):
        m = mean[j]
        v0, v1, v2, v3 = load(x0, j), load(x1, j), load(x2, j), load(x3, j)
        g0 = 0.0 if missing(k0, v0, j) else flow(act, load(y0, j), v0, m, j, r0, j)
        g1 = 0.0 if missing(k1, v1, j) else flow(act, load(y1, j), v1, m, j, r1, j)
        g2 = 0.0 if missing(k2, v2, j) else flow(act, load(y2, j), v2, m, j, r2, j)
        g3 = 0.0 if missing(k3, v3, j) else flow(act, load(y3, j), v3, m, j, r3, j)
        d0 = 0.0 if missing(k0, v0, j) else v0 - m
        d1 = 0.0 if missing(k1, v1, j) else v1 - m
        d2 = 0.0 if missing(k2, v2, j) else v2 - m
        d3 = 0.0 if missing(k3, v3, j) else v3 - m
        s1[j] += (g0 + g1) + (g2 + g3)
        s2[j] += (g0 * d0 + g1 * d1) + (g2 * d2 + g3 * d3)


@helper
def _block(dy, dy_stride, x, x_stride, rows, width, pick, mean, act, residual, step, s1, s2):
    """Add `rows` rows of `width` columns to s1 and s2: (width,)."""
    quarter = rows // 4
    for i in range(quarter):
        fill(pick, i, quarter, 4)
        _add_four_rows(
            dy[i * dy_stride :], x[i * x_stride :], quarter * x_stride, quarter * dy_stride,
            view_of_row(pick, i, 0), view_of_row(pick, i + quarter, 1),
            view_of_row(pick, i + 2 * quarter, 2), view_of_row(pick, i + 3 * quarter, 3), mean, act,
            part_from(residual, i * step), part_from(residual, (i + quarter) * step),
            part_from(residual, (i + 2 * quarter) * step), part_from(residual, (i + 3 * quarter) * step), s1, s2,
        )  # fmt: skip
    for i in range(4 * quarter, rows):
        other = part_from(residual, i * step)
        fill(pick, i, 0, 1)
        _add_row(dy[i * dy_stride :], x[i * x_stride :], view_of_row(pick, i, 0), mean, act, other, s1, s2)


@helper
def _fold(s1, s2, channels, inner, pack, sums, b, c0):
    """Add the columns of each channel to part b of (2, parts, channels), channels from c0."""
    for k in range(pack):
        for c in range(channels):
            at = (k * channels + c) * inner
            for j in range(at, at + inner):
                sums[0, b, c0 + c] += s1[j]
                sums[1, b, c0 + c] += s2[j]


@kernel
def sums(
    dy, dy_stride, x, x_stride, rows, channels, inner, pack, row_blocks, col_blocks, lo, hi, pick, mean, act,
    residual, step, parts,
):  # fmt: skip
    """Items lo..hi, as `cpu_rows.moments`; parts: zeros, (2, row_blocks, channels): sums of g and of g * (x - mean)."""
    for item in range(lo, hi):
        b, k = item // col_blocks, item % col_blocks
        first, last = rows * b // row_blocks, rows * (b + 1) // row_blocks
        c0, c1 = channels * k // col_blocks, channels * (k + 1) // col_blocks
        packed = (last - first) // pack * pack
        for at, n, p in ((first, packed, pack), (first + packed, last - first - packed, 1)):
            if n > 0:
                width = p * (c1 - c0) * inner
                s1, s2 = np.zeros(width), np.zeros(width)
                _block(
                    dy[at * dy_stride + c0 * inner :], p * dy_stride, x[at * x_stride + c0 * inner :], p * x_stride,
                    n // p, width, block_of(pick, at, c0, c1 - c0, p, inner), columns(mean, c0, c1, inner, p),
                    act_columns(act, c0, c1, inner, p), part_from(residual, at * step + c0 * inner), p * step, s1, s2,
                )  # fmt: skip
                _fold(s1, s2, c1 - c0, inner, p, parts, b, c0)


@inlined
def _row(dy, x, dx, dz, view, mean, act, residual, a, b, k):
    """The gradient of one row of x, and of the residual into dz; all (width,), dz may be None."""
    for j in range(dx.size):
        v = load(x, j)
        w = weigh(view, v, j)
        g = flow(act, load(dy, j), v, mean[j], j, residual, j)
        result = 0.0 if missing(view, v, j) else back(g, v - mean[j], w, a, b, k, j)
        if dz is not None:
            store(dz, j, g)
        store(dx, j, result)


@inlined
def _two_rows(dy, dy2, x, x2, dx, dx2, view, view2, mean, act, a, b, k):
    """`_row` twice, for what has no residual: the parameters load once for two."""
    for j in range(dx.size):
        v, v2 = load(x, j), load(x2, j)
        w, w2 = weigh(view, v, j), weigh(view2, v2, j)
        g, g2 = flow(act, load(dy, j), v, mean[j], j, None, j), flow(act, load(dy2, j), v2, mean[j], j, None, j)
        first = 0.0 if missing(view, v, j) else back(g, v - mean[j], w, a, b, k, j)
        second = 0.0 if missing(view2, v2, j) else back(g2, v2 - mean[j], w2, a, b, k, j)
        store(dx, j, first)
        store(dx2, j, second)


@helper
def _rows(
    dy, dy_stride, x, x_stride, dx, dx_stride, dz, dz_stride, rows, width, pick, mean, act, residual, step, a, b, k
):
    """`_row` for each row; two rows at a time where there is no residual."""
    half = rows // 2 if residual is None and dz is None else 0
    for i in range(half):
        p, q, r, h = i * dy_stride, i * x_stride, i * dx_stride, i + half
        p2, q2, r2 = h * dy_stride, h * x_stride, h * dx_stride
        fill(pick, i, half, 2)
        _two_rows(
            dy[p : p + width], dy[p2 : p2 + width], x[q : q + width], x[q2 : q2 + width], dx[r : r + width],
            dx[r2 : r2 + width], view_of_row(pick, i, 0), view_of_row(pick, h, 1), mean, act, a, b, k,
        )  # fmt: skip
    for i in range(2 * half, rows):
        p, q, r = i * dy_stride, i * x_stride, i * dx_stride
        other, z = part_of(residual, i * step, width), part_of(dz, i * dz_stride, width)
        fill(pick, i, 0, 1)
        view = view_of_row(pick, i, 0)
        _row(dy[p : p + width], x[q : q + width], dx[r : r + width], z, view, mean, act, other, a, b, k)


def _into(dx, dy, at):
    """dx from an element on; dy where there is no dx."""
    return dy if dx is None else dx[at:]


@overload(_into)
def _into_by_type(dx, dy, at):
    return (lambda dx, dy, at: dy) if isinstance(dx, types.NoneType) else (lambda dx, dy, at: dx[at:])


@kernel
def inputs(
    dy, dy_stride, x, x_stride, dx, dx_stride, dz, dz_stride, rows, channels, inner, pack, row_blocks, col_blocks,
    lo, hi, pick, mean, act, residual, step, a, b, k,
):  # fmt: skip
    """Items lo..hi: the gradient of x into dx, that of the residual into dz (or None); dx None: into dy."""
    for item in range(lo, hi):
        block, col = item // col_blocks, item % col_blocks
        first, last = rows * block // row_blocks, rows * (block + 1) // row_blocks
        c0, c1 = channels * col // col_blocks, channels * (col + 1) // col_blocks
        packed = (last - first) // pack * pack
        for at, n, p in ((first, packed, pack), (first + packed, last - first - packed, 1)):
            if n > 0:
                from_dy = dy[at * dy_stride + c0 * inner :]
                into = _into(dx, from_dy, at * dx_stride + c0 * inner)
                _rows(
                    from_dy, p * dy_stride, x[at * x_stride + c0 * inner :], p * x_stride, into, p * dx_stride,
                    part_from(dz, at * dz_stride + c0 * inner), p * dz_stride, n // p, p * (c1 - c0) * inner,
                    block_of(pick, at, c0, c1 - c0, p, inner), columns(mean, c0, c1, inner, p),
                    act_columns(act, c0, c1, inner, p), part_from(residual, at * step + c0 * inner), p * step,
                    columns(a, c0, c1, inner, p), columns(b, c0, c1, inner, p), columns(k, c0, c1, inner, p),
                )  # fmt: skip
