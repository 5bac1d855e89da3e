"""A fast lane for small arrays, where finding out how to take an array costs more than the arithmetic.

What one call has found out (the layout, how the work is cut, which kernel takes it) serves later ones with an array of
the same shape and dtype. Only plain calls take the lane: a C-contiguous, writable, aligned NumPy array of a floating
dtype, into a new array, into another like it, or in place. Everything else goes the general way, with the same result
to the last bit.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from . import checks
from .activations import kernel_form
from .arrays import NDArray
from .averages import Running
from .backends import Backend, Prepared
from .backends.ready import blended, folded, joined
from .layout import canonical
from .options import Options
from .statistics import Moments

PLAIN = 0x0001 | 0x0100 | 0x0400  # the bits of ndarray.flags.num: C-contiguous, aligned, writable
MOST = 256  # shapes that are remembered

_known: dict[tuple[Any, ...], Prepared] = {}


def read_lane(engine: Backend, x: Any, axes: tuple[int, ...], activation: Any = None) -> Prepared | None:
    """What is prepared for x, to be read; None where the call has to go the general way."""
    if type(x) is not np.ndarray:
        return None
    prepared = _known.get((engine, axes, activation, x.dtype, x.shape))
    return None if prepared is None or x.flags.num & PLAIN != PLAIN else prepared


def lane(
    engine: Backend, x: Any, out: Any, axes: tuple[int, ...], activation: Any = None
) -> tuple[Prepared, NDArray] | None:
    """What is prepared for x, and where the result goes; None where the call has to go the general way."""
    prepared = read_lane(engine, x, axes, activation)
    if prepared is None:
        return None
    if out is None:
        return prepared, np.empty(x.shape, x.dtype)
    if out is x or (
        type(out) is np.ndarray
        and out.dtype == x.dtype
        and out.shape == x.shape
        and out.flags.num & PLAIN == PLAIN
        and not np.may_share_memory(x, out)
    ):
        return prepared, out
    return None


def open_lane(engine: Backend, x: Any, axes: tuple[int, ...], activation: Any = None) -> None:
    """Remember how to take an array like x, if it can be taken in the lane."""
    if type(x) is not np.ndarray or x.flags.num & PLAIN != PLAIN or not x.size:
        return
    key = (engine, axes, activation, x.dtype, x.shape)
    if key in _known or not (checks.is_float(x.dtype) and x.dtype.isnative):
        return
    prepared = engine.prepared(canonical({"x": x}, axes), kernel_form(activation))
    if prepared is not None:
        if len(_known) >= MOST:
            _known.clear()
        _known[key] = prepared


def moments_in_lane(engine: Backend, x: Any, axes: tuple[int, ...]) -> Moments | None:
    """The plain moments of a small array; None where they have to be had the general way."""
    prepared = read_lane(engine, x, axes)
    if prepared is None:
        return None
    mean, m2 = prepared.moments(x)
    shape = prepared.channel_shape
    return Moments.trusted(prepared.count, mean.reshape(shape), m2.reshape(shape))


def channel_values(p: Any, shape: tuple[int, ...], out: Any) -> NDArray | None:
    """A plain parameter as the kernels take it, (channels,) float64; None where it has to be converted and checked."""
    if type(p) is not np.ndarray or p.shape != shape:
        return None
    if p.dtype == np.float64:
        apart = p.flags.num & PLAIN == PLAIN and (out is None or not np.may_share_memory(p, out))
        return p.reshape(-1) if apart else None
    return p.astype(np.float64).reshape(-1) if p.dtype == np.float32 else None


def normalized_in_lane(
    engine: Backend, x: Any, out: Any, axes: tuple[int, ...], parameters: tuple[Any, Any, Any, Any], eps: float
) -> NDArray | None:
    """A small array normalized by (mean, var, gamma, beta) that need no conversion; None for the general way."""
    if type(x) is not np.ndarray or not (out is None or type(out) is np.ndarray):
        return None
    shape = tuple(x.shape[a] for a in axes)
    flat = []
    for p in parameters:
        values = None if p is None else channel_values(p, shape, out)
        if values is None and p is not None:
            return None
        flat.append(values)
    mean, var, gamma, beta = flat
    found = lane(engine, x, out, axes)
    if found is None or mean is None or var is None:
        return None
    scale = folded(var, gamma, eps)
    if scale is None:
        return None
    prepared, y = found
    prepared.transform(x, y, mean, scale, beta)
    return y


def trained_in_lane(
    engine: Backend, x: Any, out: Any, axes: tuple[int, ...], gamma: Any, beta: Any, eps: float
) -> tuple[NDArray, Moments] | None:
    """A small array normalized by its own moments, and these; None where it has to be had the general way."""
    found = lane(engine, x, out, axes)
    if found is None:
        return None
    prepared, y = found
    shape = prepared.channel_shape
    scale = _ones(math.prod(shape)) if gamma is None else channel_values(gamma, shape, out)
    shift = None if beta is None else channel_values(beta, shape, out)
    if scale is None or (shift is None and beta is not None):
        return None
    mean, m2 = prepared.train(x, y, scale, shift, eps)
    return y, Moments.trusted(prepared.count, mean.reshape(shape), m2.reshape(shape))


@lru_cache(MOST)
def _ones(channels: int) -> NDArray:
    """Gamma where there is none: made once, and written by nobody."""
    return np.ones(channels)


def learned(
    average: str, old: Running, count: float, mean: NDArray, m2: NDArray, momentum: float, ddof: float
) -> Running | None:
    """`averages.exponential` or `cumulative` of (channels,), to the last bit; None where the batch is not finite."""
    if average == "exponential":
        free = max(count - ddof, min(count, 1.0))
        new = blended((old.count, old.mean, old.var), count, mean, m2, free, momentum)
        more = {}
    else:
        new = joined((old.count, old.mean, old.m2), count, mean, m2, ddof)  # type: ignore[arg-type]
        more = {} if new is None else {"m2": new[3]}
    return None if new is None else old.but(batches=old.batches + 1, count=new[0], mean=new[1], var=new[2], **more)


class Parameters:
    """The parameters of one BatchNorm as the kernels take them, kept for as long as what they come from."""

    def __init__(self) -> None:
        # What they come from, and what they are.
        self._inference: tuple[tuple[Any, ...], tuple[Any, Any, Any]] = (), (None, None, None)
        self._training: tuple[tuple[Any, ...], tuple[Any, Any]] = (), (None, None)

    def of_inference(self, o: Options, running: Running, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
        """(mean, scale, shift) for `Prepared.transform`."""
        state, (known, flat) = (o, running, gamma, beta), self._inference
        if not _same(state, known):
            scale = o.scale(running.mean, running.var, running.count, gamma)
            flat = _flat(running.mean), scale.reshape(-1), _flat(beta)
            self._inference = state, flat
        return flat

    def of_training(self, o: Options, gamma: Any, beta: Any) -> tuple[Any, Any]:
        """(gamma, beta) for `Prepared.train`."""
        state, (known, flat) = (o, gamma, beta), self._training
        if not _same(state, known):
            flat = _flat(np.ones(o.channels) if gamma is None else gamma), _flat(beta)
            self._training = state, flat
        return flat


def _same(state: tuple[Any, ...], known: tuple[Any, ...]) -> bool:
    return len(state) == len(known) and all(a is b for a, b in zip(state, known, strict=True))


def _flat(parameter: NDArray | None) -> NDArray | None:
    """A copy: numba would compile anew for an array that is read-only."""
    return None if parameter is None else np.array(parameter).reshape(-1)


def lane_of(engine: Backend, o: Options, x: Any, out: Any) -> tuple[Prepared, NDArray] | None:
    """`lane` for the options of a BatchNorm, whose channels x must have."""
    if type(x) is not np.ndarray or x.ndim == 0:
        return None
    found = lane(engine, x, out, checks.channel_axes(o.axis, x.ndim), o.activation)
    return None if found is None or found[0].channel_shape != o.channels else found
