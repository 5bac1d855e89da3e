"""The running-average rules, each a small function with its formula and source.

A rule takes what has been learned so far and the moments of a batch, and gives what is known
afterwards; nothing is changed in place. Variances divide by ``max(count - ddof, 1)``: a single
value per channel has variance 0, as in TensorFlow's fused kernel, rather than none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .arrays import NDArray
from .statistics import Moments, merged


@dataclass(frozen=True, slots=True)
class Running:
    """What a BatchNorm has learned: immutable, float64, all in the channels' shape.

    `count` values were seen of each channel, in `batches` batches; `mean` and `var` are the running
    averages; `m2` is the sum of squared deviations that `var` comes from, where the average is
    cumulative, and else None.
    """

    batches: int
    count: NDArray
    mean: NDArray
    var: NDArray
    m2: NDArray | None = None

    def __post_init__(self) -> None:
        for name in ("count", "mean", "var", "m2"):
            value = getattr(self, name)
            if value is not None:
                value = np.array(value, dtype=np.float64)
                value.flags.writeable = False
                object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return Running, (self.batches, self.count, self.mean, self.var, self.m2)  # so that a copy is read-only too


def start(shape: tuple[int, ...], cumulative: bool) -> Running:
    """Nothing learned: mean 0 and variance 1, as in every framework."""
    zeros = np.zeros(shape)
    return Running(0, zeros, zeros, np.ones(shape), zeros if cumulative else None)


def exponential(old: Running, batch: Moments, momentum: float, ddof: float) -> Running:
    """``new = (1 - momentum) * old + momentum * batch``, for mean and variance alike.

    PyTorch's rule, and with ``decay = 1 - momentum`` that of TensorFlow, Keras and flax
    (Ioffe and Szegedy 2015, section 3.1).
    """
    var = _variance(batch.m2, batch.count, ddof)
    return Running(
        old.batches + 1,
        old.count + batch.count,
        (1 - momentum) * old.mean + momentum * batch.mean,
        (1 - momentum) * old.var + momentum * var,
    )


def cumulative(old: Running, batch: Moments, ddof: float) -> Running:
    """All values seen so far weigh the same: the exact merge of Chan, Golub and LeVeque (1979).

    Unlike PyTorch's ``momentum=None``, which gives every batch the same weight whatever its size and
    forgets the variance between batches.
    """
    assert old.m2 is not None
    count, mean, m2 = merged((old.count, old.mean, old.m2), (batch.count, batch.mean, batch.m2))
    return Running(old.batches + 1, count, mean, _variance(m2, count, ddof), m2)


def pooled(a: Running, b: Running, ddof: float) -> Running:
    """Two averages together, each weighed by the values that it has seen.

    Cumulative ones merge exactly. Exponential ones are taken as the mixture of two populations:
    ``mean = (1-w) * mean_a + w * mean_b`` and ``var = (1-w) * var_a + w * var_b + w * (1-w) * d**2``
    with ``w = n_b / (n_a + n_b)`` and ``d = mean_b - mean_a``.
    """
    batches = a.batches + b.batches
    if a.m2 is not None and b.m2 is not None:
        count, mean, m2 = merged((a.count, a.mean, a.m2), (b.count, b.mean, b.m2))
        return Running(batches, count, mean, np.where(count > 0, _variance(m2, count, ddof), 1.0), m2)
    count = a.count + b.count
    w = np.divide(b.count, count, out=np.zeros_like(count), where=count > 0)
    with np.errstate(invalid="ignore", over="ignore"):
        d = b.mean - a.mean
        mean, var = a.mean + w * d, (1 - w) * a.var + w * b.var + w * (1 - w) * d * d
    both = Running(batches, count, mean, var)
    return where(b.count > 0, where(a.count > 0, both, replace(b, batches=batches)), replace(a, batches=batches))


def where(take: NDArray, new: Running, old: Running) -> Running:
    """`new` in the channels marked by `take`, `old` in the others; `old` itself where there are none."""
    if take.all():
        return new
    if not take.any():
        return old
    m2 = None if new.m2 is None or old.m2 is None else np.where(take, new.m2, old.m2)
    return Running(
        new.batches,
        np.where(take, new.count, old.count),
        np.where(take, new.mean, old.mean),
        np.where(take, new.var, old.var),
        m2,
    )


def _variance(m2: NDArray, count: NDArray | float, ddof: float) -> NDArray:
    return np.asarray(m2 / np.maximum(np.asarray(count) - ddof, 1.0))
