"""The only place with numba options, and the kernel cache."""

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import overload

from .compiling import to_the_end

# NaN and infinity must come through, so never "nnan" or "ninf".
_CONTRACT = {"contract"}
# A sum over one long run only vectorizes if its order may change: fixed at compile time.
_REASSOCIATE = {"contract", "reassoc", "nsz"}


def _room_stamp() -> tuple[tuple[str, int, int], ...]:
    """Name, modification time and size of every file of this room."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in files)


class _RoomCache(FunctionCache):
    """numba's on-disk cache, made to notice edits in any kernel file and never to fail a call.

    numba stamps an entry with the file of the kernel alone, which leaves it stale when a function
    that was inlined from another file changes; and a cache that cannot be read or written is an
    exception at the first call.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=_room_stamp(),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a truncated or foreign file: begin anew, and compile
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError, EOFError):  # read-only, full, or a broken index: go on uncached
            super().save_overload(sig, data)


def _compiled(function: Callable[..., Any], fastmath: set[str], **options: Any) -> Any:
    # Called from kernels only: to be called from Python, or to be kept on disk, costs a third of the compile time.
    apart = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return njit(nogil=True, error_model="numpy", fastmath=fastmath, **apart, **options)(function)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for a call from Python, without the GIL, in IEEE order; only ``a * b + c`` may become one rounding."""
    return _kept(function, _CONTRACT)


def uncontracted(function: Callable[..., Any]) -> Any:
    """Compile like `kernel`, and round after each operation, as NumPy does."""
    return _kept(function, set())


def _kept(function: Callable[..., Any], fastmath: set[str]) -> Any:
    dispatcher = njit(nogil=True, error_model="numpy", fastmath=fastmath, no_cfunc_wrapper=True)(function)
    if os.environ.get("NUMBABN_CACHE", "1") != "0" and hasattr(dispatcher, "_cache"):
        with contextlib.suppress(RuntimeError, OSError):  # no writable place for a cache anywhere
            dispatcher._cache = _RoomCache(function)
    if hasattr(dispatcher, "compile"):
        dispatcher.compile = to_the_end(dispatcher.compile)
    return dispatcher


def helper(function: Callable[..., Any]) -> Any:
    """Compile like `kernel`, for calls from kernels alone."""
    return _compiled(function, _CONTRACT)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile like `helper`, and put the compiled loop into its caller, with its checks that arrays lie apart."""
    return _compiled(function, _CONTRACT, forceinline=True)


def pasted(function: Callable[..., Any]) -> Any:
    """Put the source of a function into its caller before it is compiled, where two arrays may be seen to be one."""
    return _compiled(function, _CONTRACT, inline="always")


def reduction(function: Callable[..., Any]) -> Any:
    """Compile like `helper`, and let the compiler split one long sum into vector lanes."""
    return _compiled(function, _REASSOCIATE)


def maybe(function: Callable[..., Any]) -> Any:
    """Give None where the first argument is None, by its type: numba would make one optional type of both."""

    @functools.wraps(function)
    def or_none(first: Any, *rest: Any) -> Any:
        return None if first is None else function(first, *rest)

    @overload(or_none, strict=False, jit_options={"fastmath": _CONTRACT})
    def by_type(*args: Any) -> Any:
        return (lambda *args: None) if isinstance(args[0], types.NoneType) else function

    return or_none
