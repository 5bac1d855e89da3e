"""How a BatchNorm learns from a batch: the rule, its policies, and one update at a time."""

from __future__ import annotations

import threading
import warnings

import numpy as np

from . import averages, checks
from . import training as training_
from .arrays import NDArray
from .averages import Running
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

    def _learn(self, batch: Moments, planned: tuple[int, float] | None = None, depth: int = 3) -> None:
        """Update the running averages, by the policies for values that are not finite and for single ones.

        planned: from `_planned`, where that was asked already; depth: of the caller, for whom a warning is.
        """
        training_.refuse(self._options, batch)
        if isinstance(batch.count, float) and batch.count > 0:  # an empty batch has no place in a schedule
            planned = planned or self._planned()
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
