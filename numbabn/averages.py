"""The running-average rules, each a small function with its formula and source; `RULES` has them all.

A rule takes what has been learned so far and the moments of a batch, and gives what is known
afterwards; nothing is changed in place. Variances divide by ``max(count - ddof, min(count, 1))``: a
single value per channel has variance 0, as in TensorFlow's fused kernel, rather than none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .arrays import NDArray
from .statistics import Moments, merged


@dataclass(frozen=True, eq=False)  # without slots, as `Moments`
class Running:
    """What a BatchNorm has learned: immutable, float64, in the channels' shape.

    `count` values were seen of each channel, in `batches` batches; `mean` and `var` are the running
    averages. The rest is what a rule keeps beside them, and None where it does not. A field that is
    added here is frozen, copied, selected from by `where`, saved, loaded and compared like the others;
    one whose name ends in `mean` may be negative.
    """

    batches: int
    count: NDArray
    mean: NDArray
    var: NDArray
    m2: NDArray | None = None  # cumulative: the sum of squared deviations that `var` comes from
    weight: NDArray | None = None  # debiased: what share of the average comes from batches, 0 to 1
    channel_batches: NDArray | None = None  # equal: how many batches each channel learned from
    window_count: NDArray | None = None  # window: (window, *channels), oldest first; 0 where there is none yet
    window_mean: NDArray | None = None
    window_m2: NDArray | None = None
    renorm_mean: NDArray | None = None  # batch renormalization: see `numbabn.renorm`
    renorm_std: NDArray | None = None
    renorm_weight: NDArray | None = None

    def __post_init__(self) -> None:
        for name in ARRAYS:
            object.__setattr__(self, name, _frozen(getattr(self, name)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Running, tuple(getattr(self, f.name) for f in fields(self))  # so that a copy is read-only too

    def but(self, **changes: Any) -> Running:
        """The same with some fields changed, several times as fast as `dataclasses.replace`.

        New arrays are kept as they are, and may not be written to any more.
        """
        new = object.__new__(Running)
        for name in FIELDS:
            _set(new, name, _kept(changes[name]) if name in changes else getattr(self, name))
        return new

    def after(self, count: NDArray, mean: NDArray, var: NDArray, m2: NDArray | None) -> Running:
        """The same after one more batch, where it keeps no more than these; the arrays are read-only, and kept."""
        new = object.__new__(Running)  # what it does not keep is None in the class
        known = new.__dict__
        known["batches"], known["count"], known["mean"] = self.batches + 1, count, mean
        known["var"], known["m2"] = var, m2
        return new

    def arrays(self) -> dict[str, NDArray]:
        """The arrays that there are, by their names."""
        return {name: a for name in ARRAYS if (a := getattr(self, name)) is not None}


_set = object.__setattr__  # the one way into a frozen object
FIELDS = tuple(f.name for f in fields(Running))
ARRAYS = tuple(name for name in FIELDS if name != "batches")
WINDOW = ("window_count", "window_mean", "window_m2")


@dataclass(frozen=True, slots=True)
class Rule:
    """A way to average.

    `learn` is ``learn(old, batch, momentum, ddof)``, `merge` is ``merge(a, b, ddof)``, or None where
    two averages cannot become one; `keeps` names the arrays that it needs beside count, mean and var;
    `weighs` is whether `momentum` weighs the new batch, `between` whether the variance between batches is kept.
    """

    learn: Callable[[Running, Moments, float, float], Running]
    merge: Callable[[Running, Running, float], Running] | None
    keeps: tuple[str, ...] = ()
    weighs: bool = True
    between: bool = False


def start(
    shape: tuple[int, ...],
    average: str = "exponential",
    window: int | None = None,
    prior: tuple[float, float, float] = (0, 0, 1),
) -> Running:
    """Nothing learned: the (count, mean, variance) of `prior`, by default mean 0 and variance 1."""
    count, mean, var = (np.full(shape, number, dtype=np.float64) for number in prior)
    zeros = np.zeros(shape)
    kept = {name: np.zeros((window or 0, *shape)) if name in WINDOW else zeros for name in RULES[average].keeps}
    if "m2" in kept:
        kept["m2"] = count * var
    return Running(0, count, mean, var, **kept)


def without_prior(learned: Running, prior: tuple[float, float, float]) -> Running:
    """A cumulative average without the values that its prior counted as: the merge backwards."""
    n, mean, var = prior
    if not n:
        return learned
    assert learned.m2 is not None
    count = learned.count - n
    seen = learned.count > n
    share = np.divide(n, count, out=np.zeros_like(count), where=seen)
    rest = learned.mean + (learned.mean - mean) * share
    m2 = np.maximum(learned.m2 - n * var - (rest - mean) ** 2 * n * np.where(seen, count / learned.count, 0), 0)
    return learned.but(count=np.where(seen, count, 0), mean=np.where(seen, rest, 0), m2=np.where(seen, m2, 0))


def exponential(old: Running, batch: Moments, momentum: float, ddof: float) -> Running:
    """``new = (1 - momentum) * old + momentum * batch``, for mean and variance alike.

    PyTorch's rule, and with ``decay = 1 - momentum`` that of TensorFlow, Keras and flax
    (Ioffe and Szegedy 2015, section 3.1). It starts from mean 0 and variance 1.
    """
    return _blended(old, batch, momentum, ddof)


def debiased(old: Running, batch: Moments, momentum: float, ddof: float) -> Running:
    """The exponential average of the batches alone, without the 0 and 1 that it starts from.

    ``W' = (1 - momentum) * W + momentum`` and ``new = (1 - f) * old + f * batch`` with
    ``f = momentum / W'``, for mean and variance: the first batch gives its own statistics. Equal to
    dividing an average that started at 0 by W, which is ``1 - decay**t`` for one momentum (Kingma and
    Ba 2015, section 3), as dm-haiku does; TensorFlow's zero_debias does it for the mean only.
    """
    weight, factor = _debiasing(old, momentum)
    return _blended(old, batch, factor, ddof).but(weight=weight)


def mixture(old: Running, batch: Moments, momentum: float, ddof: float) -> Running:
    """The exponential average that keeps the variance between batches.

    ``var = (1 - f) * var + f * var_b + f * (1 - f) * (mean_b - mean)**2`` and
    ``mean = (1 - f) * mean + f * mean_b`` with the mean from before and ``f = momentum``: mean and
    variance of a mixture of two populations. With batches of one value it is the exponentially
    weighted variance of Finch (2009), "Incremental calculation of weighted mean and variance", section 9.
    """
    return _blended(old, batch, momentum, ddof, between=True)


def debiased_mixture(old: Running, batch: Moments, momentum: float, ddof: float) -> Running:
    """`mixture` with the factor of `debiased`: mean and variance of all values seen, weighed exponentially.

    Exact from the first batch on: the values of a batch share its weight, and the weights of all
    batches add up to 1.
    """
    weight, factor = _debiasing(old, momentum)
    return _blended(old, batch, factor, ddof, between=True).but(weight=weight)


def equal(old: Running, batch: Moments, momentum: float, ddof: float) -> Running:
    """Every batch weighs the same, whatever its size: ``new = old + (batch - old) / (batches + 1)``.

    The means and the variances of the batches are averaged, as by PyTorch's ``momentum=None``. A
    channel counts the batches that it learned from itself.
    """
    assert old.channel_batches is not None
    batches = old.channel_batches + 1
    return _blended(old, batch, 1 / batches, ddof).but(channel_batches=batches)


def cumulative(old: Running, batch: Moments, momentum: float, ddof: float) -> Running:
    """All values seen so far weigh the same: the exact merge of Chan, Golub and LeVeque (1979).

    Unlike PyTorch's ``momentum=None``, which gives every batch the same weight whatever its size and
    forgets the variance between batches; that is `equal`.
    """
    assert old.m2 is not None
    count, mean, m2 = merged((old.count, old.mean, old.m2), (batch.count, batch.mean, batch.m2))
    return old.but(batches=old.batches + 1, count=count, mean=mean, var=_variance(m2, count, ddof), m2=m2)


def window(old: Running, batch: Moments, momentum: float, ddof: float) -> Running:
    """All values of the last batches weigh the same, and older ones nothing.

    The moments of each batch in the window are kept and merged anew, in pairs, at every update (Chan,
    Golub and LeVeque 1979). To subtract the oldest instead would leave its rounding, and any NaN, in
    the average for good.
    """
    shape = old.mean.shape
    kept = {}
    for name, new in zip(WINDOW, (batch.count, batch.mean, batch.m2), strict=True):
        kept[name] = np.concatenate([getattr(old, name)[1:], np.broadcast_to(new, shape)[np.newaxis]])
    count, mean, m2 = _merged_pairwise(*kept.values())
    return old.but(
        batches=old.batches + 1, count=old.count + batch.count, mean=mean, var=_variance(m2, count, ddof), **kept
    )


def pooled(a: Running, b: Running, ddof: float) -> Running:
    """Two exponential averages together, each weighed by the values that it has seen.

    They are taken as the mixture of two populations: ``mean = (1-w) * mean_a + w * mean_b`` and
    ``var = (1-w) * var_a + w * var_b + w * (1-w) * d**2`` with ``w = n_b / (n_a + n_b)`` and
    ``d = mean_b - mean_a``. No rule can recover what one long run would have given.
    """
    return _joined(a, b, a.count, b.count, between=True)


def pooled_debiased(a: Running, b: Running, ddof: float) -> Running:
    """As `pooled`; the weight becomes ``1 - (1 - W_a) * (1 - W_b)``, as if b had come after a."""
    assert a.weight is not None
    assert b.weight is not None
    weight = a.weight + (1 - a.weight) * b.weight  # the same, without losing a small one to rounding
    n_a, n_b = np.where(a.weight > 0, a.count, 0), np.where(b.weight > 0, b.count, 0)
    return _joined(a, b, n_a, n_b, between=True).but(weight=weight)


def pooled_equal(a: Running, b: Running, ddof: float) -> Running:
    """What one run over the batches of both gives: each weighed by the batches that it has seen."""
    assert a.channel_batches is not None
    assert b.channel_batches is not None
    both = _joined(a, b, a.channel_batches, b.channel_batches, between=False)
    return both.but(channel_batches=a.channel_batches + b.channel_batches)


def pooled_cumulative(a: Running, b: Running, ddof: float) -> Running:
    """What one run over the values of both gives, in any order: the exact merge."""
    count, mean, m2 = merged((a.count, a.mean, a.m2), (b.count, b.mean, b.m2))  # type: ignore[arg-type]
    var = np.where(count > 0, _variance(m2, count, ddof), a.var)
    return a.but(batches=a.batches + b.batches, count=count, mean=mean, var=var, m2=m2)


def where(take: NDArray, new: Running, old: Running) -> Running:
    """`new` in the channels marked by `take`, `old` in the others; `old` itself where there are none."""
    if take.all():
        return new
    if not take.any():
        return old
    mine, its = new.arrays(), old.arrays()
    return Running(new.batches, **{name: np.where(take, mine[name], its[name]) for name in mine.keys() & its.keys()})


RULES = {
    "exponential": Rule(exponential, pooled),
    "cumulative": Rule(cumulative, pooled_cumulative, ("m2",), weighs=False, between=True),
    "debiased": Rule(debiased, pooled_debiased, ("weight",)),
    "mixture": Rule(mixture, pooled, between=True),
    "debiased-mixture": Rule(debiased_mixture, pooled_debiased, ("weight",), between=True),
    "equal": Rule(equal, pooled_equal, ("channel_batches",), weighs=False),
    "window": Rule(window, None, WINDOW, weighs=False, between=True),
}


def _blended(old: Running, batch: Moments, f: NDArray | float, ddof: float, between: bool = False) -> Running:
    """``(1 - f) * old + f * batch``; with the variance between the two where `between`."""
    rest = 1 - f
    var = rest * old.var + f * _variance(batch.m2, batch.count, ddof)
    if between:
        var = var + f * rest * (batch.mean - old.mean) ** 2
    return old.but(
        batches=old.batches + 1,
        count=old.count + batch.count,
        mean=rest * old.mean + f * batch.mean,
        var=var,
    )


def _debiasing(old: Running, momentum: float) -> tuple[NDArray, NDArray]:
    """(new weight, factor of the batch); the factor is 0 as long as nothing has had any weight."""
    assert old.weight is not None
    weight = np.asarray((1 - momentum) * old.weight + momentum)
    return weight, np.divide(momentum, weight, out=np.zeros_like(weight), where=weight > 0)


def _joined(a: Running, b: Running, n_a: NDArray, n_b: NDArray, between: bool) -> Running:
    """The mixture of two averages that weigh n_a and n_b; that one alone where the other has nothing."""
    n = n_a + n_b
    w = np.divide(n_b, n, out=np.zeros_like(n), where=n > 0)
    with np.errstate(invalid="ignore", over="ignore"):
        d = b.mean - a.mean
        mean, var = a.mean + w * d, (1 - w) * a.var + w * b.var
        if between:
            var = var + w * (1 - w) * d * d
    batches, count = a.batches + b.batches, a.count + b.count
    both = a.but(batches=batches, count=count, mean=mean, var=var)
    only_a, only_b = (one.but(batches=batches, count=count) for one in (a, b))
    return where(n_b > 0, where(n_a > 0, both, only_b), only_a)


def _merged_pairwise(count: NDArray, mean: NDArray, m2: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """All parts along the first axis together."""
    while len(count) > 1:
        odd = [part[len(part) - len(part) % 2 :] for part in (count, mean, m2)]
        even, following = (
            [part[first : len(part) - len(part) % 2 : 2] for part in (count, mean, m2)] for first in (0, 1)
        )
        pairs = merged((even[0], even[1], even[2]), (following[0], following[1], following[2]))
        count, mean, m2 = (np.concatenate(both) for both in zip(pairs, odd, strict=True))
    return count[0], mean[0], m2[0]


def _variance(m2: NDArray, count: NDArray | float, ddof: float) -> NDArray:
    """m2 over the degrees of freedom; 0 where there are no values. Weights may add up to less than one value."""
    if isinstance(count, float) and count > 0:
        return np.asarray(m2 / max(count - ddof, min(count, 1.0)))
    n = np.asarray(count)
    free = np.maximum(n - ddof, np.minimum(n, 1.0))
    return np.asarray(m2 / np.where(n > 0, free, 1.0))


def _kept(value: Any) -> Any:
    """A field as it is kept: arrays read-only and C-contiguous, if they can be without a copy.

    One that lies in another has to be read-only with all of it.
    """
    if type(value) is np.ndarray and value.dtype == np.float64 and value.flags.c_contiguous:
        if value.base is None:
            value.flags.writeable = False
            return value
        if type(value.base) is np.ndarray and not value.base.flags.writeable and not value.flags.writeable:
            return value
    return value if value is None or isinstance(value, int) else _frozen(value)


def _frozen(value: Any) -> NDArray | None:
    """A read-only C-contiguous float64 array that nobody else can write to; None stays None."""
    if value is None:
        return None
    if (
        type(value) is np.ndarray
        and value.dtype == np.float64
        and value.base is None
        and value.flags.c_contiguous
        and not value.flags.writeable
    ):
        return value
    array: NDArray = np.array(value, dtype=np.float64, order="C")
    array.flags.writeable = False
    return array
