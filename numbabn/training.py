"""One training step: the statistics of the batch, how it is corrected, the output, and what the way back needs."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import arithmetic, checks, ghost, verbs
from .arrays import NDArray, take_values
from .averages import RULES, Running
from .backends import Backend
from .options import Options
from .picks import Pick, refuse_nan
from .statistics import Moments

Adjustment = Callable[[tuple[int, ...]], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Given:
    """The arrays of one call, checked."""

    x: NDArray
    axes: tuple[int, ...]
    pick: Pick
    residual: NDArray | None
    gamma: NDArray | None
    beta: NDArray | None


@dataclass(slots=True)
class Step:
    """What the way back needs of a training step: its statistics (one for each group), and r and d.

    The statistics of a small batch are its count, and mean and M2 in one array, until they are asked for.
    """

    learned: list[tuple[ghost.Groups | None, Moments]] | tuple[float, NDArray]
    r: NDArray | float
    d: NDArray | float
    gamma: NDArray | None
    beta: NDArray | None
    overwritten: bool
    arrays: dict[str, Callable[[], Any]]

    @property
    def statistics(self) -> list[tuple[ghost.Groups | None, Moments]]:
        """The groups of the batch, None for all of it, and their moments."""
        return [(None, Moments.pair(*self.learned))] if isinstance(self.learned, tuple) else self.learned

    def array(self, name: str, given: Any) -> Any:
        """An array of the step: as given anew, or the caller's own if it still exists."""
        if given is not None or name not in self.arrays:
            return given
        value = self.arrays[name]()
        if value is None or (name == "x" and self.overwritten):
            how = "was overwritten (out=x)" if value is not None else "no longer exists"
            raise ValueError(f"`{name}` of the last training call {how}; give it to `backward` again: {name}=...")
        return value


def remembered(**arrays: Any) -> dict[str, Callable[[], Any]]:
    """The arrays of a call, without keeping them alive."""
    return {name: reference(value) for name, value in arrays.items() if value is not None}


def reference(value: Any) -> Callable[[], Any]:
    """The way back to an array that it does not keep alive."""
    try:
        return weakref.ref(value)
    except TypeError:  # lists and numbers are small, and know no weak references
        return lambda: value


def measured(o: Options, engine: Backend, given: Given) -> Moments:
    """The moments of a batch, as the running averages take them."""
    m = verbs.measured(engine, given.x, given.axes, given.pick)
    refuse_nan(given.x, given.axes, m.mean, given.pick)
    if o.ghost is None or given.x.size == 0 or RULES[o.average].between:
        return m
    parts = []
    for groups in _split(o, given):
        some = verbs.measured(engine, groups.of(given.x), groups.axes(given.axes), groups.pick(given.pick))
        parts += _apart(some, groups, given.axes)
    return ghost.together(parts, False)


def corrected(
    o: Options, engine: Backend, given: Given, y: NDArray, m: Moments, running: Running, adjustment: Adjustment | None
) -> tuple[Any, Any]:
    """Write the output of a batch whose statistics are known; returns (r, d)."""
    r: Any = 1.0
    d: Any = 0.0
    if o.renorm is not None:
        r, d = o.renorm.correction(running, m, o.eps)
    if adjustment is not None:
        scale, bias = _adjusted(adjustment, given)
        r, d = r * scale, d * scale + bias
    gamma = np.ones(o.channels) if given.gamma is None else given.gamma
    scale = arithmetic.batch_scale(np.asarray(m.count), m.m2, gamma * r, o.eps)
    shift = given.beta
    if np.any(d):
        shift = d * gamma + (0.0 if shift is None else shift)
    verbs.apply(engine, given.x, y, given.axes, m.mean, scale, shift, o.activation, given.residual)
    return r, d


