"""Arrays on a device: whether CUDA can run here, and device arrays of any library as shadows for the layout.

`arrays.take` gives a `Shadow` for an array on a device: an ndarray over the device's address, with `place.device` and
`place.stream`. The way through `layout` keeps it one, so a backend finds the place of a layout at
``layout.arrays["x"].place``. All work on it goes on that stream, with ``driver.on(device)`` around it. Under numba's
simulator the address is one of host memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import probe
from .alike import flat_again, made_again
from .libraries import (
    DeviceArray,
    empty_like,
    flat_like,
    follow,
    given_back,
    has_interface,
    is_numba_s,
    library_of,
    part_of,
    seen,
)
from .shadow import NDArray, Place, Shadow, download, empty, pointer_of, upload

__all__ = [
    "DeviceArray",
    "Place",
    "Shadow",
    "download",
    "empty",
    "empty_like",
    "flat_again",
    "flat_like",
    "follow",
    "given_back",
    "is_on_device",
    "made_again",
    "part_of",
    "pointer_of",
    "probe",
    "same_place",
    "taken",
    "upload",
]


def is_on_device(value: Any) -> bool:
    """Whether a value that is no NumPy array lies on a CUDA device."""
    if is_numba_s(value):
        return True
    if hasattr(type(value), "__dlpack_device__"):
        try:
            return int(value.__dlpack_device__()[0]) in (2, 13)  # kDLCUDA, kDLCUDAManaged
        except (ValueError, RuntimeError, TypeError, BufferError):
            return False
    return has_interface(value)


def taken(value: Any, name: str) -> tuple[Shadow, Callable[[NDArray], Any]]:
    """A device array as a shadow, and the way back to its own kind."""
    where = f"`{name}` is a {library_of(value)} array on device {getattr(value, 'device', 'cuda')}"
    reason = probe.why_not()
    if reason is not None:
        raise TypeError(
            f"{where}, and CUDA cannot run here: {reason}; or move it first, for example with `{name}.cpu()`"
        )
    try:
        return seen(value), given_back
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(f"{where}, and cannot be read without a copy: {error}") from error


def same_place(x: NDArray, other: NDArray, x_name: str, name: str) -> None:
    """TypeError where two arrays do not lie on one device, or both on the host."""
    if type(x) is type(other) is np.ndarray:
        return
    here, there = (_words(a) for a in (x, other))
    if here != there:
        raise TypeError(
            f"`{name}` lies on {there} but `{x_name}` on {here}; move one of them, so that both lie in one place"
        )


def _words(a: NDArray) -> str:
    return repr(a.place) if isinstance(a, Shadow) else "the host"
