"""Timing several works against each other: alternating, so that whatever else the machine does hits all alike."""

import gc
import statistics
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Seconds of the runs of one work."""

    seconds: tuple[float, ...]

    @property
    def median(self):
        return statistics.median(self.seconds)

    @property
    def quartiles(self):
        """(q1, q3); of a single run, that run."""
        if len(self.seconds) == 1:
            return self.seconds * 2
        q1, _, q3 = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return q1, q3


def timed(work):
    """(seconds, result) of one run."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def race(works, rounds, seldom=(), every=4):
    """{name: Times} of works {name: callable}, each run once a round, and those in `seldom` in every few rounds.

    The order turns from round to round, so that nobody always follows the same one. What a run returns is
    given back to the system outside of its time.
    """
    names, seconds = list(works), {name: [] for name in works}
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for r in range(rounds):
            for name in names[r % len(names) :] + names[: r % len(names)]:
                if name in seldom and r % every:
                    continue
                duration, result = timed(works[name])
                del result
                seconds[name].append(duration)
    finally:
        if collects:
            gc.enable()
    return {name: Times(tuple(s)) for name, s in seconds.items()}
