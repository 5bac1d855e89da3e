"""Foreign arrays in and out: what the caller hands over becomes a NumPy view, and goes back as it came."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from . import devices
from .devices import Shadow

NDArray = npt.NDArray[Any]

# How a kernel sees the types that numba cannot name: records whose field tells the format.
HALF = np.dtype([("half", np.uint16)], align=True)
BFLOAT = np.dtype([("bfloat", np.uint16)], align=True)


class _Alias:
    """A window over the memory of an array that numba types like any other, read-only or not."""

    def __init__(self, array: NDArray) -> None:
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}
        self.owner = array


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether this is ml_dtypes' bfloat16, without importing ml_dtypes."""
    return dtype.type.__name__ == "bfloat16"


def kernel_ready(flat: NDArray) -> NDArray:
    """A flat contiguous array as the kernels take it, on the same memory."""
    seen_as = _seen_as(flat.dtype)
    if seen_as is not None:
        flat = flat.view(seen_as)
    return flat if flat.flags.writeable else np.asarray(_Alias(flat))


@cache
def _seen_as(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """The dtype that numba takes in the place of one that it cannot name."""
    if is_bfloat16(dtype):
        return BFLOAT
    return {np.float16: HALF, np.bool_: np.dtype(np.uint8)}.get(dtype.type)


@cache
def output_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The floating type a result has: that of the input; float32 for up to 16 bits of integer, else float64."""
    if dtype.kind in "iub":
        return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)
    return dtype.newbyteorder("=")


def take(value: Any, name: str) -> tuple[NDArray, Callable[[NDArray], Any]]:
    """The caller's array as a base-class ndarray on the same memory, and the way back to its own kind.

    Lists and objects with ``__array__`` give NumPy arrays; an array of another library that offers
    DLPack on the CPU (PyTorch, JAX, ...) gives one of that library, sharing memory where it can. An array on a
    device gives a `devices.Shadow`, which has its geometry and is never read.
    """
    if type(value) is np.ndarray:
        return value, _same
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"`{name}` is a masked array, whose mask would be ignored; give `{name}.filled(...)`, "
            f"or `{name}.compressed()` for one channel"
        )
    if isinstance(value, np.matrix):
        raise TypeError(f"`{name}` is an np.matrix; give `np.asarray({name})`")
    if isinstance(value, np.ndarray):
        if isinstance(value, Shadow):
            return value, devices.given_back
        return value.view(np.ndarray), _same
    if devices.is_on_device(value):
        return devices.taken(value, name)
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _from_dlpack(value, name)
    if hasattr(value, "__array_interface__") or hasattr(value, "__array__"):
        return _converted(value, name), _same
    if isinstance(value, (list, tuple, int, float, bool, np.generic)):
        return _converted(value, name), _same
    raise TypeError(
        f"`{name}` is {type(value).__name__}; expected an array, a nested list of numbers, "
        f"or an object with __array__ or DLPack: try `np.asarray({name})`"
    )


def take_values(value: Any, name: str) -> NDArray:
    """The values of a small array, on the host; those on a device are waited for."""
    return devices.download(take(value, name)[0])


def empty_like(x: NDArray, dtype: np.dtype[Any]) -> NDArray:
    """A new array of the shape and the order of x, beside it."""
    if isinstance(x, Shadow):
        return devices.empty_like(x, dtype)
    return np.empty_like(x, dtype=dtype, order="K", subok=False)


def _same(array: NDArray) -> NDArray:
    return array


def _converted(value: Any, name: str) -> NDArray:
    try:
        array = np.asanyarray(value)
    except ValueError as error:
        raise ValueError(
            f"`{name}` is not a rectangular array of numbers ({error}); give rows of one length"
        ) from error
    if isinstance(array, np.ma.MaskedArray):
        return take(array, name)[0]
    return np.asarray(array)


def _from_dlpack(value: Any, name: str) -> tuple[NDArray, Callable[[NDArray], Any]]:
    try:
        device = value.__dlpack_device__()
    except (ValueError, RuntimeError, TypeError) as error:
        return _without_dlpack(value, name, error)
    if int(device[0]) != 1:  # kDLCPU
        raise TypeError(
            f"`{name}` is a {type(value).__module__.split('.')[0]} array on device {value.device}, and the CPU backend "
            f"computes on host memory; move it first, for example with `{name}.cpu()`"
        )
    try:
        array = np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError) as error:
        return _without_dlpack(value, name, error)
    if not array.flags.writeable and getattr(value, "__setitem__", None) is not None and hasattr(value, "numpy"):
        array = np.asarray(value)  # an older DLPack cannot say "writable"; the buffer can
    return array, _way_back(value)


def _without_dlpack(value: Any, name: str, error: Exception) -> tuple[NDArray, Callable[[NDArray], Any]]:
    """bfloat16 and the like, which NumPy's DLPack cannot name, through their bits."""
    try:
        if getattr(value, "requires_grad", False):
            raise TypeError("it requires a gradient")
        import array_api_compat
        import ml_dtypes

        xp = array_api_compat.array_namespace(value)
        if value.dtype == xp.bfloat16:
            bits = np.from_dlpack(value.view(xp.int16))

            def back(array: NDArray) -> Any:
                if is_bfloat16(array.dtype):
                    return xp.from_dlpack(array.view(np.int16)).view(xp.bfloat16)
                return xp.from_dlpack(array)

            return bits.view(ml_dtypes.bfloat16), back
    except (ImportError, AttributeError, TypeError):
        pass
    raise TypeError(f"`{name}` cannot be read without a copy: {error}; give a detached, dense CPU array") from error


def _way_back(value: Any) -> Callable[[NDArray], Any]:
    """How a NumPy result becomes an array of the namespace that `value` belongs to."""
    import array_api_compat

    try:
        xp = array_api_compat.array_namespace(value)
    except TypeError:
        return _same
    if array_api_compat.is_numpy_namespace(xp):
        return _same

    def back(array: NDArray) -> Any:
        return xp.from_dlpack(array)

    return back
