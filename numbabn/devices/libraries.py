"""What each library's arrays on a device are asked: where they lie, on which stream, and for new ones like them."""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from . import dlpack, probe
from .driver import LEGACY, on
from .shadow import NDArray, Place, Shadow, empty, pointer_of, shadow_of


def seen(value: Any) -> Shadow:
    """A device array of any library as a shadow, on the stream that is current for its caller.

    TypeError, with what is wrong, where it cannot be one.
    """
    library = library_of(value)
    if library == "torch":
        return _of_torch(value)
    if library in ("jax", "jaxlib") or not has_interface(value):
        return _of_dlpack(value, library)
    return _of_interface(value, library)


def empty_like(x: Shadow, dtype: Any) -> Shadow:
    """A new array beside x, of another dtype: made by the library of x where that can be."""
    dtype = np.dtype(dtype)
    fresh = _FRESH.get(x.place.library)
    if fresh is not None and x.given is not None:
        return fresh(x, dtype)
    new = empty(x.shape, dtype, x.place, kept_order(x, dtype.itemsize))
    new.given = _Given(x.given)
    return new


def given_back(made: Any) -> Any:
    """The caller's own kind of array for a shadow that `empty_like` made, or for what `made_again` did."""
    if not isinstance(made, Shadow):
        return made
    return made.given(made) if isinstance(made.given, _Given) else made.given


def flat_like(x: Shadow, size: int) -> Shadow:
    """A new vector of float64 beside x: of the library of x, whose own it is to give back, where that can be."""
    library = x.place.library
    if library == "torch":
        torch = sys.modules["torch"]
        return _of_torch(torch.empty(size, dtype=torch.float64, device=x.given.device))
    if library == "cupy":
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(x.place.device):
            return _of_interface(cupy.empty(size, np.float64), library)
    if library == "numba" and not probe.simulated():
        cuda: Any = importlib.import_module("numba.cuda")
        with cuda.gpus[x.place.device]:
            stream = cuda.external_stream(x.place.stream) if x.place.stream > LEGACY else 0
            return _of_interface(cuda.device_array(size, np.float64, stream=stream), library)
    new = empty((size,), np.float64, x.place)
    new.given = _Given(x.given)
    return new


def part_of(vector: Any, start: int, shape: tuple[int, ...]) -> Any:
    """A part of what `flat_like` or `flat_again` made, in a shape, as an array of the caller's kind."""
    end = start + math.prod(shape)
    given = vector.given if isinstance(vector, Shadow) else vector
    if isinstance(given, _Given):
        return given(vector[start:end].reshape(shape))
    part = given[start:end]
    return part if len(shape) == 1 else part.reshape(shape)


def library_of(value: Any) -> str:
    """The top-level package that a value's type comes from."""
    kind: Any = type(value)
    return package_of(kind)


@lru_cache(64)
def package_of(kind: Any) -> str:
    """The top-level package that a type comes from."""
    return str(kind.__module__).split(".")[0]


def is_numba_s(value: Any) -> bool:
    """Whether this is an array of numba.cuda, or of its simulator."""
    return bool(getattr(type(value), "__cuda_ndarray__", False))


def kept_order(x: NDArray, itemsize: int) -> tuple[int, ...]:
    """Strides of a dense array whose axes lie in the order of those of x."""
    strides, apart = [0] * x.ndim, itemsize
    for d in sorted(range(x.ndim), key=lambda d: (abs(x.strides[d]), -d)):
        strides[d] = apart
        apart *= max(x.shape[d], 1)
    return tuple(strides)


