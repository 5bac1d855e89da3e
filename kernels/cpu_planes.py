"""A long contiguous run of `inner` values for each (outer, channel), as in NCHW.

An item of the moments is a block of channels x a block of outers x a part of the run; the blocks
of channels keep neighbouring short runs together. Sums over several runs share one pivot until
enough values have passed for the merge to cost nothing.
"""

import numpy as np

from .activation import activate
from .half import beside, load, part_of, plus, store
from .jit import helper, inlined, kernel, maybe, pasted, reduction
from .more import clear_extremes, fold_extremes, like, tally_extremes
from .weights import deviation, reach, view_of_run, weigh, weighted
from .welford import merge_tree, scale_of, take_in

TILE = 8192  # values between two merges
STREAMS = (
    4096  # values of a run that is read as four streams by itself; a shorter one is read together with three others
)
LANES = 64  # columns that a run is laid out in to find its extremes: whole vectors


@reduction
def _sums(x, view, pivot, higher):
    """Sums over one run: weights, shifted values, their squares, third and fourth powers; x: (n,)."""
    s0, s1, s2, s3, s4 = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(x.size):
        v = load(x, i)
        w = weigh(view, v, i)
        d = deviation(view, v, pivot, w)
        e = weighted(view, w, d)
        s0 += 0.0 if view is None else w
        s1 += e
        s2 += e * d
        s3 += 0.0 if higher is None else e * d * d
        s4 += 0.0 if higher is None else e * d * d * d
    return float(x.size) if view is None else s0, s1, s2, s3, s4


@reduction
def _four_streams(x, hop, n, pivot):
    """`_sums` of values and squares over four runs of n values, `hop` apart: memory answers several streams faster."""
    x0, x1, x2, x3 = x[:n], x[hop : hop + n], x[2 * hop : 2 * hop + n], x[3 * hop : 3 * hop + n]
    s1, s2 = 0.0, 0.0
    for i in range(n):
        d0, d1, d2, d3 = load(x0, i) - pivot, load(x1, i) - pivot, load(x2, i) - pivot, load(x3, i) - pivot
        s1 += (d0 + d1) + (d2 + d3)
        s2 += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
    return s1, s2


@helper
def _sums_of_runs(x, runs, hop, n, view, pivot, higher):
    """`_sums` over one run of n values, or four, `hop` apart."""
    if view is None and higher is None:
        if runs == 4:
            s1, s2 = _four_streams(x, hop, n, pivot)
            return float(4 * n), s1, s2, 0.0, 0.0
        if n >= STREAMS:
            quarter = n // 4
            s1, s2 = _four_streams(x, quarter, quarter, pivot)
            s0, r1, r2, s3, s4 = _sums(x[4 * quarter : n], view, pivot, higher)
            return s0 + float(4 * quarter), s1 + r1, s2 + r2, s3, s4
    return _sums(x[:n], view, pivot, higher)


@helper
def _extremes(x, view, lanes):
    """Take one run into the extremes of (3, LANES) lanes; x: (n,)."""
    whole = x.size // LANES * LANES
    for lo in range(0, whole, LANES):
        for j in range(LANES):
            _extreme(x, view, lo + j, lanes, j)
    for i in range(whole, x.size):
        _extreme(x, view, i, lanes, i - whole)


@helper
def _extreme(x, view, i, lanes, j):
    v = load(x, i)
    tally_extremes(lanes, j, reach(view, i), weigh(view, v, i), v)


@helper
def _pivot(x, view, known, mean):
    """The mean so far where any is known, else the first value of the run that counts; 0 for NaN and infinity."""
    pivot = mean
    if known == 0.0:
        pivot = 0.0
        for i in range(x.size):
            v = load(x, i)
            if weigh(view, v, i) != 0.0:
                pivot = v
                break
    return pivot if np.isfinite(pivot) else 0.0


@helper
def _block(x, outer_stride, channel_stride, outer, n, pick, o0, c0, i0, channels, parts, b):
    """Merge runs of n values into part b, channels from c0; x begins at (o0, c0, i0), which is where pick is read."""
    pivot, sums = np.empty(channels), np.zeros((5, channels))
    lanes = like(parts[4], LANES)
    pending = 0
    # Short runs are taken four at a time, one from each quarter of the outers, where nothing but sums is asked for.
    quarter = outer // 4 if pick is None and parts[3] is None and parts[4] is None else 0
    steps = outer - 3 * quarter
    for t in range(steps):
        runs, o = (4, t) if t < quarter else (1, t + 3 * quarter)
        for lo in range(0, n, TILE):
            size = min(TILE, n - lo)
            pending += runs * size
            last = pending >= TILE or (t + 1 == steps and lo + size == n)
            for c in range(channels):
                at = o * outer_stride + c * channel_stride + lo
                run = x[at : at + size]
                view = view_of_run(pick, o0 + o, c0 + c, i0 + lo)
                if sums[0, c] == 0.0:  # nothing since the last merge, or nothing that counts
                    pivot[c] = _pivot(run, view, parts[0][b, c0 + c], parts[1][b, c0 + c])
                s0, s1, s2, s3, s4 = _sums_of_runs(x[at:], runs, quarter * outer_stride, size, view, pivot[c], parts[3])
                sums[0, c] += s0
                sums[1, c] += s1
                sums[2, c] += s2
                sums[3, c] += s3
                sums[4, c] += s4
                if lanes is not None:
                    _extremes_of_run(run, view, lanes, parts[4], b, c0 + c)
            if last:
                take_in(
                    parts,
                    b,
                    c0,
                    pick is None and parts[0][b, c0] == 0.0,
                    sums[0],
                    pivot,
                    sums[1],
                    sums[2],
                    _powers(parts[3], sums),
                )
                sums[:] = 0.0
                pending = 0


