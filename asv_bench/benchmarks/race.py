"""Timing several works against each other: alternating, so that whatever else the machine does hits all alike."""

import gc
import math
import random
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

    def over(self, calls):
        """The times of one call, where a run was so many."""
        return Times(tuple(s / calls for s in self.seconds))


def timed(work):
    """(seconds, result) of one run."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def race(works, rounds, seldom=None):
    """{name: Times} of works {name: callable}, each run once a round; seldom {name: k}: in every k-th round only.

    The order is drawn anew for each round (the same in each race), so that nobody always follows the same one: whose
    threads still spin, who has emptied the caches. What a run returns is given back to the system outside of its time.
    """
    seldom = seldom or {}
    order, seconds = random.Random(0), {name: [] for name in works}
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for r in range(rounds):
            for name in order.sample(list(works), len(works)):
                if r % seldom.get(name, 1):
                    continue
                duration, result = timed(works[name])
                del result
                seconds[name].append(duration)
    finally:
        if collects:
            gc.enable()
    return {name: Times(tuple(s)) for name, s in seconds.items()}


def calls_for(work, seconds):
    """How often to repeat a work for a run of so many seconds."""
    return max(1, math.ceil(seconds / max(timed(work)[0], 1e-9)))


def repeated(work, calls):
    """A work that does another so often."""

    def many():
        for _ in range(calls):
            work()

    return many


def race_of_calls(works, rounds, seconds, seldom=None):
    """`race`, where each run repeats its work for so many seconds at least; the times are those of one call."""
    calls = {name: calls_for(work, seconds) for name, work in works.items()}
    found = race({name: repeated(work, calls[name]) for name, work in works.items()}, rounds, seldom)
    return {name: times.over(calls[name]) for name, times in found.items()}