class DeviceArray:
    """An array on a device of no library in particular; any takes it by DLPack or ``__cuda_array_interface__``."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self.shape, self.dtype = shadow.shape, shadow.dtype
        self.device = repr(shadow.place)

    @cached_property
    def _glance(self) -> tuple[int, int, int, tuple[Any, ...]]:
        """Where it begins, its device and stream, and what tells it from others (see `alike`)."""
        place, strides = self._shadow.place, self._shadow.strides
        look = ("numbabn", self.shape, strides, self.dtype, self._shadow.flags.writeable)
        return pointer_of(self._shadow), place.device, place.stream or LEGACY, look

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = dict(self._shadow.__array_interface__)
        return {
            "shape": self.shape,
            "strides": interface["strides"],
            "data": interface["data"],
            "typestr": interface["typestr"],
            "stream": self._shadow.place.stream or LEGACY,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._shadow.place.device

    def __dlpack__(self, *, stream: int | None = None, **how: Any) -> Any:
        if stream != -1:
            follow(self._shadow.place.device, LEGACY if stream is None else stream, self._shadow.place.stream)
        return dlpack.capsule_of(self._shadow)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, device={self.device!r})"


class _Given:
    """The way from a shadow of our own to the caller's kind, taken once the work on it has been launched.

    It waits for that work where the caller goes on with another stream: the input may be freed there before. The
    shadow refers to it, so it refers to no array: NumPy's are no part of what the collector of garbage sees.
    """

    def __init__(self, pattern: Any) -> None:
        self._namespace = None
        with contextlib.suppress(ImportError, TypeError, AttributeError):
            import array_api_compat

            self._namespace = array_api_compat.array_namespace(pattern)

    def __call__(self, shadow: Shadow) -> Any:
        ours, place = DeviceArray(shadow.view()), shadow.place
        if not place.own:
            with on(place.device) as driver:
                driver.synchronize(place.stream)
        if self._namespace is not None:
            with contextlib.suppress(ImportError, TypeError, AttributeError):
                return self._namespace.from_dlpack(ours)
        return ours


def follow(device: int, stream: int, first: int) -> None:
    """Let a stream wait for what another has to do now."""
    if (stream or LEGACY) == (first or LEGACY):
        return
    with on(device) as driver:
        event = driver.new_event()
        driver.record(event, first)
        driver.wait(stream, event)
        driver.free_event(event)  # it goes when both have passed it


def has_interface(value: Any) -> bool:
    """Whether a value has ``__cuda_array_interface__``; its class is asked first, as to ask the value makes one."""
    name = "__cuda_array_interface__"
    return is_numba_s(value) or hasattr(type(value), name) or hasattr(value, name)


def _of_torch(value: Any) -> Shadow:
    torch = sys.modules["torch"]
    if value.requires_grad:
        raise TypeError("it requires a gradient; give `.detach()`")
    if value.layout != torch.strided or value.is_conj() or value.is_neg():
        raise TypeError("it is not dense; give `.to_dense()`")
    name = str(value.dtype).removeprefix("torch.")
    dtype = dlpack.bfloat16() if name == "bfloat16" else np.dtype(name)
    size = value.element_size()
    strides = tuple(s * size for s in value.stride())
    device = value.device.index or 0
    place = Place(device, stream_of_torch(device), "torch")
    return shadow_of(value.data_ptr(), tuple(value.shape), strides, dtype, place, owner=value, given=value)


def stream_of_torch(device: int) -> int:
    """PyTorch's current stream; by the function of its compiled code, which costs a tenth, where it is there."""
    torch = sys.modules["torch"]
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    stream: int = torch.cuda.current_stream(device).cuda_stream if raw is None else raw(device)
    return stream or LEGACY


def _of_interface(value: Any, library: str) -> Shadow:
    if is_numba_s(value) and probe.simulated():
        interface, stream, device = value.__array_interface__, LEGACY, 0
    else:
        interface = value.__cuda_array_interface__
        stream = interface.get("stream") or LEGACY
        device = device_of(value)
    if interface.get("mask") is not None:
        raise TypeError("it has a mask, which would be ignored; give `where` instead")
    typestr = interface["typestr"]
    dtype = np.dtype(typestr)
    if dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None:
        dtype = dlpack.bfloat16()
    pointer, readonly = interface["data"]
    place = Place(device, stream, "numba" if is_numba_s(value) else library)
    shape = tuple(interface["shape"])
    return shadow_of(
        pointer, shape, interface.get("strides"), dtype, place, owner=value, given=value, readonly=readonly
    )


def _of_dlpack(value: Any, library: str) -> Shadow:
    """The producer makes the legacy stream wait for its own, and we go on there."""
    try:
        capsule = value.__dlpack__(stream=LEGACY, max_version=(1, 0))
    except TypeError:  # older than versions
        capsule = value.__dlpack__(stream=LEGACY)
    d = dlpack.described(capsule)
    place, owner = Place(d.device, LEGACY, library, own=False), (value, capsule)
    return shadow_of(d.pointer, d.shape, d.strides, d.dtype, place, owner=owner, given=value, readonly=d.readonly)


def device_of(value: Any) -> int:
    """The number of the device of an array with the interface, which does not tell it."""
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[1])
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        return int(getattr(value.device, "id", value.device))
    if len(probe.devices()) > 1 and not probe.simulated():
        return _device_at(value.__cuda_array_interface__["data"][0])
    return 0


def _device_at(pointer: int) -> int:
    """The device that an address belongs to."""
    from cuda.bindings import driver

    which = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    status, number = driver.cuPointerGetAttribute(which, pointer)
    return int(number) if status == driver.CUresult.CUDA_SUCCESS else 0


def _new_of_torch(x: Shadow, dtype: np.dtype[Any]) -> Shadow:
    torch = sys.modules["torch"]
    return _of_torch(torch.empty_like(x.given, dtype=getattr(torch, dtype.name), requires_grad=False))


def _new_of_cupy(x: Shadow, dtype: np.dtype[Any]) -> Shadow:
    cupy = sys.modules["cupy"]
    with cupy.cuda.Device(x.place.device):
        return _of_interface(cupy.empty_like(x.given, dtype=dtype, order="K"), "cupy")


def _new_of_numba(x: Shadow, dtype: np.dtype[Any]) -> Shadow:
    from numba import cuda

    strides = kept_order(x, dtype.itemsize)
    with cuda.gpus[x.place.device]:
        if probe.simulated():
            dense = np.empty(x.size, dtype)
            return _of_interface(cuda.to_device(np.ndarray(x.shape, dtype, dense, 0, strides)), "numba")
        stream = cuda.external_stream(x.place.stream) if x.place.stream > LEGACY else 0
        return _of_interface(cuda.device_array(x.shape, dtype, strides, stream=stream), "numba")


_FRESH: dict[str, Callable[[Shadow, np.dtype[Any]], Shadow]] = {
    "torch": _new_of_torch,
    "cupy": _new_of_cupy,
    "numba": _new_of_numba,
}
