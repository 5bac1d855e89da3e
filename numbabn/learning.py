"""How a BatchNorm learns from a batch: the rule, its policies, and one update at a time."""

from __future__ import annotations

import threading
import warnings

import numpy as np

from . import averages, checks
from . import training as training_
from .arrays import NDArray
from .averages import Running
from .lanes import learned
from .options import Options
from .statistics import Moments


class Learning:
    """What a BatchNorm does with the moments of a batch."""

    _options: Options
    _running: Running
    _lock: threading.RLock

    def _planned(self) -> tuple[int, float]:
        """How many batches came before the next one, and its weight."""
        batches = self._running.batches
        return batches, self._options.factor(batches)

    def _learn(self, batch: Moments, planned: tuple[int, float] | None = None) -> None:
        """Update the running averages, by the policies for values that are not finite and for single ones."""
        training_.refuse(self._options, batch)
        depth = 3 + (planned is not None)  # of the caller: a training call is one step further away
        if isinstance(batch.count, float) and batch.count > 0:  # an empty batch has no place in a schedule
            planned = planned or self._planned()
            if self._learn_quickly(batch.count, batch.mean, batch.m2, planned):
                return
        usable = training_.usable(self._options, batch)
        if usable is not None and self._options.nonfinite == "skip" and (bad := training_.nonfinite(batch)).any():
            warnings.warn(
                f"the batch has NaN or infinity {checks.in_channels(bad)}; their running averages are left alone",
                RuntimeWarning,
                stacklevel=depth,
            )
        with self._lock:
            self._running = self._learned(batch, planned, usable)

    def _learned(self, batch: Moments, planned: tuple[int, float] | None, usable: NDArray | None) -> Running:
        """What is known after a batch, where this is the next one; usable: as from `training.usable`."""
        with self._lock, np.errstate(invalid="ignore", over="ignore"):
            if usable is not None and not usable.any():
                return self._running
            if planned is None or planned[0] != self._running.batches:  # another thread has learned meanwhile
                planned = self._planned()
            old = self._running  # after the schedule, which may have called back
            new = averages.RULES[self._options.average].learn(old, batch, planned[1], self._options.ddof)
            if self._options.renorm is not None:
                new = self._options.renorm.learn(new, old, batch, self._options.eps)
            return new if usable is None else averages.where(usable, new, old)

    def _learn_quickly(self, count: float, mean: NDArray, m2: NDArray, planned: tuple[int, float]) -> bool:
        """Learn from a batch in the plainest case, of which most are; returns whether it was that."""
        o = self._options
        if o.average not in ("exponential", "cumulative") or o.renorm is not None or mean.ndim != 1:
            return False
        with self._lock:
            if planned[0] != self._running.batches:  # another thread has learned meanwhile
                return False
            new = learned(o.average, self._running, count, mean, m2, planned[1], o.ddof)
            if new is not None:
                self._running = new
        return new is not None
