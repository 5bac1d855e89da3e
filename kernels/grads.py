"""The way back, sums over the gradient: of g, and of g * (x - mean), where g is the gradient behind the activation.

Rows, blocks and columns are as in `cpu_rows.py` and `cpu_planes.py`. The gradient of x is written by `written.py`.
"""

from .columns import fold
from .forms import LANES, Eight, Few
from .jit import helper, inlined, kernel
from .memory import at, load, moved, store
from .picks import block_of, fill, room_of_pick, view_of_row, view_of_run
from .point import act_channel, act_columns, columns, flow
from .room import free_room, is_missing, new_room, padded
from .vector import added, nothing, total, within
from .weights import unless_missing


@inlined
def _terms(dy, p, x, q, view, mean, act, residual, r, j):
    """(g, x - mean) at an index; dy from p on, x from q, the residual from r."""
    v = load(x, moved(j, q))
    g = flow(act, load(dy, moved(j, p)), v, mean, j, residual, moved(j, r))
    return unless_missing(view, v, j, g), unless_missing(view, v, j, v - mean)


# Rows ------------------------------------------------------------------------------------------------


@inlined
def _add_row(dy, p, x, q, view, mean, act, residual, r, s1, s2, j):
    """Add one row's gradients, and their products with the deviations, at an index of its columns."""
    g, d = _terms(dy, p, x, q, view, load(mean, j), act, residual, r, j)
    store(s1, j, load(s1, j) + g)
    store(s2, j, load(s2, j) + g * d)


@inlined
def _add_four(dy, p, hp, x, q, hq, k0, k1, k2, k3, mean, act, residual, r, hr, s1, s2, j):
    """`_add_row` of four rows, some elements apart in each array, at once."""
    m = load(mean, j)
    g0, d0 = _terms(dy, p, x, q, k0, m, act, residual, r, j)
    g1, d1 = _terms(dy, p + hp, x, q + hq, k1, m, act, residual, r + hr, j)
    g2, d2 = _terms(dy, p + 2 * hp, x, q + 2 * hq, k2, m, act, residual, r + 2 * hr, j)
    g3, d3 = _terms(dy, p + 3 * hp, x, q + 3 * hq, k3, m, act, residual, r + 3 * hr, j)
    store(s1, j, added(load(s1, j), added(added(g0, g1), added(g2, g3))))
    store(s2, j, load(s2, j) + g0 * d0 + g1 * d1 + g2 * d2 + g3 * d3)


@helper
def _add_rows(dy, dy_step, x, x_step, n, width, pick, mean, act, residual, r_step, s1, s2):
    """Add n rows of `width` columns to s1 and s2, four at a time, one from each quarter of them."""
    quarter, rest = n // 4, width % LANES
    for i in range(quarter):
        fill(pick, i, quarter, 4)
        k0, k1 = view_of_row(pick, i, 0), view_of_row(pick, i + quarter, 1)
        k2, k3 = view_of_row(pick, i + 2 * quarter, 2), view_of_row(pick, i + 3 * quarter, 3)
        p, q, r = i * dy_step, i * x_step, i * r_step
        hp, hq, hr = quarter * dy_step, quarter * x_step, quarter * r_step
        for j in range(0, width - rest, LANES):
            _add_four(dy, p, hp, x, q, hq, k0, k1, k2, k3, mean, act, residual, r, hr, s1, s2, Eight(j))
        if rest > 0:
            last = Few(width - rest, rest)
            _add_four(dy, p, hp, x, q, hq, k0, k1, k2, k3, mean, act, residual, r, hr, s1, s2, last)
    for i in range(4 * quarter, n):
        fill(pick, i, 0, 1)
        p, q, r, view = i * dy_step, i * x_step, i * r_step, view_of_row(pick, i, 0)
        for j in range(0, width - rest, LANES):
            _add_row(dy, p, x, q, view, mean, act, residual, r, s1, s2, Eight(j))
        if rest > 0:
            _add_row(dy, p, x, q, view, mean, act, residual, r, s1, s2, Few(width - rest, rest))


@helper
def _fold(s1, s2, channels, inner, pack, sums, part, blocks_channels):
    """Add the columns of each channel to a part of (2, parts, channels) that begins at `part`."""
    fold(s1, channels, inner, pack)
    fold(s2, channels, inner, pack)
    for c in range(channels):
        sums[part + c] += s1[c]
        sums[blocks_channels + part + c] += s2[c]


