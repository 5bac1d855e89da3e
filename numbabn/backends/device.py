"""The verbs for arrays on a device: those of `cuda`, on the stream of x, in order with the streams of the others."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any, cast

from ..arrays import NDArray
from ..devices import Shadow, follow
from ..devices.driver import on
from ..layout import Layout
from . import Backend, Parts

cuda = cast(Backend, importlib.import_module(f"{__package__}.cuda"))


@contextlib.contextmanager
def in_order(layout: Layout) -> Iterator[None]:
    """With the device of a layout current, and the work in it after what its arrays wait for, and before what comes."""
    first, *rest = (a.place for a in (*layout.arrays.values(), *layout.picks.values()) if isinstance(a, Shadow))
    others = {place.stream for place in rest} - {first.stream}
    for stream in others:
        follow(first.device, first.stream, stream)
    with on(first.device):
        yield
    for stream in others:
        follow(first.device, stream, first.stream)


def moments(layout: Layout, omit: bool = False, higher: bool = False, extremes: bool = False) -> Parts:
    """As `Backend.moments`."""
    with in_order(layout):
        return cuda.moments(layout, omit, higher, extremes)


def transform(layout: Layout, mean: NDArray, scale: NDArray, shift: NDArray | None, activation: Any = None) -> None:
    """As `Backend.transform`."""
    with in_order(layout):
        cuda.transform(layout, mean, scale, shift, activation)


def train(
    layout: Layout, gamma: NDArray, beta: NDArray | None, eps: float, omit: bool = False, activation: Any = None
) -> Parts:
    """As `Backend.train`."""
    with in_order(layout):
        return cuda.train(layout, gamma, beta, eps, omit, activation)


def grad_sums(layout: Layout, mean: NDArray, omit: bool = False, act: Any = None) -> NDArray:
    """As `Backend.grad_sums`."""
    with in_order(layout):
        return cuda.grad_sums(layout, mean, omit, act)


def grad_inputs(
    layout: Layout,
    mean: NDArray,
    a: NDArray,
    b: NDArray | None,
    k: NDArray | None,
    omit: bool = False,
    act: Any = None,
) -> None:
    """As `Backend.grad_inputs`."""
    with in_order(layout):
        cuda.grad_inputs(layout, mean, a, b, k, omit, act)
