"""CUDA: what a BatchNorm learns from a batch, what inference multiplies by, and what the way back needs, on the device.

`running` is flat, rows of `channels` float64: count, mean, var, and what the rule keeps besides. The formulas are those
of `numbabn/averages.py` and `numbabn/arithmetic.py`.
"""

import math

from numba import cuda

from .cuda_jit import kernel
from .jit import helper
from .welford import merge

BLENDED, DEBIASED, EQUAL, CUMULATIVE = 0, 1, 2, 3
UNIT = 2.0**-52  # the spacing of float64 at 1
INFINITY = float("inf")


@helper
def variance(m2, count, ddof):
    """m2 over the degrees of freedom; scalars."""
    return m2 / (max(count - ddof, min(count, 1.0)) if count > 0.0 else 1.0)


@helper
def inverse_std(var, eps):
    """1 / sqrt(var + eps), and 0 where that is 0."""
    total = var + eps
    return 0.0 if total == 0.0 else 1.0 / math.sqrt(total)


@kernel
def learn(stats, running, batches, channels, rule, between, momentum, ddof, skip):
    """Take stats (3, channels), flat, into `running`; batches (1,) counts those that any channel learned from.

    One block: it has to know of all channels. skip: what is not finite is left out.
    """
    used = 0
    for c in range(cuda.threadIdx.x, channels, cuda.blockDim.x):
        n, batch_mean, m2 = stats[c], stats[channels + c], stats[2 * channels + c]
        if n <= 0.0 or (skip != 0 and not (abs(batch_mean) < INFINITY and abs(m2) < INFINITY)):
            continue
        used = 1
        count, mean, var = running[c], running[channels + c], running[2 * channels + c]
        kept = 3 * channels + c
        if rule == CUMULATIVE:
            count, mean, total = merge(count, mean, running[kept], n, batch_mean, m2)
            running[c], running[channels + c], running[kept] = count, mean, total
            running[2 * channels + c] = variance(total, count, ddof)
            continue
        f = momentum
        if rule == DEBIASED:
            weight = (1.0 - momentum) * running[kept] + momentum
            running[kept] = weight
            f = momentum / weight if weight > 0.0 else 0.0
        elif rule == EQUAL:
            seen = running[kept] + 1.0
            running[kept] = seen
            f = 1.0 / seen
        new = (1.0 - f) * var + f * variance(m2, n, ddof)
        if between != 0:
            new += f * (1.0 - f) * (batch_mean - mean) ** 2
        running[c] = count + n
        running[channels + c] = (1.0 - f) * mean + f * batch_mean
        running[2 * channels + c] = new
    used = cuda.syncthreads_or(used)
    if cuda.threadIdx.x == 0:
        batches[0] += used


@kernel
def fold(running, channels, gamma, eps, center, scale):
    """Scale (channels,) = gamma / sqrt(var + eps); gamma alone for a channel that does not vary, if `center`."""
    c = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if c < channels:
        count, mean, var = running[c], running[channels + c], running[2 * channels + c]
        weight = 1.0 if gamma is None else gamma[c]
        nu = count * UNIT
        if center != 0 and var <= nu * var + (nu * mean) * (nu * mean):
            scale[c] = weight
        else:
            total = var + eps
            scale[c] = 0.0 if total == 0.0 else weight / math.sqrt(total)


@kernel
def turn(stats, channels, gamma, eps, shares):
    """Shares (2, channels), flat: 1 / sqrt(var + eps) of a batch, and that times gamma."""
    c = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if c < channels:
        n = stats[c]
        inverse = inverse_std(stats[2 * channels + c] / n if n > 0.0 else 0.0, eps)
        shares[c] = inverse
        shares[channels + c] = inverse if gamma is None else inverse * gamma[c]


@kernel
def ways(stats, sums, shares, channels, back):
    """Back (4, channels), flat: b and k for the gradient of x, then the gradients of gamma and beta."""
    c = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if c < channels:
        n, inverse, scale = stats[c], shares[c], shares[channels + c]
        share = scale / n if n > 0.0 else 0.0
        sum_g, sum_gd = sums[c], sums[channels + c]
        back[c] = share * sum_g
        back[channels + c] = share * sum_gd * inverse * inverse
        back[2 * channels + c] = sum_gd * inverse
        back[3 * channels + c] = sum_g
