"""From a CUDA kernel and the types of its arguments to machine code, which is kept on disk beside the CPU's kernels.

To compile one takes a second, and every process would begin anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import os
import platform
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

Capability = tuple[int, int]
PACKAGES = ("numbabn", "numba", "numba-cuda", "llvmlite", "cuda-bindings", "nvidia-nvjitlink", "nvidia-nvvm")


def machine_code(kernel: Any, args: tuple[Any, ...], capability: Capability) -> tuple[bytes, str]:
    """(machine code, the name of the kernel in it) for a compute capability; args: numba's types."""
    at = _place_of(kernel, args, capability)
    kept = None if at is None else _read(at)
    if kept is not None:
        return kept
    text = compiled(kernel, args, capability)
    made = assembled(text, capability), entry(text)
    if at is not None:
        _write(at, *made)
    return made


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


def _place_of(kernel: Any, args: tuple[Any, ...], capability: Capability) -> Path | None:
    """The file for a kernel as it is now, for these types and packages; None where nothing is kept."""
    folder = _folder(kernel.py_func)
    if folder is None:
        return None
    function = kernel.py_func
    inside = [c.cell_contents for c in function.__closure__ or ()]
    sizes = [value for value in inside if isinstance(value, int)]
    what = (function.__module__, function.__qualname__, sizes, [repr(a) for a in args], capability, _stamp())
    name = hashlib.sha256(repr(what).encode()).hexdigest()
    return folder / f"{function.__name__}-sm_{capability[0]}{capability[1]}-{name[:32]}.cubin"


def _folder(function: Any) -> Path | None:
    """Where numba would keep a kernel of the CPU; None where that is switched off, or nowhere."""
    if os.environ.get("NUMBABN_CACHE", "1") == "0":
        return None
    from numba.core.caching import FunctionCache

    find: Any = FunctionCache
    with contextlib.suppress(RuntimeError, OSError):
        return Path(find(function).cache_path)
    return None


@cache
def _stamp() -> tuple[Any, ...]:
    """The kernels' sources, and the versions of what compiles them."""
    versions: list[str] = [platform.python_version()]
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    room = Path(importlib.import_module("numbabn.kernels").__file__ or "").parent
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(room.glob("*.py")))).hexdigest()
    return sources, *versions


def _read(at: Path) -> tuple[bytes, str] | None:
    """What was kept; None where there is nothing, or not all of it."""
    try:
        digest, name, binary = at.read_bytes().split(b"\n", 2)
    except (OSError, ValueError):
        return None
    return (binary, name.decode()) if digest == _digest(name, binary) else None


def _write(at: Path, binary: bytes, name: str) -> None:
    """Keep machine code; other processes see all of it or nothing."""
    with contextlib.suppress(OSError):  # read-only, full: go on without
        at.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=at.parent, delete=False) as file:
            file.write(b"\n".join((_digest(name.encode(), binary), name.encode(), binary)))
        os.replace(file.name, at)


def _digest(name: bytes, binary: bytes) -> bytes:
    return hashlib.sha256(name + b"\n" + binary).hexdigest().encode()
