"""An option that may change from batch to batch: a number, a sequence of numbers, or a function.

`checked` takes what a caller wrote, `at` reads it for one batch. What a function gives is checked each
time that it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from . import checks

Function: TypeAlias = Callable[[int], float]
Schedule: TypeAlias = float | tuple[float, ...] | Function


def checked(value: Any, name: str, check: Callable[[Any, str], float] = checks.fraction) -> Schedule:
    """A schedule from what a caller wrote; `check` is for its numbers."""
    if callable(value):
        return value  # type: ignore[no-any-return]
    if (isinstance(value, Sequence) and not isinstance(value, str | bytes)) or (
        isinstance(value, np.ndarray) and value.ndim
    ):
        if len(value) == 0:
            raise ValueError(
                f"`{name}` is empty; expected a number for each batch, of which the last is for all later ones"
            )
        return tuple(check(number, f"{name}[{k}]") for k, number in enumerate(value))
    return check(value, name)


def at(schedule: Schedule, batches: int, name: str, check: Callable[[Any, str], float] = checks.fraction) -> float:
    """The number for the batch that comes after `batches` others; the last of a sequence repeats."""
    if isinstance(schedule, tuple):
        return schedule[min(batches, len(schedule) - 1)]
    if isinstance(schedule, Complement):
        return schedule(batches)
    return check(schedule(batches), f"{name}({batches})") if callable(schedule) else schedule


@dataclass(frozen=True, slots=True)
class Complement:
    """One minus a function of the number of batches: a momentum that was given as `decay`."""

    function: Function

    def __call__(self, batches: int) -> float:
        """The weight of the new batch, from that of the old average."""
        return 1 - at(self.function, batches, "decay")


def complement(schedule: Schedule) -> Schedule:
    """One minus a schedule: from decay to momentum, and back."""
    if isinstance(schedule, Complement):
        return schedule.function
    if isinstance(schedule, tuple):
        return tuple(1 - number for number in schedule)
    return Complement(schedule) if callable(schedule) else 1 - schedule


def words(schedule: Schedule) -> str:
    """A short text for a repr."""
    if isinstance(schedule, tuple):
        shown = [f"{number:g}" for number in schedule]
        return f"({', '.join(shown if len(shown) < 4 else [*shown[:2], '...', shown[-1]])})"
    if isinstance(schedule, Complement):
        return f"1 - {words(schedule.function)}"
    return getattr(schedule, "__name__", type(schedule).__name__) if callable(schedule) else f"{schedule:g}"