@kernel
def rows(
    lo, hi, dy, dy_step, x, x_step, rows, channels, inner, pack, row_blocks, col_blocks, pick, mean, act,
    residual, r_step, sums,
):  # fmt: skip
    """Items lo..hi, as `cpu_rows.moments`; sums: zeros, (2, row_blocks, channels)."""
    most = pack * (-(-channels // col_blocks)) * inner
    w, ahead = padded(most), room_of_pick(pick, most, 0)
    room = new_room(5 * w + 2 * ahead)
    if is_missing(room):
        return False
    s1, s2, own, at_act, at_pick = room, at(room, w), at(room, 2 * w), at(room, 3 * w), at(room, 5 * w)
    for item in range(lo, hi):
        b, k = item // col_blocks, item % col_blocks
        first, last = rows * b // row_blocks, rows * (b + 1) // row_blocks
        c0, c1 = channels * k // col_blocks, channels * (k + 1) // col_blocks
        packed = (last - first) // pack * pack
        for row, n, p in ((first, packed, pack), (first + packed, last - first - packed, 1)):
            if n > 0:
                width, begin = p * (c1 - c0) * inner, c0 * inner
                for j in range(width):
                    s1[j] = s2[j] = 0.0
                _add_rows(
                    at(dy, row * dy_step + begin), p * dy_step, at(x, row * x_step + begin), p * x_step, n // p, width,
                    block_of(pick, row, c0, c1 - c0, p, inner, 0, at_pick, at(at_pick, ahead)),
                    columns(mean, c0, c1 - c0, inner, p, 0, own), act_columns(act, c0, c1 - c0, inner, p, 0, at_act, w),
                    at(residual, row * r_step + begin), p * r_step, s1, s2,
                )  # fmt: skip
                _fold(s1, s2, c1 - c0, inner, p, sums, b * channels + c0, row_blocks * channels)
    free_room(room)
    return True


@kernel
def add_at(sums, parts, places, n, into, channels):
    """Add sums, (2, parts, n), to those of all channels, (2, channels), at their places; then they are zeros again."""
    for k in range(2):
        for c in range(n):
            found = 0.0
            for b in range(parts):
                found += sums[(k * parts + b) * n + c]
                sums[(k * parts + b) * n + c] = 0.0
            into[k * channels + places[c]] += found
    return True


# Runs ------------------------------------------------------------------------------------------------


@inlined
def _added(dy, p, x, q, view, mean, act, residual, r, s1, s2, j):
    g, d = _terms(dy, p, x, q, view, mean, act, residual, r, j)
    g = within(g, j)
    return added(s1, g), s2 + g * d


@helper
def _sums(dy, p, x, q, n, view, mean, act, residual, r):
    """(sum of g, sum of g * (x - mean)) over one run."""
    rest = n % LANES
    s1 = s2 = t1 = t2 = nothing(Eight(n))
    pairs = n // (2 * LANES) * (2 * LANES)
    for j in range(0, pairs, 2 * LANES):
        s1, s2 = _added(dy, p, x, q, view, mean, act, residual, r, s1, s2, Eight(j))
        t1, t2 = _added(dy, p, x, q, view, mean, act, residual, r, t1, t2, Eight(j + LANES))
    for j in range(pairs, n - rest, LANES):
        s1, s2 = _added(dy, p, x, q, view, mean, act, residual, r, s1, s2, Eight(j))
    if rest > 0:
        t1, t2 = _added(dy, p, x, q, view, mean, act, residual, r, t1, t2, Few(n - rest, rest))
    return total(s1 + t1), total(s2 + t2)


@kernel
def planes(
    lo, hi, dy, dy_outer, dy_channel, x, x_outer, x_channel, outer, channels, inner, blocks, outer_blocks, inner_blocks,
    pick, mean, act, residual, r_outer, r_channel, sums,
):  # fmt: skip
    """Items lo..hi of channel blocks x parts; sums: zeros, (2, outer_blocks * inner_blocks, channels)."""
    each = outer_blocks * inner_blocks
    for item in range(lo, hi):
        g, b = item // each, item % each
        j, k = b // inner_blocks, b % inner_blocks
        o0, o1 = outer * j // outer_blocks, outer * (j + 1) // outer_blocks
        i0, i1 = inner * k // inner_blocks, inner * (k + 1) // inner_blocks
        for o in range(o0, o1):
            for c in range(channels * g // blocks, channels * (g + 1) // blocks):
                p, q, r = (
                    o * dy_outer + c * dy_channel + i0,
                    o * x_outer + c * x_channel + i0,
                    o * r_outer + c * r_channel + i0,
                )
                view = view_of_run(pick, o, c, i0)
                s1, s2 = _sums(dy, p, x, q, i1 - i0, view, load(mean, c), act_channel(act, c), residual, r)
                sums[b * channels + c] += s1
                sums[(each + b) * channels + c] += s2
    return True
