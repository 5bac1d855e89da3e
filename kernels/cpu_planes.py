"""A long contiguous run of `inner` values for each (outer, channel), as in NCHW.

An item of the moments is a block of channels x a block of outers x a part of the run; the blocks
of channels keep neighbouring short runs together. Sums over several runs share one pivot until
enough values have passed for the merge to cost nothing.
"""

import numpy as np

from .half import load, plus, store
from .jit import kernel, pasted, reduction
from .welford import close, merge, merge_tree, scale_of

TILE = 8192  # values between two merges


@reduction
def _sums(x, pivot):
    """Sum of the shifted values of one run, and of their squares; x: (n,)."""
    s1, s2 = 0.0, 0.0
    for i in range(x.size):
        d = load(x, i) - pivot
        s1 += d
        s2 += d * d
    return s1, s2


@kernel
def _block(x, outer_stride, channel_stride, outer, n, mean, m2):
    """Moments of `outer` x channels runs of n values; mean, m2: (channels,), written."""
    channels = mean.size
    pivot, s1, s2 = np.empty(channels), np.zeros(channels), np.zeros(channels)
    for c in range(channels):
        first = load(x, c * channel_stride)
        pivot[c] = first if np.isfinite(first) else 0.0
    count, pending = 0.0, 0
    m2[:] = 0.0
    for o in range(outer):
        for lo in range(0, n, TILE):
            size = min(TILE, n - lo)
            pending += size
            last = pending >= TILE or (o + 1 == outer and lo + size == n)
            for c in range(channels):
                at = o * outer_stride + c * channel_stride + lo
                a, b = _sums(x[at : at + size], pivot[c])
                s1[c] += a
                s2[c] += b
                if last:
                    tile_mean, tile_m2 = close(float(pending), pivot[c], s1[c], s2[c])
                    _, mean[c], m2[c] = merge(count, mean[c], m2[c], float(pending), tile_mean, tile_m2)
                    pivot[c] = mean[c] if np.isfinite(mean[c]) else 0.0
                    s1[c], s2[c] = 0.0, 0.0
            if last:
                count += pending
                pending = 0


@kernel
def _item(x, outer_stride, channel_stride, outer, inner, c0, outer_blocks, inner_blocks, part, mean, m2):
    """Moments of one part of outer_blocks x inner_blocks, channels from c0; mean, m2: (block,)."""
    b, k = part // inner_blocks, part % inner_blocks
    o0, o1 = outer * b // outer_blocks, outer * (b + 1) // outer_blocks
    i0, i1 = inner * k // inner_blocks, inner * (k + 1) // inner_blocks
    at = o0 * outer_stride + c0 * channel_stride + i0
    _block(x[at:], outer_stride, channel_stride, o1 - o0, i1 - i0, mean, m2)


@kernel
def moments(
    x, outer_stride, channel_stride, outer, channels, inner, blocks, outer_blocks, inner_blocks, lo, hi, mean, m2
):
    """Items lo..hi of channel blocks x parts; x: flat; mean, m2: (outer_blocks * inner_blocks, channels)."""
    parts = outer_blocks * inner_blocks
    for item in range(lo, hi):
        g, part = item // parts, item % parts
        c0, c1 = channels * g // blocks, channels * (g + 1) // blocks
        _item(
            x, outer_stride, channel_stride, outer, inner, c0, outer_blocks, inner_blocks, part,
            mean[part, c0:c1], m2[part, c0:c1],
        )  # fmt: skip


@pasted
def _affine_run(x, out, mean, scale, shift):
    """out = (x - mean) * scale + shift over one run of one channel; x, out: (n,)."""
    for i in range(x.size):
        store(out, i, (load(x, i) - mean) * scale + shift)


@kernel
def _affine(x, out, p, q, n, mean, scale, shift):
    """`_affine_run` of n values of x from p to out from q; out None: in place."""
    run = x[p : p + n]
    if out is None:
        _affine_run(run, run, mean, scale, shift)
    else:
        _affine_run(run, out[q : q + n], mean, scale, shift)


@kernel
def transform(
    x, x_outer, x_channel, out, out_outer, out_channel, channels, inner, inner_blocks, lo, hi, mean, scale, shift
):
    """Items lo..hi of outer x channels x inner_blocks; out: flat, or None for in place; shift: None for 0."""
    for item in range(lo, hi):
        plane, k = item // inner_blocks, item % inner_blocks
        o, c = plane // channels, plane % channels
        i0, i1 = inner * k // inner_blocks, inner * (k + 1) // inner_blocks
        p, q = o * x_outer + c * x_channel + i0, o * out_outer + c * out_channel + i0
        _affine(x, out, p, q, i1 - i0, mean[c], scale[c], plus(0.0, shift, c))


@kernel
def train(
    x, x_outer, x_channel, out, out_outer, out_channel, outer, channels, inner, blocks, outer_blocks, inner_blocks,
    lo, hi, count, mean, m2, gamma, beta, eps,
):  # fmt: skip
    """Channel blocks lo..hi: moments as in `moments`, merged into mean[0], m2[0], then the transform.

    count: (parts,) values in each part. The second pass goes backwards, to meet first what is still cached.
    """
    total = count.sum()
    for g in range(lo, hi):
        c0, c1 = channels * g // blocks, channels * (g + 1) // blocks
        for part in range(outer_blocks * inner_blocks):
            _item(
                x, x_outer, x_channel, outer, inner, c0, outer_blocks, inner_blocks, part,
                mean[part, c0:c1], m2[part, c0:c1],
            )  # fmt: skip
        merge_tree(count.copy(), mean[:, c0:c1], m2[:, c0:c1])
        for o in range(outer - 1, -1, -1):
            for c in range(c1 - 1, c0 - 1, -1):
                scale = scale_of(m2[0, c] / total, gamma[c], eps)
                p, q = o * x_outer + c * x_channel, o * out_outer + c * out_channel
                _affine(x, out, p, q, inner, mean[0, c], scale, beta[c])
