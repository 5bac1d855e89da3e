"""How a training batch moves the moving statistics: the rules of tf.contrib.layers.batch_norm, as functions of arrays.

Read from tensorflow 1.14.0, `contrib/layers`, `keras/layers/normalization.py` and `training/moving_averages.py`, the
last release whose batch renormalization mixes the batch into its averages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..arrays import NDArray

MEAN, VARIANCE = "moving_mean", "moving_variance"
BIASED, STEP = "moving_mean/biased", "moving_mean/local_step"
RENORM_MEAN, RENORM_MEAN_WEIGHT = "renorm_mean", "renorm_mean_weight"
RENORM_STDDEV, RENORM_STDDEV_WEIGHT = "renorm_stddev", "renorm_stddev_weight"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one call asked for. `renorm_decay` is None without renormalization."""

    decay: float
    zero_debias: bool
    renorm_decay: float | None
    epsilon: float

    def shadows(self, channels: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Name and shape of each variable that only training needs; all start at 0."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.zero_debias:
            shapes |= {BIASED: channels, STEP: ()}
        if self.renorm_decay is not None:
            shapes |= {RENORM_MEAN: channels, RENORM_MEAN_WEIGHT: ()}
            shapes |= {RENORM_STDDEV: channels, RENORM_STDDEV_WEIGHT: ()}
        return shapes


def toward(old: NDArray, value: NDArray | float, decay: float) -> NDArray:
    """``old - (1 - decay) * (old - value)``: decay 1 leaves every bit of the old."""
    return np.asarray(old - (old - value) * (1 - decay))


def advanced(rule: Rule, now: Mapping[str, NDArray], mean: NDArray, var: NDArray) -> dict[str, NDArray]:
    """The variables after a batch with this mean and this variance to be stored.

    A channel whose statistics are not finite is fed what it has, and so stays as it is.
    """
    usable = np.isfinite(mean) & np.isfinite(var)
    mean, var = np.where(usable, mean, now[MEAN]), np.where(usable, var, now[VARIANCE])
    new: dict[str, NDArray] = {}
    if rule.renorm_decay is not None:
        std = np.sqrt(var + rule.epsilon)
        mean = _averaged(now, new, RENORM_MEAN, RENORM_MEAN_WEIGHT, mean, usable, rule.renorm_decay)
        std = _averaged(now, new, RENORM_STDDEV, RENORM_STDDEV_WEIGHT, std, usable, rule.renorm_decay)
        var = np.maximum(std * std - rule.epsilon, 0.0)
    if rule.zero_debias:
        new[BIASED], new[STEP] = toward(now[BIASED], mean, rule.decay), now[STEP] + 1
        factor = 1 - rule.decay ** float(new[STEP])
        mean = new[BIASED] / factor if factor > 0 else now[MEAN]
    else:
        mean = toward(now[MEAN], mean, rule.decay)
    var = toward(now[VARIANCE], var, rule.decay)
    new[MEAN], new[VARIANCE] = np.where(usable, mean, now[MEAN]), np.where(usable, var, now[VARIANCE])
    return new


def correction(
    now: Mapping[str, NDArray], mean: NDArray, std: NDArray, rmin: float, rmax: float, dmax: float
) -> tuple[NDArray, NDArray]:
    """(r, d) of batch renormalization (Ioffe 2017), from the averages before this batch.

    The averages are filled up with the batch by what their weights lack of 1, so that the first step has r = 1, d = 0.
    """
    mixed_mean = now[RENORM_MEAN] + (1 - now[RENORM_MEAN_WEIGHT]) * mean
    mixed_std = now[RENORM_STDDEV] + (1 - now[RENORM_STDDEV_WEIGHT]) * std
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(mixed_std == 0, 1.0, std / mixed_std)
        d = np.where(mixed_std == 0, 0.0, (mean - mixed_mean) / mixed_std)
    return np.minimum(np.maximum(r, rmin), rmax), np.clip(d, -dmax, dmax)


def _averaged(
    now: Mapping[str, NDArray],
    new: dict[str, NDArray],
    name: str,
    weight_name: str,
    value: NDArray,
    usable: NDArray,
    decay: float,
) -> NDArray:
    """Take `value` into the average `name` and 1 into its weight; returns the average without its bias to 0."""
    average, weight = now[name], now[weight_name]
    if weight > 0:
        value = np.where(usable, value, average / weight)
    new[name], new[weight_name] = toward(average, value, decay), toward(weight, 1.0, decay)
    return new[name] / new[weight_name] if new[weight_name] > 0 else value
