"""Device arrays without a device: host memory that says it were a GPU's, and a CPU engine that stands in for CUDA's.

Under ``NUMBA_ENABLE_CUDASIM=1`` the driver of `numbabn.devices` takes host memory for the device's, so that all of what
lies around the kernels can be tested anywhere; the kernels themselves have tests of their own.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import numba  # noqa: F401  # before the variable is set, so that it changes nothing for numba in this process
import numpy as np
import pytest

from numbabn import backends, devices
from numbabn.backends import cpu
from numbabn.devices import dlpack, probe
from numbabn.devices.shadow import Place, shadow_of
from numbabn.layout import Layout


class WithInterface:
    """As CuPy's: the array interface of CUDA, with a stream."""

    def __init__(self, values: Any, stream: int | None = 7, readonly: bool = False, **more: Any) -> None:
        self.values, self.stream, self.readonly, self.more = np.asarray(values), stream, readonly, more

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        a = self.values
        return {
            "shape": a.shape,
            "strides": None if a.flags.c_contiguous else a.strides,
            "data": (a.ctypes.data if a.size else 0, self.readonly),
            "typestr": "<V2" if a.dtype.name == "bfloat16" else a.dtype.str,
            "stream": self.stream,
            "version": 3,
            **self.more,
        }


class WithDlpack:
    """As JAX's: DLPack alone."""

    device = "cuda:0"

    def __init__(self, values: Any, device: int = 0, versions: bool = True) -> None:
        self.values, self.number, self.versions = np.asarray(values), device, versions
        self.streams: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.number)

    def __dlpack__(self, *, stream: Any = None, **how: Any) -> Any:
        if how and not self.versions:
            raise TypeError("unexpected keyword argument 'max_version'")
        self.streams.append(stream)
        a = self.values
        place = Place(self.number, 1, "devicelike")
        return dlpack.capsule_of(shadow_of(a.ctypes.data, a.shape, a.strides, a.dtype, place, owner=a))


def values_of(array: Any) -> np.ndarray:
    """What a device array of any kind holds."""
    return devices.download(devices.taken(array, "array")[0])


def on_the_host(layout: Layout) -> Layout:
    """A layout of shadows as one of arrays."""
    arrays, picks = ({n: a.view(np.ndarray) for n, a in views.items()} for views in (layout.arrays, layout.picks))
    return Layout(arrays, picks, layout.order)


def stand_in() -> types.ModuleType:
    """An engine like `numbabn.backends.cuda`, which computes on the CPU; `places` has where each call went."""
    module: Any = types.ModuleType("numbabn.backends.cuda")
    module.places = []

    def verb(name: str) -> Any:
        def call(layout: Layout, *arguments: Any, **how: Any) -> Any:
            module.places.append((name, layout.arrays["x"].place.stream))  # type: ignore[attr-defined]
            return getattr(cpu, name)(on_the_host(layout), *arguments, **how)

        return call

    for name in ("moments", "transform", "train", "grad_sums", "grad_inputs"):
        setattr(module, name, verb(name))
    return module


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A simulated device, and the stand-in as its engine."""
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.setattr(probe, "_found", lambda: ((probe.Device(0, "a device", (9, 0), 1 << 30, 2),), None))
    module = stand_in()
    monkeypatch.setitem(sys.modules, "numbabn.backends.cuda", module)
    for name in ("device", "streamed"):
        monkeypatch.delitem(sys.modules, f"numbabn.backends.{name}", raising=False)
    backends._loaded.cache_clear()
    yield module
    for name in ("device", "streamed"):
        sys.modules.pop(f"numbabn.backends.{name}", None)
    backends._loaded.cache_clear()
