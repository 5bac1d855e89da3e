"""What a BatchNorm was told to do and what it has learned, to be read and not written."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import schedules
from .arrays import NDArray
from .averages import Running
from .options import Options
from .renorm import Renorm
from .schedules import Schedule
from .statistics import brief


class Described:
    """Something with options and averages, each a read-only property; see `numbabn.BatchNorm` for what they mean."""

    _options: Options
    _running: Running

    @property
    def channels(self) -> tuple[int, ...]:
        """Shape of the channels."""
        return self._options.channels

    @property
    def axis(self) -> int | tuple[int, ...]:
        """The channel axes of x."""
        return self._options.axis

    @property
    def flavour(self) -> str | None:
        """The system whose defaults were taken; None for numbabn's own."""
        return self._options.flavour

    @property
    def momentum(self) -> Schedule | None:
        """Weight of the new batch: a number, a tuple of them or a function; None where the average needs none."""
        return self._options.momentum

    @property
    def decay(self) -> Schedule | None:
        """Weight of the old average, likewise."""
        return None if self.momentum is None else schedules.complement(self.momentum)

    @property
    def average(self) -> str:
        """How batches are averaged."""
        return self._options.average

    @property
    def window(self) -> int | None:
        """How many batches a window spans; None for other averages."""
        return self._options.window

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        return self._options.eps

    @property
    def ddof(self) -> float:
        """What the divisor of the stored variance is less than the count."""
        return self._options.ddof

    @property
    def nonfinite(self) -> str:
        """What a training batch with NaN or infinity does."""
        return self._options.nonfinite

    @property
    def single(self) -> str:
        """What a training batch with one value per channel does."""
        return self._options.single

    @property
    def constant(self) -> str:
        """What happens to a channel that does not vary."""
        return self._options.constant

    @property
    def normalize_by(self) -> str:
        """What a training call normalizes by."""
        return self._options.normalize_by

    @property
    def prior(self) -> tuple[float, float, float]:
        """(count, mean, var) before the first batch."""
        return self._options.prior

    @property
    def nan_policy(self) -> str:
        """What a NaN in a training batch does."""
        return self._options.nan_policy

    @property
    def activation(self) -> tuple[Any, ...] | None:
        """What follows the normalization: (name, *numbers)."""
        return self._options.activation

    @property
    def renorm(self) -> Renorm | None:
        """How training batches are renormalized."""
        return self._options.renorm

    @property
    def ghost(self) -> tuple[int, str] | None:
        """(size, order) of the ghost batches."""
        return self._options.ghost

    @property
    def running_mean(self) -> NDArray:
        """Running mean of each channel."""
        return self._running.mean

    @property
    def running_var(self) -> NDArray:
        """Running variance of each channel."""
        return self._running.var

    @property
    def count(self) -> NDArray:
        """Values seen of each channel."""
        return self._running.count

    @property
    def num_batches(self) -> int:
        """Batches learned from."""
        return self._running.batches

    def __repr__(self) -> str:
        channels = self.channels[0] if len(self.channels) == 1 else self.channels
        running = self._running
        learned = "nothing learned yet"
        if running.batches:
            values = np.unique(running.count)
            seen = f"{values[0]:,.0f}" if values.size == 1 else f"{values[0]:,.0f} to {values[-1]:,.0f}"
            learned = (
                f"{running.batches:,} batch{'es' * (running.batches != 1)}, {seen} values per channel, "
                f"mean {brief(running.mean)}, std {brief(np.sqrt(running.var))}"
            )
        average = self._options.average_in_words()
        return f"<BatchNorm({channels}, axis={self.axis}, {average}, eps={self.eps:g}): {learned}>"
