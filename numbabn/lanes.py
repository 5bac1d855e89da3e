"""A fast lane for plain arrays, as finding out how to take one costs much: after large ones no cache has that Python.

What the second call finds out (the layout, how the work is cut, which kernels take it) serves later ones with an
array of the same shape, strides and dtype. Only plain calls take the lane: an aligned NumPy array of a floating dtype
that the kernels take as it is, into a new array, into another like it, or in place; parameters that are float32 or
float64 arrays. Whatever else there is, and whatever there is to refuse, goes the general way, with the same result to
the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from . import backends, checks
from .activations import kernel_form
from .arrays import NDArray
from .averages import Running
from .backends.ready import ALIGNED, READ, Lesson, Prepared, learner, prepared
from .layout import canonical
from .options import Options
from .statistics import Moments

LARGE = 1 << 30  # bytes of an array that takes so long that Ctrl-C has to be heard before its end
MOST = 256  # shapes that are remembered
NO_LEARNING = (0, 0, 0, 0, 0.0, 0.0)

_known: dict[tuple[Any, ...], Prepared | None] = {}
_met_once: set[tuple[Any, ...]] = set()


def lane(x: Any, axis: Any, backend: str | None, activation: Any = None, out: Any = None) -> Prepared | None:
    """What is prepared for x, to be read, with what is to be written; None where the call has to go the general way."""
    if type(x) is not np.ndarray or x.nbytes >= LARGE:
        return None
    if type(axis) is not int and (type(axis) is not tuple or not all(type(a) is int for a in axis)):
        return None
    choice = backends.current() if backend is None else backend
    if choice != "auto" and choice != "cpu":
        return None
    flags = x.flags.num
    key: tuple[Any, ...] = (x.shape, x.dtype, axis, activation)
    if flags & READ != READ:
        if not flags & ALIGNED:
            return None
        key = (*key, x.strides, out.strides if type(out) is np.ndarray else None)
    try:
        return _known[key]
    except KeyError:
        return _met(key, x, axis, activation, out)


def _met(key: tuple[Any, ...], x: NDArray, axis: Any, activation: Any, out: Any) -> Prepared | None:
    """What is prepared for a shape that comes again: to go the general way once takes less than to prepare."""
    if key not in _met_once:
        if len(_met_once) >= MOST:
            _met_once.clear()
        _met_once.add(key)
        return None
    if len(_known) >= MOST:
        _known.clear()
    found = _known[key] = _opened(x, axis, activation, out)
    return found


def _opened(x: NDArray, axis: Any, activation: Any, out: Any) -> Prepared | None:
    if not (x.ndim and x.size and checks.is_float(x.dtype) and x.dtype.isnative):
        return None
    axes, strides = checks.channel_axes(axis, x.ndim), None
    lie = lie_out = tuple(x.itemsize * math.prod(x.shape[d + 1 :]) for d in range(x.ndim))
    if not x.flags.c_contiguous:
        try:
            to = out if type(out) is np.ndarray and out.shape == x.shape and out.dtype == x.dtype else np.empty_like(x)
        except MemoryError:  # for a result that nobody may want
            return None
        if not (_apart(x) and _apart(to)):
            return None
        lie, lie_out = strides = x.strides, to.strides
    # Kept, so without memory of their own: nobody reads it.
    like = {name: as_strided(np.empty(1, x.dtype), x.shape, s) for name, s in (("x", lie), ("out", lie_out))}
    layout = canonical(like, axes)
    turned = layout.order.turn is not None or layout.order.channel_perm is not None
    # Without channel axes a statistic is no array, and a kernel finds nothing by its `id`.
    return prepared(layout, strides, kernel_form(activation)) if axes and not turned else None


def _apart(x: NDArray) -> bool:
    """Whether each element has memory of its own, which increasing strides show."""
    end = x.itemsize
    for stride, n in sorted(zip(x.strides, x.shape, strict=True)):
        if n > 1:
            if stride < end:
                return False
            end = stride * n
    return True


def destination(found: Prepared, x: NDArray, out: Any) -> Any:
    """Where the result goes: `out`, whatever that is, as the kernels look at it, or a new array."""
    if out is not None:
        return out
    return np.empty(x.shape, x.dtype) if found.strides is None else np.empty_like(x)


def moments(x: Any, axis: Any, backend: str | None) -> Moments | None:
    """The plain moments."""
    found = lane(x, axis, backend)
    if found is None:
        return None
    box = np.empty((2, *found.channel_shape))
    function, pack = found.moments
    done = function(pack(id(x), id(box), *NO_LEARNING))
    return Moments.pair(found.count, box) if done else None


def normalized(
    x: Any, out: Any, axis: Any, backend: str | None, mean: Any, var: Any, gamma: Any, beta: Any, eps: float
) -> NDArray | None:
    """x normalized by parameters that need no conversion."""
    found = lane(x, axis, backend, None, out)
    if found is None:
        return None
    y = destination(found, x, out)
    given = 0 if gamma is None else id(gamma), 0 if beta is None else id(beta)
    function, pack = found.normalize
    return y if function(pack(id(x), id(y), id(mean), id(var), *given, eps)) else None


def trained(
    x: Any, out: Any, axis: Any, backend: str | None, gamma: Any, beta: Any, eps: float
) -> tuple[NDArray, Moments] | None:
    """x normalized by its own moments, and these."""
    found = lane(x, axis, backend, None, out)
    if found is None:
        return None
    y, box = destination(found, x, out), np.empty((2, *found.channel_shape))
    given = 0 if gamma is None else id(gamma), 0 if beta is None else id(beta)
    function, pack = found.train
    done = function(pack(id(x), id(y), id(box), *given, eps, *NO_LEARNING))
    return (y, Moments.pair(found.count, box)) if done else None


def propagated(
    dy: Any, x: Any, m: Any, out: Any, axis: Any, backend: str | None, gamma: Any, beta: Any, eps: float
) -> tuple[NDArray, NDArray, NDArray] | None:
    """The gradients of x, gamma and beta, of an array normalized by its own moments."""
    found = lane(x, axis, backend, None, out)
    if found is None or type(m) is not Moments or type(m.count) is not float or m.count <= 0.0:
        return None
    y, gradients = destination(found, x, out), np.empty((2, *found.channel_shape))
    given = 0 if gamma is None else id(gamma), 0 if beta is None else id(beta)
    function, pack = found.backward
    done = function(pack(id(dy), id(x), id(y), id(m.mean), id(m.m2), *given, m.count, eps, id(gradients)))
    return (y, gradients[0], gradients[1]) if done else None


# BatchNorm -------------------------------------------------------------------------------------------


class Parameters:
    """The parameters of inference of one BatchNorm as the kernels take them, as long as what they come from."""

    __slots__ = ("beta", "gamma", "mean", "o", "running", "scale", "shift")

    def __init__(self, o: Options, running: Running, gamma: NDArray | None, beta: NDArray | None) -> None:
        self.o, self.running, self.gamma, self.beta = o, running, gamma, beta
        self.mean, self.shift = running.mean, beta
        self.scale = o.scale(running.mean, running.var, running.count, gamma)

    def come_from(self, o: Options, running: Running, gamma: NDArray | None, beta: NDArray | None) -> bool:
        """Whether they come from these."""
        return self.running is running and self.gamma is gamma and self.beta is beta and self.o is o


def lane_of(o: Options, x: Any, out: Any = None) -> Prepared | None:
    """`lane` for the options of a BatchNorm, whose channels x must have."""
    found = lane(x, o.axis, o.backend, o.activation, out)
    return None if found is None or found.channel_shape != o.channels else found


def inferred(found: Prepared, x: NDArray, out: Any, by: Parameters) -> NDArray | None:
    """The output of inference."""
    y = destination(found, x, out)
    shift = 0 if by.shift is None else id(by.shift)
    function, pack = found.normalize
    return y if function(pack(id(x), id(y), id(by.mean), id(by.scale), 0, shift, -1.0)) else None


def learning(found: Prepared, o: Options, old: Running, momentum: float) -> tuple[NDArray, tuple[Any, ...]]:
    """(the box for `moments` and `train` in `kernels/whole.py`, their last arguments) to learn from a batch."""
    try:
        learn, shape, free = found.lessons[o.average, o.ddof]
    except KeyError:
        learn, shape, free = found.lessons[o.average, o.ddof] = _lesson(found, o)
    known = learn, id(old.count), id(old.mean)
    if shape[0] == 6:
        return np.empty(shape), (*known, id(old.m2), 0.0, o.ddof)
    return np.empty(shape), (*known, id(old.var), free, momentum)


def _lesson(found: Prepared, o: Options) -> Lesson:
    count = found.count
    free = count - o.ddof if count >= 2.0 else max(count - o.ddof, min(count, 1.0))
    return learner(o.average), (6 if o.average == "cumulative" else 5, *found.channel_shape), free


def learned(old: Running, box: NDArray) -> Running:
    """The running average in a box, read-only from now on."""
    box.setflags(write=False)
    return old.after(box[2], box[3], box[4], box[5] if len(box) > 5 else old.m2)
