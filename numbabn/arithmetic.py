"""The arithmetic on channel parameters, the same to the last bit in every backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import NDArray


def inverse_std(var: NDArray, gamma: Any, eps: float) -> NDArray:
    """``gamma / sqrt(var + eps)``, and 0 where both var and eps are 0: a constant channel gives beta."""
    total = var + eps
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scale = gamma / np.sqrt(total)
    return scale if np.all(total) else np.where(total == 0, 0.0, scale)


def batch_var(count: Any, m2: NDArray, nothing: float = 0.0) -> NDArray:
    """The biased variance of a batch, ``m2 / count``; `nothing` for a channel without values."""
    empty = np.equal(count, 0)
    return np.where(empty, nothing, m2 / np.where(empty, 1.0, count))


def batch_scale(count: NDArray, m2: NDArray, gamma: Any, eps: float) -> NDArray:
    """`inverse_std` of the biased variance of a batch; 0 for a channel without values, which gives beta."""
    return np.where(np.equal(count, 0), 0.0, inverse_std(batch_var(count, m2), gamma, eps))


def is_constant(mean: NDArray, var: NDArray, count: NDArray | float) -> NDArray:
    """Whether a variance is within the rounding of computing it: ``var <= n*u*var + (n*mean*u)**2``.

    The error bound of the two-pass algorithm (Chan, Golub and LeVeque 1983), as scikit-learn applies it;
    u is the spacing of float64 at 1.
    """
    nu = np.asarray(count) * np.finfo(np.float64).eps
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(var <= nu * var + (nu * mean) ** 2)
