"""The verbs in plain float64 NumPy, two passes, no cleverness: what every kernel has to agree with.

Batch normalization on one page. `kept` are the channel axes of x; all other axes are reduced. `weight` says how much
each value counts: an array that broadcasts to x, 0 where a value is masked or missing; None for 1.
"""

import numpy as np


def moments(x, kept, weight=None):
    """(count, mean, M2): how many values a channel has, their mean, their squared deviations summed."""
    count, mean, m2, _, _ = higher_moments(x, kept, weight, 2)
    return (float(np.max(count, initial=0.0)) if weight is None else count), mean, m2


def higher_moments(x, kept, weight=None, highest=4):
    """(count, mean, M2, M3, M4), each in the shape of the channels."""
    x = np.asarray(x).astype(np.float64)
    w = np.broadcast_to(np.asarray(1.0 if weight is None else weight, dtype=np.float64), x.shape)
    reduced = tuple(d for d in range(x.ndim) if d not in kept)
    x = np.where(w > 0, x, 0.0)
    count = w.sum(axis=reduced)
    with np.errstate(invalid="ignore", over="ignore"):
        some = np.maximum(count, np.finfo(float).tiny)
        mean = (w * x).sum(axis=reduced) / some
        for _ in range(2):  # takes back the rounding of the first sum
            deviation = np.where(w > 0, x - along(mean, kept, x.ndim), 0.0)
            mean = mean + (w * deviation).sum(axis=reduced) / some
        deviation = np.where(w > 0, x - along(mean, kept, x.ndim), 0.0)
        powers = [(w * deviation**k).sum(axis=reduced) for k in range(2, highest + 1)]
        return count, mean, *powers, *[None] * (4 - highest)


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


def batch_norm(x, kept, gamma=1.0, beta=0.0, eps=1e-5, weight=None):
    """x normalized by its own mean and biased variance, in float64, and its moments."""
    count, mean, m2 = moments(x, kept, weight)
    return normalize(x, kept, mean, m2 / np.maximum(count, 1e-300), gamma, beta, eps), (count, mean, m2)


def backward(g, x, kept, count, mean, var, gamma=1.0, eps=1e-5, weight=None, frozen=False, r=1.0, d=0.0):
    """(dx, dgamma, dbeta) of y = (x_hat * r + d) * gamma + beta, in float64; g: the gradient of y."""
    x, g = np.asarray(x).astype(np.float64), np.asarray(g).astype(np.float64)
    reduced = tuple(a for a in range(x.ndim) if a not in kept)
    shape = tuple(x.shape[a] for a in kept)
    mean, var, gamma, r, d = (np.broadcast_to(np.asarray(p, dtype=np.float64), shape) for p in (mean, var, gamma, r, d))
    s = np.sqrt(var + eps)
    x_hat = (x - along(mean, kept, x.ndim)) / along(s, kept, x.ndim)
    dbeta, product = g.sum(axis=reduced), (g * x_hat).sum(axis=reduced)
    share = np.broadcast_to(1.0 if weight is None else np.asarray(weight, np.float64), x.shape)
    share = share / along(np.broadcast_to(np.asarray(count, np.float64), shape), kept, x.ndim)
    through = 0.0 if frozen else share * (along(dbeta, kept, x.ndim) + x_hat * along(product, kept, x.ndim))
    return along(gamma * r / s, kept, x.ndim) * (g - through), product * r + dbeta * d, dbeta


def along(parameter, kept, ndim):
    """A channel parameter with axes of length 1 where x is reduced, so that it broadcasts against x."""
    parameter = np.asarray(parameter)
    sizes = dict(zip(sorted(kept), parameter.shape, strict=True)) if parameter.ndim else {}
    return parameter.reshape([sizes.get(d, 1) for d in range(ndim)])
