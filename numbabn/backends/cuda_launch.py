"""Kernels on a device: compiled once for each combination of types, launched with a handful of numbers.

A launch packs its arguments into one row of 8-byte slots, as numba lays them out, and makes one call of the driver.
Under numba's simulator the same kernel runs as Python, on host memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..devices import probe
from ..devices.driver import on
from ..devices.shadow import Place, pointer_of
from .cuda_code import machine_code

Grid = tuple[int, int]
SLOTS = 7  # of an array: (memory, parent, n, size of an element, address, shape, stride)
_functions: dict[tuple[Any, ...], Any] = {}
_taping = threading.local()


@dataclass(slots=True)
class Launch:
    """One launch, as it was made: the driver takes `values` by their addresses in `pointers`."""

    kernel: Any
    grid: Grid
    block: Grid
    args: tuple[Any, ...]
    function: Any
    values: Any
    pointers: Any

    def on(self, stream: int) -> tuple[Any, ...]:
        """What the driver is told."""
        at = ctypes.addressof(self.pointers)
        return self.function, *self.grid, 1, *self.block, 1, 0, _bindings().CUstream(stream), at, 0


def call_all(calls: list[tuple[Any, ...]]) -> None:
    """Launch kernels on the device that is current."""
    driver = _bindings()
    launch, success = driver.cuLaunchKernel, driver.CUresult.CUDA_SUCCESS
    for call in calls:
        (status,) = launch(*call)
        if status is not success:
            raise RuntimeError(
                f"a kernel could not be launched over {call[1:3]} blocks of {call[4:6]} threads: {status.name}"
            )


def launch(kernel: Any, grid: Grid, block: Grid, place: Place, *args: Any) -> None:
    """Run a kernel behind what the stream of a place has to do; arguments: flat arrays, numbers, None, and tuples."""
    if probe.simulated():
        kernel[grid, block](*(_faked(a) for a in args))
        made = Launch(kernel, grid, block, args, None, None, None)
    else:
        slots: list[int] = []
        kinds = tuple(_pack(a, slots) for a in args)
        with on(place.device):
            key = (kernel, place.device, kinds)
            function = _functions.get(key)
            if function is None:
                function = _functions[key] = _loaded(kernel, tuple(_type(a) for a in args), place.device)
            values = (ctypes.c_uint64 * len(slots))(*slots)
            first = ctypes.addressof(values)
            pointers = (ctypes.c_void_p * len(slots))(*range(first, first + 8 * len(slots), 8))
            made = Launch(kernel, grid, block, args, function, values, pointers)
            call_all([made.on(place.stream)])
    tape = getattr(_taping, "tape", None)
    if tape is not None:
        tape.append(made)


@contextlib.contextmanager
def taped() -> Iterator[list[Launch]]:
    """All launches that this thread makes in a block."""
    _taping.tape = []
    try:
        yield _taping.tape
    finally:
        _taping.tape = None


@cache
def _bindings() -> Any:
    from cuda.bindings import driver

    return driver


def _pack(value: Any, slots: list[int]) -> Any:
    """Append an argument as its 8-byte slots; returns what decides how it is compiled."""
    if isinstance(value, np.ndarray):
        n, size = value.size, value.itemsize
        slots += (0, 0, n, size, pointer_of(value), n, size)
        return value.dtype
    if value is None:
        slots.append(0)
        return None
    if isinstance(value, tuple):
        return (type(value), *(_pack(v, slots) for v in value))
    if isinstance(value, float):
        slots.append(struct.unpack("<Q", struct.pack("<d", value))[0])
        return float
    slots.append(int(value) & 0xFFFF_FFFF_FFFF_FFFF)
    return bool if isinstance(value, (bool, np.bool_)) else int


def _type(value: Any) -> Any:
    """numba's type of an argument."""
    import numba
    from numba import types

    if isinstance(value, np.ndarray):
        return types.Array(numba.from_dtype(value.dtype), 1, "C")
    if not isinstance(value, tuple):
        if isinstance(value, float):
            return types.float64
        return types.none if value is None else types.boolean if isinstance(value, (bool, np.bool_)) else types.int64
    inside = [_type(v) for v in value]
    kinds: Any = types
    if not hasattr(value, "_fields"):
        return kinds.Tuple(inside)
    if len(set(inside)) == 1:
        return kinds.NamedUniTuple(inside[0], len(inside), type(value))
    return kinds.NamedTuple(inside, type(value))


def _loaded(kernel: Any, args: tuple[Any, ...], device: int) -> Any:
    from cuda.bindings import driver

    binary, name = machine_code(kernel, args, capability_of(device))
    status, module = driver.cuModuleLoadData(binary)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(
            f"the driver does not take a kernel ({status.name}); it may be older than the installed CUDA packages: "
            "update it, or install packages of its version"
        )
    status, function = driver.cuModuleGetFunction(module, name.encode())
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"a compiled kernel cannot be found: {status.name}")
    return function


@cache
def capability_of(device: int) -> tuple[int, int]:
    """The compute capability of a device, (major, minor)."""
    from cuda.bindings import driver

    names = driver.CUdevice_attribute
    wanted = (names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
    (_, handle) = driver.cuDeviceGet(device)
    major, minor = (int(driver.cuDeviceGetAttribute(name, handle)[1]) for name in wanted)
    return major, minor


def _faked(value: Any) -> Any:
    """An argument as the simulator takes it: arrays are used where they are, not copied."""
    if isinstance(value, np.ndarray):
        from numba.cuda.simulator.cudadrv import devicearray

        fake: Any = devicearray.FakeCUDAArray
        return fake(value.view(np.ndarray))
    if type(value) is tuple:
        return tuple(_faked(v) for v in value)
    return value
