"""Every refusal: what was given, what was expected, and the way out."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.exceptions import AxisError, TooHardError

from .arrays import NDArray, is_bfloat16, output_dtype, take, take_values
from .devices import same_place

FLOATS = "float16, bfloat16, float32 or float64"


def data(value: Any, name: str = "x") -> tuple[NDArray, Any]:
    """An array of real numbers with at least one dimension, and the way back to the caller's kind."""
    x, back = take(value, name)
    if not (is_real(x.dtype)):
        raise TypeError(
            f"`{name}` has dtype {x.dtype}; expected real numbers ({FLOATS}, integers or booleans): "
            f"convert it, for example with `{name}.astype(np.float64)`"
        )
    if x.ndim == 0:
        raise ValueError(f"`{name}` is 0-dimensional; expected at least one dimension: try `np.atleast_1d({name})`")
    return x, back


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether the kernels read the dtype: integers, booleans and the four floating types."""
    return dtype.kind in "iub" or is_float(dtype)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether the dtype is one of the four floating types that kernels read and write."""
    return (dtype.kind == "f" and dtype.itemsize in (2, 4, 8)) or is_bfloat16(dtype)


def integers(value: Any, name: str) -> list[int]:
    """An int, or a tuple or list of ints, as a list."""
    several = value if isinstance(value, (tuple, list)) else (value,)
    if any(isinstance(n, (bool, np.bool_)) or not hasattr(n, "__index__") for n in several):
        raise TypeError(f"`{name}` is {value!r}; expected an int or a tuple of ints")
    try:
        return [operator.index(n) for n in several]
    except TypeError:  # an array of several elements has __index__, and no index
        raise TypeError(f"`{name}` is {value!r}; expected an int or a tuple of ints") from None


def channel_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """The channel axes as ascending non-negative integers."""
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    axes = []
    for a in integers(axis, "axis"):
        if not -ndim <= a < ndim:
            raise AxisError(
                f"`axis` is {axis!r}, but `x` has {ndim} dimension{'s' * (ndim != 1)}; "
                f"expected channel axes from {-ndim} to {ndim - 1}"
            )
        axes.append(a % ndim)
    if len(set(axes)) != len(axes):
        raise ValueError(f"`axis` is {axis!r}, which names one dimension of `x` twice; name each channel axis once")
    return tuple(sorted(axes))


def parameter(value: Any, name: str, channel_shape: tuple[int, ...], axes: tuple[int, ...]) -> NDArray:
    """One float64 value for each channel, as a fresh array of the channels' shape."""
    p = take_values(value, name)
    if not is_real(p.dtype):
        raise TypeError(f"`{name}` has dtype {p.dtype}; expected real numbers, one for each channel")
    if p.ndim == 0:
        return np.full(channel_shape, p, dtype=np.float64)
    if p.shape != channel_shape:
        at = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
        if len(channel_shape) == 1 and p.ndim == 1:
            raise ValueError(
                f"`{name}` has {p.shape[0]} channels but `x` has {channel_shape[0]} along {at}; "
                f"give one value for each channel, or another `axis`"
            )
        raise ValueError(
            f"`{name}` has shape {p.shape} but the channels of `x` along {at} have shape {channel_shape}; "
            f"give one value for each channel, or another `axis`"
        )
    return np.array(p, dtype=np.float64, order="C")


def variance(value: Any, name: str, channel_shape: tuple[int, ...], axes: tuple[int, ...]) -> NDArray:
    """A parameter that is nowhere negative (NaN may pass: it comes out as NaN)."""
    p = parameter(value, name, channel_shape, axes)
    if (p < 0).any():
        raise ValueError(f"`{name}` is negative {in_channels(p < 0)}; a variance is at least 0")
    return p


def epsilon(value: Any) -> float:
    """A finite number that is not negative."""
    eps = value if type(value) is float else number(value, "eps")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"`eps` is {eps}; expected a finite number, 0 or more, that is added to the variance")
    return eps


