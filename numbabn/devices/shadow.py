"""Shadows: NumPy arrays over the memory of a device, to be reckoned with and never read.

A shadow has the shape, the strides, the dtype and the address of an array on a device. Views of it, slices and
transposes are shadows too. Arithmetic on it is refused, as the host cannot read what it stands for.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from .driver import Buffer, Mark, on

NDArray = npt.NDArray[Any]


class Place:
    """Where an array lies: a device, the stream to use it on, and the library that made it.

    `own`: the stream is the one that its caller goes on with, so that what comes later there needs no more waiting.
    `mark`: orders the streams that take turns with memory made here, which is freed behind all of them.
    """

    __slots__ = ("device", "library", "mark", "own", "stream")

    def __init__(self, device: int, stream: int, library: str, own: bool = True, mark: Mark | None = None) -> None:
        self.device, self.stream, self.library, self.own, self.mark = device, stream, library, own, mark

    def __repr__(self) -> str:
        return f"cuda:{self.device}"


class Shadow(np.ndarray):
    """An array on a device, seen from the host; `place` says where it lies, and `given` is the caller's own object."""

    place: Place
    given: Any

    __array_ufunc__ = None  # type: ignore[assignment]  # NumPy's way to say: no arithmetic with this

    def __array_finalize__(self, parent: Any) -> None:
        self.place = getattr(parent, "place", None)  # type: ignore[assignment]
        self.given = None

    def _refused(self, *args: Any, **how: Any) -> NoReturn:
        raise TypeError(f"this array lies on {self.place!r}, and the host cannot read it; this is an error of numbabn")

    astype = copy = tolist = item = tobytes = _refused

    def __repr__(self) -> str:
        return f"<{self.dtype} array of shape {self.shape} on {self.place!r}>"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        self._refused()


class _Window:
    """Memory at an address, for NumPy to look at; `owner` keeps it alive."""

    def __init__(
        self, pointer: int, shape: tuple[int, ...], strides: Any, dtype: Any, readonly: bool, owner: Any
    ) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "data": (pointer, readonly),
            "shape": shape,
            "strides": strides,
            "typestr": f"|V{dtype.itemsize}" if dtype.kind == "V" else dtype.str,
            "version": 3,
        }


def shadow_of(
    pointer: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    dtype: np.dtype[Any],
    place: Place,
    *,
    owner: Any = None,
    given: Any = None,
    readonly: bool = False,
) -> Shadow:
    """A shadow over memory of a device; strides in bytes, None where it is C-contiguous."""
    flat = np.asarray(_Window(pointer or 64, shape, strides, dtype, readonly, owner))  # NumPy takes no 0
    shadow = (flat if flat.dtype == dtype else flat.view(dtype)).view(Shadow)
    shadow.place, shadow.given = place, given
    return shadow


def empty(shape: tuple[int, ...], dtype: Any, place: Place, strides: tuple[int, ...] | None = None) -> Shadow:
    """Fresh memory on a device, in the order of the stream of a place."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    buffer = Buffer(nbytes, place.device, place.stream, place.mark)
    return shadow_of(buffer.pointer, shape, strides, dtype, place, owner=buffer)


def pointer_of(array: NDArray) -> int:
    """The address of the first element of an array or a shadow."""
    return int(array.__array_interface__["data"][0])


def upload(array: NDArray, place: Place) -> Shadow:
    """A copy of a small array of the host on a device, in the order of its stream."""
    array = np.ascontiguousarray(array)
    shadow = empty(array.shape, array.dtype, place)
    with on(place.device) as driver:
        driver.send(pointer_of(shadow), pointer_of(array), array.nbytes, place.stream)
    return shadow


def download(shadow: NDArray) -> NDArray:
    """A copy on the host of an array on a device, whatever its strides; waits for its stream. Others as they are."""
    if not isinstance(shadow, Shadow):
        return shadow
    place = shadow.place
    if not shadow.size:
        return np.empty(shadow.shape, shadow.dtype)
    reach = [(n - 1) * s for n, s in zip(shadow.shape, shadow.strides, strict=True)]
    before = -sum(r for r in reach if r < 0)
    memory = np.empty(before + sum(r for r in reach if r > 0) + shadow.itemsize, np.uint8)
    with on(place.device) as driver:
        driver.copy(pointer_of(memory), pointer_of(shadow) - before, memory.nbytes, place.stream)
        driver.synchronize(place.stream)
    return np.ndarray(shadow.shape, shadow.dtype, memory, before, shadow.strides).copy()
