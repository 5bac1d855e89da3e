"""Whether CUDA can run here, and if not why: asked of the driver itself, without loading numba or a CUDA package.

numba-cuda is loaded only where all else is there and NumPy is newer than it is known to go with.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

EXTRA = "pip install 'numbabn[cuda]'"
PACKAGES = {"numba_cuda": "numba-cuda", "cuda.core": "cuda-core", "cuda.bindings": "cuda-bindings"}
LEAST_CAPABILITY = {12: (5, 0), 13: (7, 5)}  # what the compilers of a CUDA version can still make code for

NUMPY_TO_TRY = (2, 5)  # which has no row_stack any more; the first numba-cuda to do without it is not known
COMPILES_WITH = "numba.cuda.np.arrayobj"

_NO_DEVICE, _DRIVER_TOO_OLD, _DRIVER_MISMATCH = 100, 35, 803
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CUdevice_attribute


@dataclass(frozen=True, slots=True)
class Device:
    """One device, as the driver describes it."""

    number: int
    name: str
    capability: tuple[int, int]
    memory: int
    multiprocessors: int

    def in_words(self) -> str:
        """For a report."""
        major, minor = self.capability
        return f"{self.name}, compute capability {major}.{minor}, {self.memory / 2**30:.0f} GiB"


def simulated() -> bool:
    """Whether numba's CUDA simulator stands in for a GPU: ``NUMBA_ENABLE_CUDASIM=1``, for tests."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def why_not() -> str | None:
    """The reason that CUDA cannot run here, with its cure; None where it can."""
    return _found()[1]


def devices() -> tuple[Device, ...]:
    """The devices that the driver shows to this process; none where CUDA cannot run."""
    return _found()[0]


def driver_version() -> str | None:
    """The CUDA version that the driver supports, as text; None without a driver."""
    library = _library()
    version = None if library is None else _version_of(library)
    return None if version is None else _words(version)


@cache
def _found() -> tuple[tuple[Device, ...], str | None]:
    try:
        if simulated():
            return _simulator(), None
        return _devices(), None
    except _UnavailableError as reason:
        return (), str(reason)


class _UnavailableError(Exception):
    pass


def _simulator() -> tuple[Device, ...]:
    if not _is_there("numba_cuda"):
        raise _UnavailableError(f"the simulator is that of numba-cuda, which is not installed: {EXTRA}")
    return (Device(0, "numba's CUDA simulator", (9, 0), 1 << 32, 2),)


def _devices() -> tuple[Device, ...]:
    if os.environ.get("NUMBA_DISABLE_CUDA", "0") not in ("", "0"):
        raise _UnavailableError("the environment variable NUMBA_DISABLE_CUDA switches CUDA off: unset it")
    missing = [package for module, package in PACKAGES.items() if not _is_there(module)]
    if missing:
        are = "are" if len(missing) > 1 else "is"
        raise _UnavailableError(f"{' and '.join(missing)} {are} not installed: {EXTRA}")
    library = _library()
    if library is None:
        raise _UnavailableError(
            "there is no NVIDIA driver (the library libcuda is not found): install the driver of the graphics card, or "
            "in a container start it with access to the card"
        )
    major, supported = _package_major(), _version_of(library)
    if supported is not None and supported // 1000 < major:
        raise _UnavailableError(
            f"the NVIDIA driver is too old: it supports CUDA {_words(supported)} and the packages are of {major}: "
            f"update the driver, or install packages of its version, pip install 'numba-cuda[cu{supported // 1000}]'"
        )
    _start(library, supported)
    found = _asked(library, major)
    _try_compiler()
    return found


def _try_compiler() -> None:
    """Load what numba-cuda first compiles with, where a NumPy may have taken from it what it needs."""
    import numpy

    if tuple(map(int, numpy.__version__.split(".")[:2])) < NUMPY_TO_TRY:
        return
    try:
        importlib.import_module(COMPILES_WITH)
    except ModuleNotFoundError as error:
        if not COMPILES_WITH.startswith(error.name or COMPILES_WITH):  # other releases may have it elsewhere
            raise _UnavailableError(f"numba-cuda cannot be loaded: {error}: {EXTRA}") from error
    except Exception as error:
        from importlib import metadata

        raise _UnavailableError(
            f"numba-cuda {metadata.version('numba-cuda')} cannot be used with NumPy {numpy.__version__} "
            f"({type(error).__name__}: {error}): pip install 'numpy<{'.'.join(map(str, NUMPY_TO_TRY))}', or a later "
            "numba-cuda"
        ) from error


def _start(library: Any, supported: int | None) -> None:
    """cuInit, or the reason that it fails."""
    status = library.cuInit(0)
    if status == 0:
        return
    if status == _NO_DEVICE:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        cure = "" if hidden is None else f"; CUDA_VISIBLE_DEVICES is {hidden!r}, which may hide it"
        raise _UnavailableError(f"the NVIDIA driver finds no device: look with nvidia-smi{cure}")
    if status in (_DRIVER_TOO_OLD, _DRIVER_MISMATCH):
        raise _UnavailableError(
            f"the NVIDIA driver does not fit its library (error {status}): update the driver, and restart the machine"
        )
    version = "" if supported is None else f", for CUDA {_words(supported)}"
    raise _UnavailableError(f"the NVIDIA driver{version} fails to start (error {status}): look with nvidia-smi")


def _asked(library: Any, major: int) -> tuple[Device, ...]:
    number = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(number))
    found = []
    for k in range(number.value):
        name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
        library.cuDeviceGetName(name, 256, k)
        library.cuDeviceTotalMem_v2(ctypes.byref(memory), k)
        capability = _attribute(library, k, _MAJOR), _attribute(library, k, _MINOR)
        processors = _attribute(library, k, _MULTIPROCESSORS)
        found.append(Device(k, name.value.decode(errors="replace"), capability, memory.value, processors))
    if not found:
        raise _UnavailableError("the NVIDIA driver finds no device: look with nvidia-smi")
    least = LEAST_CAPABILITY.get(major, (0, 0))
    if all(device.capability < least for device in found):
        raise _UnavailableError(
            f"{found[0].in_words()} is older than CUDA {major} makes code for ({least[0]}.{least[1]} or later): "
            "install an earlier version, pip install 'numba-cuda[cu12]'"
        )
    return tuple(found)


def _attribute(library: Any, device: int, which: int) -> int:
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    return value.value


def _library() -> Any:
    """The driver's own library, or None."""
    for name in ("libcuda.so.1", "nvcuda.dll", "libcuda.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _version_of(library: Any) -> int | None:
    """1000 * major + 10 * minor of the CUDA version that a driver supports."""
    version = ctypes.c_int()
    return version.value if library.cuDriverGetVersion(ctypes.byref(version)) == 0 else None


def _words(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _package_major() -> int:
    from importlib import metadata  # only here: it takes longer to import than all the rest

    return int(metadata.version("cuda-bindings").split(".")[0])


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it lies in
        return False
