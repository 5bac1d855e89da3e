"""Arithmetic on the parameters of few channels, in one call: NumPy takes longer to begin an operation than to do it."""

import numpy as np

from . import memory  # noqa: F401  what compiles [] of flat memory
from .jit import uncontracted


@uncontracted
def exponential(channels, count, mean, var, n, batch_mean, m2, free, momentum, new):
    """`numbabn.averages.exponential` to the last bit; new: (3, channels), for count, mean and var.

    n: values of each channel in the batch; free: the degrees of freedom that m2 is divided by. Returns whether
    all of the batch is finite.
    """
    rest = 1.0 - momentum
    finite = True
    for c in range(channels):
        new[c] = count[c] + n
        new[channels + c] = rest * mean[c] + momentum * batch_mean[c]
        new[2 * channels + c] = rest * var[c] + momentum * (m2[c] / free)
        finite &= abs(batch_mean[c]) < np.inf and abs(m2[c]) < np.inf
    return finite


@uncontracted
def cumulative(channels, count, mean, m2, n, batch_mean, batch_m2, _, ddof, new):
    """`numbabn.averages.cumulative` to the last bit; new: (4, channels), for count, mean, var and M2.

    n: values of each channel in the batch, more than 0. The arguments are those of `exponential`, one of no use here.
    Returns whether all of the batch is finite.
    """
    finite = True
    for c in range(channels):
        known = count[c]
        total = known + n
        share = n / total
        d = batch_mean[c] - mean[c]
        near = abs(d) < np.inf
        joined = mean[c] + d * share if near else mean[c] * (1.0 - share) + batch_mean[c] * share
        square = m2[c] + batch_m2[c] + d * d * (known * share)
        m2_now = batch_m2[c] if known == 0.0 else square
        new[c] = total
        new[channels + c] = batch_mean[c] if known == 0.0 else joined
        new[3 * channels + c] = m2_now
        free, least = total - ddof, total if total < 1.0 else 1.0
        new[2 * channels + c] = m2_now / (free if free > least else least)
        finite &= abs(batch_mean[c]) < np.inf and abs(batch_m2[c]) < np.inf
    return finite


@uncontracted
def fold(channels, var, gamma, eps, scale):
    """`numbabn.arithmetic.inverse_std` to the last bit, perhaps in place. Returns whether no variance is negative."""
    valid = True
    for c in range(channels):
        total = var[c] + eps
        valid &= not var[c] < 0.0
        scale[c] = 0.0 if total == 0.0 else gamma[c] / np.sqrt(total)
    return valid


@uncontracted
def slopes(channels, count, m2, gamma, eps, sum_g, sum_gd, a, b, k, gradients):
    """What `numbabn.backward.propagate` works out between its passes, to the last bit; gamma: perhaps a itself.

    count: values of each channel, more than 0; gradients: (2, channels), for those of gamma and beta.
    """
    for c in range(channels):
        total = m2[c] / count + eps
        inverse = 0.0 if total == 0.0 else 1.0 / np.sqrt(total)
        a[c] = inverse * gamma[c]
        share = a[c] / count
        b[c] = share * sum_g[c]
        k[c] = share * sum_gd[c] * inverse * inverse
        gradients[c] = sum_gd[c] * inverse + 0.0 * sum_g[c]
        gradients[channels + c] = sum_g[c]
