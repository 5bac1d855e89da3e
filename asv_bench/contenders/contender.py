"""What a contender is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _as_it_is(result: Any) -> Any:
    return result


@dataclass(frozen=True)
class Contender:
    """One library doing a task in one form. `work` does it once, and is all that is timed.

    `answer` makes of what the work returned what is compared with the truth, in NumPy: (mean, variance) of moments,
    (dx, dgamma, dbeta) of the way back, otherwise an output of the shape of x. Forms: "out=" writes into a given array,
    a form with "fresh" or without a name into a new one.
    """

    library: str
    form: str
    work: Callable[[], Any]
    answer: Callable[[Any], Any] = _as_it_is

    @property
    def name(self) -> str:
        return f"{self.library}, {self.form}" if self.form else self.library
