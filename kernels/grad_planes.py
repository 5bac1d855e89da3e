"""The way back, by long runs: sums over the gradient, and the gradient of x, as in `grad_rows.py`.

Items are as in `cpu_planes.py`: a block of channels x a part for the sums, a part of a run for the gradient of x.
"""

from .grad_rows import back, flow
from .half import load, part_of, store
from .jit import helper, kernel, pasted, reduction
from .weights import missing, view_of_run, weigh


@reduction
def _sums(dy, x, view, mean, act, c, residual):
    """Sums of the gradients g and of g * (x - mean) over one run; arrays: (n,), residual may be None."""
    s1, s2 = 0.0, 0.0
    for i in range(x.size):
        v = load(x, i)
        gone = missing(view, v, i)
        g = 0.0 if gone else flow(act, load(dy, i), v, mean, c, residual, i)
        s1 += g
        s2 += g * (0.0 if gone else v - mean)
    return s1, s2


@helper
def _channel(
    dy, dy_outer, dy_channel, x, x_outer, x_channel, o0, o1, i0, i1, c, pick, mean, act,
    residual, r_outer, r_channel, parts, b,
):  # fmt: skip
    """Add outers o0..o1, values i0..i1 of channel c to part b of (2, parts, channels)."""
    n = i1 - i0
    for o in range(o0, o1):
        p, q = o * dy_outer + c * dy_channel + i0, o * x_outer + c * x_channel + i0
        other = part_of(residual, o * r_outer + c * r_channel + i0, n)
        s1, s2 = _sums(dy[p : p + n], x[q : q + n], view_of_run(pick, o, c, i0), mean[c], act, c, other)
        parts[0, b, c] += s1
        parts[1, b, c] += s2


@kernel
def sums(
    dy, dy_outer, dy_channel, x, x_outer, x_channel, outer, channels, inner, blocks, outer_blocks, inner_blocks,
    lo, hi, pick, mean, act, residual, r_outer, r_channel, parts,
):  # fmt: skip
    """Items lo..hi of channel blocks x parts; parts: zeros, (2, outer_blocks * inner_blocks, channels)."""
    each = outer_blocks * inner_blocks
    for item in range(lo, hi):
        g, b = item // each, item % each
        j, k = b // inner_blocks, b % inner_blocks
        o0, o1 = outer * j // outer_blocks, outer * (j + 1) // outer_blocks
        i0, i1 = inner * k // inner_blocks, inner * (k + 1) // inner_blocks
        for c in range(channels * g // blocks, channels * (g + 1) // blocks):
            _channel(
                dy, dy_outer, dy_channel, x, x_outer, x_channel, o0, o1, i0, i1, c, pick, mean, act,
                residual, r_outer, r_channel, parts, b,
            )  # fmt: skip


@pasted
def _run(dy, x, dx, dz, view, mean, act, residual, a, b, k, c):
    """The gradient of one run of channel c of x, and of the residual into dz; arrays: (n,), dz may be None."""
    for i in range(x.size):
        v = load(x, i)
        w = weigh(view, v, i)
        g = flow(act, load(dy, i), v, mean, c, residual, i)
        result = 0.0 if missing(view, v, i) else back(g, v - mean, w, a, b, k, c)
        if dz is not None:
            store(dz, i, g)
        store(dx, i, result)


@helper
def _input(dy, x, dx, q, n, dz, view, mean, act, residual, a, b, k, c):
    """`_run` of n values, into dx from q; dx None: into dy."""
    if dx is None:
        _run(dy, x, dy, dz, view, mean, act, residual, a, b, k, c)
    else:
        _run(dy, x, dx[q : q + n], dz, view, mean, act, residual, a, b, k, c)


@kernel
def inputs(
    dy, dy_outer, dy_channel, x, x_outer, x_channel, dx, dx_outer, dx_channel, dz, z_outer, z_channel,
    channels, inner, inner_blocks, lo, hi, pick, mean, act, residual, r_outer, r_channel, a, b, k,
):  # fmt: skip
    """Items lo..hi of outer x channels x inner_blocks: dx (None: into dy), and the gradient of the residual into dz."""
    for item in range(lo, hi):
        plane, part = item // inner_blocks, item % inner_blocks
        o, c = plane // channels, plane % channels
        i0, i1 = inner * part // inner_blocks, inner * (part + 1) // inner_blocks
        p, q, n = o * dy_outer + c * dy_channel + i0, o * x_outer + c * x_channel + i0, i1 - i0
        other = part_of(residual, o * r_outer + c * r_channel + i0, n)
        z = part_of(dz, o * z_outer + c * z_channel + i0, n)
        view = view_of_run(pick, o, c, i0)
        at = o * dx_outer + c * dx_channel + i0
        _input(dy[p : p + n], x[q : q + n], dx, at, n, z, view, mean[c], act, other, a, b, k, c)