@maybe
def _powers(higher, sums):
    return sums[3:]


@helper
def _extremes_of_run(run, view, lanes, extremes, b, c):
    """Take the extremes of one run into part b, channel c."""
    clear_extremes(lanes)
    _extremes(run, view, lanes)
    fold_extremes(lanes, 0, LANES, extremes, b, c)


@helper
def _item(x, outer_stride, channel_stride, outer, inner, c0, c1, outer_blocks, inner_blocks, pick, parts, b):
    """Part b of outer_blocks x inner_blocks, channels c0..c1, merged into parts[b]."""
    j, k = b // inner_blocks, b % inner_blocks
    o0, o1 = outer * j // outer_blocks, outer * (j + 1) // outer_blocks
    i0, i1 = inner * k // inner_blocks, inner * (k + 1) // inner_blocks
    at = o0 * outer_stride + c0 * channel_stride + i0
    _block(x[at:], outer_stride, channel_stride, o1 - o0, i1 - i0, pick, o0, c0, i0, c1 - c0, parts, b)


@kernel
def moments(
    x, outer_stride, channel_stride, outer, channels, inner, blocks, outer_blocks, inner_blocks, lo, hi, pick, parts
):
    """Items lo..hi of channel blocks x parts; x: flat; parts: cleared, (outer_blocks * inner_blocks, channels)."""
    each = outer_blocks * inner_blocks
    for item in range(lo, hi):
        g, b = item // each, item % each
        c0, c1 = channels * g // blocks, channels * (g + 1) // blocks
        _item(x, outer_stride, channel_stride, outer, inner, c0, c1, outer_blocks, inner_blocks, pick, parts, b)


@pasted
def _affine_run(x, out, mean, scale, shift, residual, activation):
    """out = activation((x - mean) * scale + shift + residual) over one run of one channel; arrays: (n,) or None."""
    for i in range(x.size):
        store(out, i, activate(activation, beside((load(x, i) - mean) * scale + shift, residual, i)))


@inlined
def _affine(x, out, p, q, n, mean, scale, shift, residual, activation):
    """`_affine_run` of n values of x from p to out from q; out None: in place."""
    run = x[p : p + n]
    if out is None:
        _affine_run(run, run, mean, scale, shift, residual, activation)
    else:
        _affine_run(run, out[q : q + n], mean, scale, shift, residual, activation)


@kernel
def transform(
    x, x_outer, x_channel, out, out_outer, out_channel, channels, inner, inner_blocks, lo, hi, mean, scale, shift,
    residual, residual_outer, residual_channel, activation,
):  # fmt: skip
    """Items lo..hi of outer x channels x inner_blocks; out: flat, or None for in place; shift: None for 0."""
    plane, k = lo // inner_blocks, lo % inner_blocks
    o, c = plane // channels, plane % channels
    for _ in range(lo, hi):
        i0, i1 = (0, inner) if inner_blocks == 1 else (inner * k // inner_blocks, inner * (k + 1) // inner_blocks)
        p, q = o * x_outer + c * x_channel + i0, o * out_outer + c * out_channel + i0
        other = part_of(residual, o * residual_outer + c * residual_channel + i0, i1 - i0)
        _affine(x, out, p, q, i1 - i0, mean[c], scale[c], plus(0.0, shift, c), other, activation)
        k += 1  # rather than divisions, which take as long as a short run
        if k == inner_blocks:
            k, c = 0, c + 1
            if c == channels:
                c, o = 0, o + 1


@kernel
def train(
    x, x_outer, x_channel, out, out_outer, out_channel, outer, channels, inner, blocks, outer_blocks, inner_blocks,
    lo, hi, pick, parts, gamma, beta, eps, residual, residual_outer, residual_channel, activation,
):  # fmt: skip
    """Channel blocks lo..hi: moments as in `moments`, merged into part 0, then the transform.

    The second pass goes backwards, to meet first what is still cached.
    """
    for g in range(lo, hi):
        c0, c1 = channels * g // blocks, channels * (g + 1) // blocks
        for b in range(outer_blocks * inner_blocks):
            _item(x, x_outer, x_channel, outer, inner, c0, c1, outer_blocks, inner_blocks, pick, parts, b)
        merge_tree(parts, c0, c1)
        for o in range(outer - 1, -1, -1):
            for c in range(c1 - 1, c0 - 1, -1):
                scale = scale_of(parts[0][0, c], parts[2][0, c], gamma[c], eps)
                p, q = o * x_outer + c * x_channel, o * out_outer + c * out_channel
                other = part_of(residual, o * residual_outer + c * residual_channel, inner)
                _affine(x, out, p, q, inner, parts[1][0, c], scale, beta[c], other, activation)
