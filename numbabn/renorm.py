"""Batch renormalization: training outputs pulled towards what inference would give (Ioffe 2017, algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from . import checks, schedules
from .arithmetic import batch_var
from .arrays import NDArray
from .averages import Running
from .schedules import Schedule
from .statistics import Moments


@dataclass(frozen=True, slots=True)
class Renorm:
    """How batch renormalization corrects a training batch.

    The output is ``(x_hat * r + d) * gamma + beta`` with ``r = s / S`` and ``d = (mean - M) / S``, where
    ``s = sqrt(var + eps)`` is that of the batch, and M and S are running averages of mean and s from before it; no
    gradient passes through r and d. Inference is as ever.

    Parameters
    ----------
    rmin, rmax : float, or a schedule of it, default 0 and infinity
        Between which r is clipped.
    dmax : float, or a schedule of it, default infinity
        d is clipped between -dmax and dmax. A schedule is a sequence with a number for each batch, of which the
        last repeats, or a function of the number of batches learned from: Ioffe begins with ``rmax=1, dmax=0`` and
        relaxes both.
    momentum : float from 0 to 1, default 0.01
        Weight of the new batch in M and S.
    debias : bool, default False
        False: M and S begin at 0 and 1, and S is at least sqrt(eps), as in TensorFlow 2 and Keras. True: they are
        completed by the batch itself as long as they have little weight, as in TensorFlow 1, so that r is 1 and d
        is 0 for the first batch.

    Examples
    --------
    >>> import numbabn
    >>> bn = numbabn.BatchNorm(3, renorm=numbabn.Renorm(rmax=(1, 1, 2, 3), dmax=(0, 0, 2, 5)))
    """

    rmin: Schedule = 0.0
    rmax: Schedule = math.inf
    dmax: Schedule = math.inf
    momentum: float = 0.01
    debias: bool = False

    def __post_init__(self) -> None:
        for name in ("rmin", "rmax", "dmax"):
            object.__setattr__(self, name, schedules.checked(getattr(self, name), name, _not_negative))
        object.__setattr__(self, "momentum", checks.fraction(self.momentum, "momentum"))
        object.__setattr__(self, "debias", checks.flag(self.debias, "debias"))

    def config(self) -> dict[str, Any]:
        """The numbers, for a file; ValueError for a schedule that is a function."""
        if any(callable(getattr(self, name)) for name in ("rmin", "rmax", "dmax")):
            raise ValueError(
                "`renorm` has a schedule that is a function, which no file holds; give a sequence of numbers instead"
            )
        # JSON has no infinity.
        return {name: None if value == math.inf else value for name, value in asdict(self).items()}

    def nothing(self, shape: tuple[int, ...]) -> dict[str, NDArray]:
        """The averages before the first batch."""
        zeros = np.zeros(shape)
        if self.debias:
            return {"renorm_mean": zeros, "renorm_std": zeros, "renorm_weight": zeros}
        return {"renorm_mean": zeros, "renorm_std": np.ones(shape)}

    def correction(self, old: Running, batch: Moments, eps: float) -> tuple[NDArray, NDArray]:
        """(r, d) for a batch, by the averages from before it; 1 and 0 for a channel without values."""
        std = _std(batch, eps)
        known_mean, known_std = old.renorm_mean, old.renorm_std
        assert known_mean is not None
        assert known_std is not None
        if old.renorm_weight is not None:
            known_mean = known_mean + (1 - old.renorm_weight) * batch.mean
            known_std = known_std + (1 - old.renorm_weight) * std
        else:
            known_std = np.maximum(known_std, math.sqrt(eps))
        low, high, shift = (
            schedules.at(getattr(self, name), old.batches, name, _not_negative) for name in ("rmin", "rmax", "dmax")
        )
        if low > high:
            raise ValueError(f"`rmin` is {low} and `rmax` is {high}; expected the lower one first")
        with np.errstate(divide="ignore", invalid="ignore"):
            r, d = np.clip(std / known_std, low, high), np.clip((batch.mean - known_mean) / known_std, -shift, shift)
        nothing = np.equal(batch.count, 0) | (known_std == 0)
        return np.where(nothing, 1.0, r), np.where(nothing, 0.0, d)

    def learn(self, new: Running, old: Running, batch: Moments, eps: float) -> Running:
        """`new` with the averages of mean and s that have taken in a batch."""
        assert old.renorm_mean is not None
        assert old.renorm_std is not None
        m, w = self.momentum, old.renorm_weight
        return replace(
            new,
            renorm_mean=(1 - m) * old.renorm_mean + m * batch.mean,
            renorm_std=(1 - m) * old.renorm_std + m * _std(batch, eps),
            renorm_weight=None if w is None else (1 - m) * w + m,
        )


def checked(value: Any) -> Renorm | None:
    """The renormalization that a caller asked for: None, True, a Renorm, or a dict of its parameters."""
    if value is None or value is False:
        return None
    if value is True:
        return Renorm()
    if isinstance(value, Renorm):
        return value
    if not isinstance(value, dict):
        raise TypeError(f"`renorm` is {value!r}; expected a numbabn.Renorm, a dict of its parameters, or True")
    unknown = set(value) - {"rmin", "rmax", "dmax", "momentum", "debias"}
    if unknown:
        raise ValueError(f"`renorm` has {', '.join(sorted(unknown))}; expected rmin, rmax, dmax, momentum, debias")
    given: dict[str, Any] = {name: math.inf if number is None else number for name, number in value.items()}
    return Renorm(**given)


def _std(batch: Moments, eps: float) -> NDArray:
    return np.sqrt(batch_var(batch.count, batch.m2) + eps)


def _not_negative(value: Any, name: str) -> float:
    number = checks.number(value, name)
    if not number >= 0:
        raise ValueError(f"`{name}` is {number}; expected 0 or more")
    return number