def in_groups(
    o: Options, engine: Backend, given: Given, y: NDArray
) -> tuple[Moments, list[tuple[ghost.Groups | None, Moments]]]:
    """Normalize each ghost batch by itself; returns the batch for the running averages, and the groups' moments."""
    statistics: list[tuple[ghost.Groups | None, Moments]] = []
    parts: list[Moments] = []
    gamma = np.ones(o.channels) if given.gamma is None else given.gamma
    for groups in _split(o, given):
        m = verbs.trained(
            engine,
            groups.of(given.x),
            groups.of(y),
            groups.axes(given.axes),
            groups.parameter(gamma, given.axes),
            None if given.beta is None else groups.parameter(given.beta, given.axes),
            o.eps,
            groups.pick(given.pick),
            o.activation,
            None if given.residual is None else groups.of(given.residual),
        )
        statistics.append((groups, m))
        parts += _apart(m, groups, given.axes)
    return ghost.together(parts, RULES[o.average].between), statistics


def _split(o: Options, given: Given) -> list[ghost.Groups]:
    assert o.ghost is not None
    samples = [d for d in range(given.x.ndim) if d not in given.axes]
    if not samples:
        raise ValueError("`ghost` divides samples, but every axis of `x` is a channel axis; leave one to be reduced")
    return ghost.split(given.x.shape[samples[0]], samples[0], o.ghost)


def _apart(m: Moments, groups: ghost.Groups, axes: tuple[int, ...]) -> list[Moments]:
    """The moments of each group, of the channels' shape."""
    count = np.broadcast_to(m.count, m.mean.shape)
    rows = (groups.each(np.asarray(p), axes) for p in (count, m.mean, m.m2))
    return [Moments(*row) for row in zip(*rows, strict=True)]


def _adjusted(adjustment: Adjustment, given: Given) -> tuple[NDArray, NDArray]:
    """(scale, bias) of the channels that a caller's function gives for the shape of x."""
    pair = adjustment(given.x.shape)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"`adjustment` gave {pair!r}; expected a pair (scale, bias)")
    shape = tuple(given.x.shape[a] for a in given.axes)
    scale, bias = (
        checks.parameter(_of_channels(p, name, given), name, shape, given.axes)
        for p, name in zip(pair, ("scale", "bias"), strict=True)
    )
    return scale, bias


def _of_channels(value: Any, name: str, given: Given) -> Any:
    """One value for each channel, also where it has axes of length 1 for the others."""
    p = take_values(value, name)
    others = tuple(d for d in range(given.x.ndim) if d not in given.axes)
    if p.ndim == given.x.ndim and all(p.shape[d] == 1 for d in others):
        return p.reshape([p.shape[a] for a in given.axes])
    return p


def refuse(o: Options, batch: Moments) -> None:
    """ValueError if the policies do not have a batch."""
    if o.nonfinite == "raise" and (bad := nonfinite(batch)).any():
        raise ValueError(
            f"the batch has NaN or infinity {checks.in_channels(bad)}; clean it, or choose nonfinite='skip'"
        )
    if o.single == "raise" and (alone := np.broadcast_to(np.equal(batch.count, 1), o.channels)).any():
        raise ValueError(
            f"the batch has one value {checks.in_channels(alone)}, which has no variance; train on larger "
            "batches, or choose single='beta'"
        )


def usable(o: Options, batch: Moments) -> NDArray | None:
    """Which channels learn from a batch; None where all of them do."""
    if isinstance(batch.count, float) and batch.count > 0 and batch.m2.size:
        # One number is looked at in place of all: it is finite only if they are.
        one = np.vdot(batch.m2, batch.m2) + np.vdot(batch.mean, batch.mean)
        if o.nonfinite != "skip" or math.isfinite(one):
            return None
    take = np.broadcast_to(np.greater(batch.count, 0), o.channels)
    if o.nonfinite == "skip":
        take = take & ~nonfinite(batch)
    return None if take.size and take.all() else take


def nonfinite(batch: Moments) -> NDArray:
    """Which channels have a mean or a variance that is not finite."""
    return np.asarray(~(np.isfinite(batch.mean) & np.isfinite(batch.m2)))
