"""What a BatchNorm was told to do, to be read and not written."""

from __future__ import annotations

from typing import Any

from . import schedules
from .options import Options
from .renorm import Renorm
from .schedules import Schedule


class Described:
    """Something with options: each is a read-only property; see `numbabn.BatchNorm` for what it does."""

    _options: Options

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
