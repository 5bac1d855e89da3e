"""The verbs in plain float64 NumPy, two passes, no cleverness: what every kernel has to agree with.

Batch normalization on one page. `kept` are the channel axes of x; all other axes are reduced.
"""

import numpy as np


def moments(x, kept):
    """(count, mean, M2): how many values a channel has, their mean, their squared deviations summed."""
    x = np.asarray(x).astype(np.float64)
    reduced = tuple(d for d in range(x.ndim) if d not in kept)
    count = int(np.prod([x.shape[d] for d in reduced]))
    if count == 0:
        shape = tuple(x.shape[d] for d in kept)
        return 0, np.zeros(shape), np.zeros(shape)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = x.mean(axis=reduced)
        deviation = x - along(mean, kept, x.ndim)
        mean = mean + deviation.mean(axis=reduced)  # takes back the rounding of the first sum
        deviation = x - along(mean, kept, x.ndim)
        return count, mean, (deviation * deviation).sum(axis=reduced)


def transform(x, kept, mean, scale, shift):
    """(x - mean) * scale + shift, in float64."""
    x = np.asarray(x).astype(np.float64)
    mean, scale, shift = (along(np.asarray(p, dtype=np.float64), kept, x.ndim) for p in (mean, scale, shift))
    with np.errstate(invalid="ignore", over="ignore"):
        return (x - mean) * scale + shift


def normalize(x, kept, mean, var, gamma=1.0, beta=0.0, eps=1e-5):
    """(x - mean) / sqrt(var + eps) * gamma + beta, in float64."""
    shape = tuple(np.shape(x)[d] for d in kept)
    mean, var, gamma, beta = (np.broadcast_to(np.asarray(p, dtype=np.float64), shape) for p in (mean, var, gamma, beta))
    return transform(x, kept, mean, gamma / np.sqrt(var + eps), beta)


def batch_norm(x, kept, gamma=1.0, beta=0.0, eps=1e-5):
    """x normalized by its own mean and biased variance, in float64, and its moments."""
    count, mean, m2 = moments(x, kept)
    return normalize(x, kept, mean, m2 / max(count, 1), gamma, beta, eps), (count, mean, m2)


def along(parameter, kept, ndim):
    """A channel parameter with axes of length 1 where x is reduced, so that it broadcasts against x."""
    parameter = np.asarray(parameter)
    sizes = dict(zip(sorted(kept), parameter.shape, strict=True)) if parameter.ndim else {}
    return parameter.reshape([sizes.get(d, 1) for d in range(ndim)])
