"""Which values count, and how much: `where`, `weights` and `nan_policy`, checked and spread over x without a copy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from . import checks
from .arrays import NDArray, take
from .backends import weighing
from .devices import Shadow, download, same_place

MANY = 524288  # weights that several threads look through faster than NumPy does
POLICIES = ("propagate", "raise", "omit")


@dataclass(frozen=True, slots=True)
class Pick:
    """Views of x's shape by name, and whether NaN are left out.

    unseen: the memory of weights of which nobody has looked yet whether they can be used.
    """

    views: dict[str, NDArray] = field(default_factory=dict)
    omit: bool = False
    refuse: bool = False
    unseen: NDArray | None = None

    def __bool__(self) -> bool:
        return bool(self.views) or self.omit


EVERYTHING = Pick()


def picked(
    x: NDArray,
    axes: tuple[int, ...],
    where: Any = None,
    weights: Any = None,
    nan_policy: Any = None,
    later: bool = False,
) -> Pick:
    """The pick that a caller asked for, over a checked x; later: many weights may be left `unseen`."""
    policy = "propagate" if nan_policy is None else checks.choice(nan_policy, "nan_policy", POLICIES)
    may_have_nan = x.dtype.kind not in "iub"
    views, unseen = {}, None
    if where is not None:
        views["where"] = _where(where, x, axes)
    if weights is not None:
        views["weights"], unseen = _weights(weights, x, axes, later)
    return Pick(views, policy == "omit" and may_have_nan, policy == "raise" and may_have_nan, unseen)


def refuse_nan(x: NDArray, axes: tuple[int, ...], mean: NDArray, pick: Pick) -> None:
    """ValueError if a NaN counts; infinities of both signs make a mean NaN too, so channels are looked at."""
    if not pick.refuse or not np.isnan(mean).any():
        return
    bad = np.zeros(mean.shape, bool)
    if isinstance(x, Shadow):
        x, pick = download(x), replace(pick, views={name: download(view) for name, view in pick.views.items()})
    order = (*axes, *(d for d in range(x.ndim) if d not in axes))
    moved = x.transpose(order)
    counted = [view.transpose(order) for view in pick.views.values()]
    for c in zip(*np.nonzero(np.isnan(mean)), strict=True):
        seen = np.isnan(moved[c].astype(np.float64))
        for view in counted:
            seen &= view[c] != 0
        bad[c] = seen.any()
    if bad.any():
        raise ValueError(
            f"`x` has NaN {checks.in_channels(bad)} and `nan_policy` is 'raise'; clean it, or choose nan_policy='omit'"
        )


def _where(value: Any, x: NDArray, axes: tuple[int, ...]) -> NDArray:
    array, _ = take(value, "where")
    same_place(x, array, "x", "where")
    if array.dtype != np.bool_:
        raise TypeError(f"`where` has dtype {array.dtype}; expected booleans: try `where != 0`")
    return _spread(array, "where", x, axes)


def _weights(value: Any, x: NDArray, axes: tuple[int, ...], later: bool) -> tuple[NDArray, NDArray | None]:
    """A view of x's shape, and the memory of the weights where it is still to be looked through."""
    array, _ = take(value, "weights")
    same_place(x, array, "x", "weights")
    if not checks.is_real(array.dtype):
        raise TypeError(f"`weights` has dtype {array.dtype}; expected real numbers, 0 or more")
    view = _spread(array, "weights", x, axes)
    # On a device they are trusted: to look at them would mean to wait for them.
    return view, None if isinstance(array, Shadow) else _seen(array, later and x.size > 0)


def _seen(weights: NDArray, later: bool) -> NDArray | None:
    """ValueError unless all weights are finite and not negative; many are given back to be looked through later."""
    if weights.size > MANY:
        flat = weights.transpose(sorted(range(weights.ndim), key=lambda d: -weights.strides[d]))
        if flat.flags.c_contiguous and flat.flags.aligned and flat.dtype.isnative:
            if later:
                return flat.reshape(-1)
            weighing.look_through(flat.reshape(-1))
            return None
    if weights.size > 0 and not (weights.min() >= 0 and weights.max() < np.inf):
        weighing.refuse_unusable()
    return None


def _spread(array: NDArray, name: str, x: NDArray, axes: tuple[int, ...]) -> NDArray:
    """A view of x's shape, by the rules of `numbabn.moments`."""
    reduced = [d for d in range(x.ndim) if d not in axes]
    if array.ndim < x.ndim and array.ndim > 0:
        if array.shape == tuple(x.shape[d] for d in reduced):
            array = np.expand_dims(array, axes)
        elif array.ndim == 1 and reduced and array.shape[0] == x.shape[reduced[0]]:
            array = np.expand_dims(array, tuple(d for d in range(x.ndim) if d != reduced[0]))
    try:
        return np.broadcast_to(array, x.shape, subok=True)
    except ValueError:
        raise ValueError(
            f"`{name}` has shape {array.shape}, which does not broadcast to the shape {x.shape} of `x`; give one value "
            f"for each sample {tuple(x.shape[d] for d in reduced[:1])}, for each position "
            f"{tuple(x.shape[d] for d in reduced)}, or for each value"
        ) from None
