"""The way from Python into a kernel, without numba where the machine code is on disk.

A kernel is compiled for the kinds of its arguments: what a flat array holds, whole number, number, None, and tuples of
them. It is one C function of one address, of the arguments in slots of 8 bytes; to call it takes a third of a
microsecond, and to load it some milliseconds.
"""

import ctypes
import importlib
import os
from collections.abc import Callable
from functools import cache
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from . import ending, kept

_KINDS = {np.dtype(t): k for t, k in ((np.float16, "f2"), (np.float32, "f4"), (np.float64, "f8"), (np.bool_, "u1"))}
_KINDS |= {np.dtype(f"{sign}{size}"): f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8)}
_KINDS |= {np.dtype([(name, np.uint16)], align=True): kind for name, kind in (("half", "f2"), ("bfloat", "b2"))}
_NUMBERS = {int: "i", float: "d", bool: "b"}
TWO = Struct("=qq").pack


class Entry(NamedTuple):
    """The C function of a kernel for some kinds of arguments, and what packs their values into its slots."""

    function: Callable[[bytes], int]
    pack: Callable[..., bytes]
    address: int

    def at_once(self) -> Callable[[bytes], int]:
        """The function for work that is done before another thread could have taken the GIL: it keeps that."""
        return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_char_p)(self.address)


class Kernel:
    """A kernel by its name, called like the Python function that it is made from; arrays are flat and contiguous."""

    def __init__(self, room: str, name: str) -> None:
        self.room, self.name = room, name
        self.loaded: dict[tuple[Any, ...], Entry] = {}  # by kinds of arguments
        self.compiled = 0  # how many of them were not on disk

    def __call__(self, *args: Any) -> int:
        """Do it; what the kernel returns, as a whole number."""
        if interpreted():
            return int(self._python()(*args) or 0)
        kinds, values = _described(args)
        entry = self.entry(kinds)
        return entry.function(entry.pack(*values))

    def over(self, *rest: Any) -> Callable[[int, int], None]:
        """The kernel as a function of its first two arguments, a range of items; the others stay."""
        if interpreted():
            return lambda lo, hi: done(self._python()(lo, hi, *rest))
        kinds, values = _described((0, 0, *rest))
        entry = self.entry(kinds)
        function, behind = entry.function, entry.pack(*values)[16:]

        def call(lo: int, hi: int, alive: Any = rest) -> None:
            done(function(TWO(lo, hi) + behind))

        return call

    def slots(self, *args: Any) -> tuple[Entry, list[Any]]:
        """What takes these arguments, and the values of their slots."""
        kinds, values = _described(args)
        return self.entry(kinds), values

    def entry(self, kinds: tuple[Any, ...]) -> Entry:
        """What takes arguments of some kinds: "i", "d" or "b" for a number, what an array holds, None, and tuples."""
        found = self.loaded.get(kinds)
        if found is None:
            found = self.loaded[kinds] = _made_to_the_end(self, kinds)
        return found

    def _python(self) -> Any:
        return getattr(importlib.import_module(f"numbabn.kernels.{self.room}"), self.name)


def _made(kernel: Kernel, kinds: tuple[Any, ...]) -> Entry:
    name = f"{kernel.room}-{kernel.name}-{kept.named(kinds, kept.stamp(), _machine())}.o"
    code = kept.read(name)
    if code is None:
        build = importlib.import_module("numbabn.kernels.build")
        code = build.built(kernel.room, kernel.name, kinds)
        kernel.compiled += 1
        kept.write(name, code)
    with ending.lock:
        address = _loaded(code)
    slots = "".join(_slots(kinds))
    return Entry(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_char_p)(address), Struct(f"={slots}").pack, address)


_made_to_the_end = ending.to_the_end(_made)


def _slots(kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        if isinstance(kind, tuple):
            yield from _slots(kind[1:])
        elif kind is not None:
            yield "d" if kind == "d" else "q"


def _described(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Any]]:
    """The kinds of arguments, and the values of their slots."""
    values: list[Any] = []
    return tuple([_kind(arg, values) for arg in args]), values


def _kind(arg: Any, values: list[Any]) -> Any:
    if arg is None:
        return None
    cls = type(arg)
    if cls is np.ndarray:
        values.append(address(arg))
        return _KINDS[arg.dtype]
    number = _NUMBERS.get(cls)
    if number is not None:
        values.append(arg)
        return number
    if isinstance(arg, tuple):
        return (cls.__name__ if cls is not tuple else "", *[_kind(field, values) for field in arg])
    values.append(float(arg) if isinstance(arg, np.floating) else int(arg))
    return "d" if isinstance(arg, np.floating) else "i"


def address(array: np.ndarray[Any, Any]) -> int:
    """Where the elements of an array begin."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError, BufferError):  # read-only, empty, or of a type that buffers cannot name
        return int(array.__array_interface__["data"][0])


def done(result: Any) -> None:
    """Raise what a kernel's result tells."""
    if not result:
        raise MemoryError("no memory for what a kernel keeps beside the arrays; fewer threads need less of it")


@cache
def interpreted() -> bool:
    """Whether kernels are run as the Python that they are written in."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


# Loading ---------------------------------------------------------------------------------------------

_engines: list[Any] = []  # they own the code


@cache
def _machine() -> tuple[Any, ...]:
    """What machine code is made for."""
    llvm = importlib.import_module("llvmlite.binding")
    chosen = [os.environ.get(f"NUMBA_{name}") for name in ("CPU_NAME", "CPU_FEATURES", "OPT")]
    return llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), chosen


@cache
def _target() -> Any:
    llvm = importlib.import_module("llvmlite.binding")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple())


def _loaded(code: bytes) -> int:
    """Load an object, and tell where its function is."""
    llvm = importlib.import_module("llvmlite.binding")
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target().create_target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address("numbabn_entry"))
