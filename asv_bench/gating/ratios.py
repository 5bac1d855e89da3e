"""What paired ratios of times say: their median, how sure it is, and whether that is slower. Pure functions."""

from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 4000


@dataclass(frozen=True)
class Verdict:
    """Median of the ratios head / base, with its interval; `slower` by the limits that it was judged by."""

    median: float
    low: float
    high: float
    slower: bool


def interval(ratios, confidence=CONFIDENCE, resamples=RESAMPLES, seed=0):
    """Percentile bootstrap of the median: what it might have been, had other processes and other rounds been drawn.

    ratios: a row for each pair of processes. Two processes of the same program differ by some percent for as long as
    they live (where their arrays and their code lie), which more rounds in them would not show.
    """
    ratios = np.asarray(ratios, dtype=np.float64)
    if ratios.ndim != 2 or ratios.size == 0 or not (ratios > 0).all():
        raise ValueError(f"{ratios!r} are no ratios of times: rows of positive numbers")
    rng, (pairs, rounds) = np.random.default_rng(seed), ratios.shape
    pair = rng.integers(0, pairs, (resamples, pairs, 1))
    drawn = ratios[pair, rng.integers(0, rounds, (resamples, pairs, rounds))]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.median(drawn, axis=(1, 2)), (tail, 1 - tail))
    return float(low), float(high)


def judged(ratios, limit, sure):
    """Slower: the median is beyond `limit`, and the whole interval beyond `sure`."""
    low, high = interval(ratios)
    median = float(np.median(ratios))
    return Verdict(median, low, high, median > limit and low > sure)