def number(value: Any, name: str) -> float:
    """A real number, not a bool."""
    if isinstance(value, (bool, np.bool_, str, bytes, complex)) or np.ndim(value) != 0:
        raise TypeError(f"`{name}` is {value!r}; expected a real number")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` is {value!r}; expected a real number") from None


def fraction(value: Any, name: str) -> float:
    """A number from 0 to 1."""
    share = number(value, name)
    if not 0 <= share <= 1:
        raise ValueError(f"`{name}` is {share}; expected a weight from 0 to 1")
    return share


def flag(value: Any, name: str) -> bool:
    """A bool, or a 0-d boolean array."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if hasattr(value, "__array__") or hasattr(value, "__dlpack__"):
        array = take_values(value, name)
        if array.ndim == 0 and array.dtype == np.bool_:
            return bool(array)
        raise TypeError(
            f"`{name}` is an array of shape {array.shape} and dtype {array.dtype}; "
            "expected a bool or a 0-d boolean array"
        )
    raise TypeError(f"`{name}` is {value!r}; expected a bool or a 0-d boolean array: try `bool(...)`")


def choice(value: Any, name: str, allowed: tuple[str, ...]) -> str:
    """One of a few words."""
    if not isinstance(value, str):
        raise TypeError(f"`{name}` is {value!r}; expected one of {', '.join(map(repr, allowed))}")
    if value not in allowed:
        raise ValueError(f"`{name}` is {value!r}; expected one of {', '.join(map(repr, allowed))}")
    return value


def output(
    out: Any, x: NDArray, x_name: str = "x", others: Mapping[str, NDArray] = MappingProxyType({}), name: str = "out"
) -> tuple[NDArray, Any]:
    """`out` as a writable floating array of x's shape; returns (view, what to return).

    It must lie apart in memory from x and from each of the others, by name, or be exactly one of them.
    """
    if not any(hasattr(out, way) for way in ("__array_interface__", "__dlpack__", "__cuda_array_interface__")):
        raise TypeError(
            f"`{name}` is of type {type(out).__name__}; expected an array that can be written into: np.empty(x.shape)"
        )
    y, _ = take(out, name)
    same_place(x, y, x_name, name)
    if not is_float(y.dtype):
        raise TypeError(
            f"`{name}` has dtype {y.dtype}; the result is not whole numbers: give an array of {FLOATS}, "
            f"for example {output_dtype(x.dtype) if is_real(x.dtype) else 'float64'}"
        )
    if y.shape != x.shape:
        raise ValueError(
            f"`{name}` has shape {y.shape} but `{x_name}` has shape {x.shape}; give an array of the same shape"
        )
    if not y.flags.writeable:
        raise ValueError(f"`{name}` is read-only; give an array that can be written")
    if y.size and _overlaps_itself(y.shape, y.strides, y.itemsize):
        raise ValueError(
            f"`{name}` holds several elements at one place in memory (a broadcast view); give a plain array"
        )
    for other_name, other in ((x_name, x), *others.items()):
        if y is not other and _may_overlap(y, other) and not same_memory(y, other):
            raise ValueError(
                f"`{name}` overlaps `{other_name}` in memory without being the same array; give "
                f"`{name}={other_name}` to work in place, or an array apart from it"
            )
    return y, out


def same_memory(a: NDArray, b: NDArray) -> bool:
    """Whether both are the same elements in the same order: a call that is in place."""
    return a is b or (
        np.may_share_memory(a, b)
        and a.ctypes.data == b.ctypes.data
        and a.shape == b.shape
        and a.dtype == b.dtype
        and all(s == t for s, t, n in zip(a.strides, b.strides, a.shape, strict=True) if n > 1)
    )


@lru_cache(1024)
def _overlaps_itself(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether two indexes reach one element, by the usual sufficient test on sorted strides."""
    reach = itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(strides, shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach = stride * (n - 1) + reach
    return False


def _may_overlap(a: NDArray, b: NDArray) -> bool:
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # the stub knows 0 and -1 only
    except TooHardError:
        return True


def in_channels(bad: NDArray, most: int = 8) -> str:
    """'in channel 3', 'in channels 0, 4 and 7', naming no more than `most` of them."""
    where = [int(i[0]) if len(i) == 1 else tuple(map(int, i)) for i in np.argwhere(bad)[: most + 1]]
    total = int(np.count_nonzero(bad))
    if bad.ndim == 0:
        return "in the one channel"
    if total == 1:
        return f"in channel {where[0]}"
    if total > most:
        return f"in {total} channels: {', '.join(map(str, where[:most]))}, ..."
    return f"in channels {', '.join(map(str, where[:-1]))} and {where[-1]}"
