"""(x - mean) * scale + shift for one element, in the arithmetic that its types need.

float64 where x or the result has more than 32 bits. Else float32 with the mean in two parts, high and
low: x - high is exact where it matters, near the mean, so the result is within two units in the last
place, and twice as many elements go through at a time. What is absent is None, and costs nothing.
"""

import numpy as np
from numba import types
from numba.extending import overload

from .half import load, narrow
from .jit import kernel

LARGE = 2.0**100  # beyond it, and below its inverse, parameters are used in float64


def at(low, j):
    """Element j of the low parts, or None where there are none."""
    return None if low is None else low[j]


def centered(x, i, mean, low):
    """x[i] - mean in float64, or (x[i] - mean) - low in float32."""
    return load(x, i) - mean if low is None else (narrow(x, i) - mean) - low


@kernel
def usual(mean, scale, shift):
    """Whether float32 holds these parameters of a channel with room to spare."""
    size = abs(scale)
    return (size < LARGE) and (size > 1.0 / LARGE or size == 0.0) and abs(mean) < LARGE and abs(shift) < LARGE


@kernel
def all_usual(mean, scale, shift):
    """Whether `usual` holds for every channel; all (channels,)."""
    for c in range(mean.size):  # noqa: SIM110 (numba has no generators here)
        if not usual(mean[c], scale[c], shift[c]):
            return False
    return True


def parts(value, like):
    """A float64 in the type of `like`, and the rest of it, or None where nothing is lost."""
    if like.dtype == np.float64:
        return value, None
    return np.float32(value), np.float32(value - np.float64(np.float32(value)))


@overload(at)
def _at(low, j):
    if isinstance(low, types.NoneType):
        return lambda low, j: None
    return lambda low, j: low[j]


@overload(centered)
def _centered(x, i, mean, low):
    if isinstance(low, types.NoneType):
        return lambda x, i, mean, low: load(x, i) - mean
    return lambda x, i, mean, low: (narrow(x, i) - mean) - low


@overload(parts)
def _parts(value, like):
    if like.dtype == types.float64:
        return lambda value, like: (value, None)
    return lambda value, like: (np.float32(value), np.float32(value - np.float64(np.float32(value))))
