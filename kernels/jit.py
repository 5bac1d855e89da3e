"""How the functions of this room are compiled: the options of numba (`build.py` has those of LLVM)."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numba
from numba import njit, types
from numba.core import typed_passes, untyped_passes
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.extending import overload

from .operation import argument, nothing_at_all, operation

# NaN and infinity must come through, so never "nnan" or "ninf"; and sums keep their order, so never "reassoc".
_CONTRACT = {"contract"}
# Called by compiled code alone: what Python would need of a function costs a third of the compile time.
ALONE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_BY_TYPE = {"fastmath": _CONTRACT, "error_model": "numpy", **ALONE}


_PASSES = (
    (untyped_passes, "TranslateByteCode FixupArgs IRProcessing RewriteSemanticConstants DeadBranchPrune"),
    (untyped_passes, "GenericRewrites ReconstructSSA"),
    (typed_passes, "NopythonTypeInference PreLowerStripPhis IRLegalization NativeLowering NoPythonBackend"),
)


class _Compiler(CompilerBase):
    """numba's compiler without its passes for closures, array expressions, parallel loops and annotations."""

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("numbabn")
        for room, names in _PASSES:
            for name in names.split():
                passes.add_pass(getattr(room, name), name)
        passes.finalize()
        return [passes]


def _compiled(function: Callable[..., Any], fastmath: set[str], **options: Any) -> Any:
    return njit(pipeline_class=_Compiler, nogil=True, error_model="numpy", fastmath=fastmath, **ALONE, **options)(
        function
    )


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


def otherwise(absent: Any) -> Callable[[Callable[..., Any]], Any]:
    """Do something else where the first argument is None, by its type: both may give different types.

    absent: the number or the None that it gives then, the name of the argument that it gives, or what it does.
    """

    def decorated(function: Callable[..., Any]) -> Any:
        if not callable(absent):
            return _given(absent, function)

        @functools.wraps(function)
        def chosen(first: Any, *rest: Any) -> Any:
            return (absent if first is None else function)(first, *rest)

        @overload(chosen, strict=False, jit_options=_BY_TYPE)
        def by_type(*args: Any) -> Any:
            return absent if isinstance(args[0], types.NoneType) else function

        return chosen

    return decorated


def _given(absent: Any, function: Callable[..., Any]) -> Any:
    """`otherwise` for what needs nothing to be compiled."""
    place = list(inspect.signature(function).parameters).index(absent) if isinstance(absent, str) else None

    @functools.wraps(function)
    def chosen(*args: Any) -> Any:
        if args[0] is not None:
            return function(*args)
        return absent if place is None else args[place]

    @operation(chosen)
    def without(*args: Any) -> Any:
        if not isinstance(args[0], types.NoneType):
            return None
        kind = args[place] if place is not None else types.none if absent is None else numba.typeof(absent)

        def constant(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return context.get_constant(kind, absent)

        if place is not None:
            return kind(*args), argument(place)
        return kind(*args), nothing_at_all if absent is None else constant

    @overload(chosen, strict=False, jit_options=_BY_TYPE)
    def with_it(*args: Any) -> Any:
        return None if isinstance(args[0], types.NoneType) else function

    return chosen


def maybe(function: Callable[..., Any]) -> Any:
    """Give None where the first argument is None: numba would make one optional type of both."""
    return _given(None, function)
