"""The steps that the public functions and BatchNorm share: checked arrays in, one call down to a backend."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from . import checks
from .activations import kernel_form
from .arrays import NDArray, empty_like, output_dtype
from .backends import Backend, cpu
from .devices import Shadow, same_place
from .layout import Layout, canonical
from .picks import EVERYTHING, Pick
from .statistics import Moments

EXTRA = {"skewness": "higher", "kurtosis": "higher", "min": "extremes", "max": "extremes", "nonfinite": "extremes"}


def extras(names: Any) -> dict[str, bool]:
    """Which groups of further moments were asked for, as the backends take them."""
    wanted = (names,) if isinstance(names, str) else names
    if not isinstance(wanted, (tuple, list, set, frozenset)) or not all(isinstance(n, str) for n in wanted):
        raise TypeError(f"`extra` is {names!r}; expected names out of {', '.join(EXTRA)}, or 'all'")
    for name in wanted:
        if name != "all" and name not in EXTRA:
            raise ValueError(f"`extra` is {names!r}; expected names out of {', '.join(EXTRA)}, or 'all'")
    groups = {"higher", "extremes"} if "all" in wanted else {EXTRA[name] for name in wanted}
    return dict.fromkeys(sorted(groups), True)


def measured(engine: Backend, x: NDArray, axes: tuple[int, ...], pick: Pick = EVERYTHING, **groups: bool) -> Moments:
    """The moments of a checked array."""
    if x.size == 0:
        return _of_nothing(tuple(x.shape[a] for a in axes), **groups)
    layout = canonical({"x": x}, axes, pick.views)
    if pick.unseen is not None:  # which only the CPU is given
        return _moments(layout, cpu.moments(layout, omit=pick.omit, unseen=pick.unseen, **groups), pick)
    return _moments(layout, engine.moments(layout, omit=pick.omit, **groups), pick)


def trained(
    engine: Backend,
    x: NDArray,
    y: NDArray,
    axes: tuple[int, ...],
    gamma: NDArray,
    beta: NDArray | None,
    eps: float,
    pick: Pick = EVERYTHING,
    activation: Any = None,
    residual: NDArray | None = None,
) -> Moments:
    """Write x normalized by its own moments into y; returns the moments."""
    if x.size == 0:
        return measured(engine, x, axes, pick)
    layout = layout_of(x, y, axes, residual, pick)
    parts = engine.train(
        layout, layout.to_channels(gamma), _optional(layout, beta), eps, pick.omit, kernel_form(activation)
    )
    return _moments(layout, parts, pick)


def apply(
    engine: Backend,
    x: NDArray,
    y: NDArray,
    axes: tuple[int, ...],
    mean: NDArray,
    scale: NDArray,
    shift: NDArray | None,
    activation: Any = None,
    residual: NDArray | None = None,
) -> None:
    """Write ``activation((x - mean) * scale + shift + residual)`` into y; parameters in the channels' shape."""
    if x.size == 0:
        return
    layout = layout_of(x, y, axes, residual, EVERYTHING)
    engine.transform(
        layout, layout.to_channels(mean), layout.to_channels(scale), _optional(layout, shift), kernel_form(activation)
    )


def put(engine: Backend, to: NDArray, source: NDArray) -> None:
    """Copy values from one array into another of its shape, perhaps of another dtype; on a device with its own verb."""
    if not isinstance(to, Shadow):
        to[...] = source
        return
    engine.transform(canonical({"x": source, "out": to}, ()), np.zeros(1), np.ones(1), None)


def converted(engine: Backend, x: NDArray, dtype: np.dtype[Any]) -> NDArray:
    """A copy of an array, of another dtype."""
    if not isinstance(x, Shadow):
        return x.astype(dtype)
    y = empty_like(x, dtype)
    put(engine, y, x)
    return y


def destination(
    out: Any, x: NDArray, back: Any, x_name: str = "x", others: Mapping[str, NDArray | None] = MappingProxyType({})
) -> tuple[NDArray, Any]:
    """Where the result goes, and a function that gives it to the caller; it may be x or one of the others."""
    if out is None:
        y = empty_like(x, output_dtype(x.dtype))
        return y, lambda: back(y)
    y, given = checks.output(out, x, x_name, {name: a for name, a in others.items() if a is not None})
    return y, lambda: given


def residual_of(residual: Any, x: NDArray) -> NDArray | None:
    """A checked array to add before the activation, or None."""
    if residual is None:
        return None
    array, _ = checks.data(residual, "residual")
    same_place(x, array, "x", "residual")
    if array.shape != x.shape:
        raise ValueError(
            f"`residual` has shape {array.shape} but `x` has shape {x.shape}; give an array of the same shape"
        )
    return array


def layout_of(x: NDArray, y: NDArray, axes: tuple[int, ...], residual: NDArray | None, pick: Pick) -> Layout:
    """The layout of x and what goes with it; without "out" where y is x."""
    arrays = {"x": x}
    if residual is not None:
        arrays["residual"] = residual
    if not checks.same_memory(x, y):
        arrays["out"] = y
    return canonical(arrays, axes, pick.views)


def _optional(layout: Layout, parameter: NDArray | None) -> NDArray | None:
    return None if parameter is None else layout.to_channels(parameter)


def _of_nothing(shape: tuple[int, ...], higher: bool = False, extremes: bool = False) -> Moments:
    zeros = np.zeros(shape)
    more = {"m3": zeros, "m4": zeros} if higher else {}
    if extremes:
        more |= {"min": np.full(shape, np.inf), "max": np.full(shape, -np.inf), "nonfinite": zeros}
    return Moments(0.0, zeros, zeros, **more)


def _moments(layout: Layout, parts: Any, pick: Pick) -> Moments:
    count, mean, m2, higher, extremes = parts
    more = {} if higher is None else dict(zip(("m3", "m4"), higher, strict=True))
    more |= {} if extremes is None else dict(zip(("min", "max", "nonfinite"), extremes, strict=True))
    return Moments.trusted(
        layout.from_channels(count) if pick else layout.size / layout.channels,
        layout.from_channels(mean),
        layout.from_channels(m2),
        **{name: layout.from_channels(values) for name, values in more.items()},
    )
