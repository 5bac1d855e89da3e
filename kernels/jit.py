"""The only place with numba options: how the functions of this room are compiled."""

import functools
from collections.abc import Callable
from typing import Any

from numba import njit, types
from numba.extending import overload

# NaN and infinity must come through, so never "nnan" or "ninf"; and sums keep their order, so never "reassoc".
_CONTRACT = {"contract"}


def _compiled(function: Callable[..., Any], fastmath: set[str], **options: Any) -> Any:
    # Called by compiled code alone: what Python would need of it costs a third of the compile time.
    apart = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return njit(nogil=True, error_model="numpy", fastmath=fastmath, **apart, **options)(function)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for calls through `entry`, in IEEE order; only ``a * b + c`` may become one rounding."""
    return _compiled(function, _CONTRACT)


def uncontracted(function: Callable[..., Any]) -> Any:
    """Compile like `kernel`, and round after each operation, as NumPy does."""
    return _compiled(function, set())


def helper(function: Callable[..., Any]) -> Any:
    """Compile like `kernel`, for calls from kernels alone."""
    return _compiled(function, _CONTRACT)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile like `helper`, into its callers: for what is called in an innermost loop."""
    return _compiled(function, _CONTRACT, forceinline=True)


def otherwise(absent: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Do something else where the first argument is None, by its type: both may give different types."""

    def decorated(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def chosen(first: Any, *rest: Any) -> Any:
            return (absent if first is None else function)(first, *rest)

        @overload(chosen, strict=False, jit_options={"fastmath": _CONTRACT, "error_model": "numpy"})
        def by_type(*args: Any) -> Any:
            return absent if isinstance(args[0], types.NoneType) else function

        return chosen

    return decorated


def maybe(function: Callable[..., Any]) -> Any:
    """Give None where the first argument is None: numba would make one optional type of both."""
    return otherwise(lambda *args: None)(function)
