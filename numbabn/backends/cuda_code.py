"""From a CUDA kernel and the types of its arguments to machine code, which is kept on disk beside the CPU's kernels.

To compile one takes a second, and every process would begin anew.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
from functools import cache
from typing import Any

from .cuts import kernels

Capability = tuple[int, int]
PACKAGES = ("numbabn", "numba-cuda", "cuda-bindings", "nvidia-nvjitlink", "nvidia-nvvm")


def machine_code(kernel: Any, args: tuple[Any, ...], capability: Capability) -> tuple[bytes, str]:
    """(machine code, the name of the kernel in it) for a compute capability; args: numba's types."""
    kept, at = kernels("kept"), _named(kernel, args, capability)
    found = kept.read(at)
    if found is None:
        text = compiled(kernel, args, capability)
        found = entry(text).encode() + b"\n" + assembled(text, capability)
        kept.write(at, found)
    name, code = found.split(b"\n", 1)
    return code, name.decode()


def compiled(kernel: Any, args: tuple[Any, ...], capability: Capability) -> str:
    """The PTX of a kernel for a compute capability; args: numba's types."""
    from numba import cuda, types

    how = {"device": False, "abi": "numba", "cc": capability, "output": "ptx"}
    code, _ = cuda.compile(kernel.py_func, types.void(*args), **how)  # type: ignore[attr-defined]
    return code if isinstance(code, str) else str(code.decode())


def entry(code: str) -> str:
    """The name of the one kernel in some PTX."""
    found = re.search(r"\.visible \.entry (\w+)", code)
    assert found is not None
    return found[1]


def assembled(code: str, capability: Capability) -> bytes:
    """The machine code of some PTX: a driver takes that of any release of its major version, but PTX of none later."""
    from cuda.bindings import nvjitlink

    major, minor = capability
    text = code.encode() + b"\0"
    handle = nvjitlink.create(1, [f"-arch=sm_{major}{minor}"])
    try:
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, text, len(text), "kernel")
        nvjitlink.complete(handle)
        binary = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, binary)
    finally:
        nvjitlink.destroy(handle)
    return bytes(binary)


def _named(kernel: Any, args: tuple[Any, ...], capability: Capability) -> str:
    """The file for a kernel as it is now, for these types and packages."""
    function, kept = kernel.py_func, kernels("kept")
    types = [repr(a) for a in args]
    what = kept.named(
        function.__module__, function.__qualname__, _sizes(function), types, capability, kept.stamp(), _versions()
    )
    return f"{function.__name__}-sm_{capability[0]}{capability[1]}-{what}.cubin"


def _sizes(function: Any) -> list[int]:
    """The numbers that a function was made for, and those of the functions that it was given."""
    inside = [c.cell_contents for c in function.__closure__ or ()]
    own = [value for value in inside if isinstance(value, int)]
    return sum((_sizes(f.py_func) for f in inside if hasattr(f, "py_func")), own)


@cache
def _versions() -> tuple[str, ...]:
    """What else compiles the kernels of a device."""
    versions: list[str] = [platform.python_version()]
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return tuple(versions)
