"""The arithmetic on channel parameters, the same to the last bit in every backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import NDArray


def inverse_std(var: NDArray, gamma: Any, eps: float) -> NDArray:
    """``gamma / sqrt(var + eps)``, and 0 where both var and eps are 0: a constant channel gives beta."""
    total = var + eps
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(total == 0, 0.0, gamma / np.sqrt(total))
