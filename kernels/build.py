"""From a kernel's Python to machine code that needs neither numba nor Python: an object with one C function.

The function takes one address: of a row of 8-byte slots with the arguments, tuples flattened, nothing for None. It
returns the truth or the whole number that the kernel returns, as a 64-bit integer.
"""

import importlib
import re
from contextlib import contextmanager
from functools import cache

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config, fastmathpass
from numba.core.codegen import AOTCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext
from numba.core.registry import cpu_target
from numba.cpython import cmathimpl, mathimpl
from numba.np import npyimpl

from . import forms
from .flat import Flat

SLOT = ir.IntType(64)
NUMBERS = {"i": types.int64, "d": types.float64, "b": types.boolean}
SYMBOL = "numbabn_entry"
# What the C library of the process has, and no more, may be asked for by code that is kept on disk.
KNOWN = {
    *("aligned_alloc", "free", "memcpy", "memmove", "memset", "sched_yield", "madvise"),
    *("exp", "expm1", "log1p", "tanh", "erfc", "erf", "exp2", "log", "pow", "sqrt", "fma"),
}


def built(room, name, kinds):
    """The object of a kernel for arguments of some kinds, as bytes; SYMBOL names its function."""
    with global_compiler_lock:
        return _made(room, name, kinds, "emit_object")


def listing(room, name, kinds):
    """The same as a text: the assembly of a kernel, to be read."""
    with global_compiler_lock:
        return _made(room, name, kinds, "emit_assembly")


def numba_type(kind):
    """The type that numba compiles for a kind of argument, as `entry.Kernel` tells it."""
    if kind is None:
        return types.none
    if isinstance(kind, str):
        return NUMBERS.get(kind) or Flat(kind)
    name, *fields = kind
    inside = [numba_type(field) for field in fields]
    if not name:
        return types.Tuple(inside)
    cls = getattr(forms, name)
    if len(set(inside)) == 1:
        return types.NamedUniTuple(inside[0], len(inside), cls)
    return types.NamedTuple(inside, cls)


class _Library(AOTCodeLibrary):
    """The code of one function as it is: it is linked, optimized and verified once, with all that a kernel calls."""

    def add_ir_module(self, ir_module):
        self._final_module.link_in(llvm.parse_assembly(cgutils.normalize_ir_text(str(ir_module))))

    def finalize(self):
        self._final_module.data_layout = self._codegen._data_layout
        for function in self._final_module.functions:
            if not function.is_declaration:
                function.linkage = "linkonce_odr"  # dropped where it has become part of its callers
        self._finalized = True

    def _get_module_for_linking(self):
        self._ensure_finalized()
        return self._final_module

    def with_all_it_calls(self):
        """The libraries that it needs, itself among them."""
        found, sought = {self: None}, [self]
        while sought:
            for library in sought.pop()._linking_libraries:
                if library not in found:
                    found[library] = None
                    sought.append(library)
        return list(found)


class _Codegen(JITCPUCodegen):
    """Makes LLVM's code for this machine, and machine code of kernels alone: nothing calls their parts."""

    _library_class = _Library

    def _customize_tm_features(self):
        # vcvtph2pd, float16 to float64 in one instruction, takes half as long again as the two by float32.
        return super()._customize_tm_features().replace("+avx512fp16", "-avx512fp16")

    def _add_module(self, module):
        pass


@cache
def _codegen():
    return _Codegen("numbabn")


class _Context(CPUContext):
    """numba's context as kernels need it: without what Python would need of a function, arrays, or numba's own memory.

    The implementations of all that would be imported for the first kernel, and SciPy with them.
    """

    def codegen(self):
        return _codegen()

    def get_executable(self, library, fndesc, env):
        return object().__sizeof__  # numba knows a function by one of Python, a new one each

    def load_additional_registries(self):
        for name in ("builtins", "iterators", "numbers", "rangeobj", "slicing", "tupleobj"):
            importlib.import_module(f"numba.cpython.{name}")
        # In numba's order, as intrinsics are registered in the first of them, and what others have installed already.
        for registry in (cmathimpl.registry, mathimpl.registry, npyimpl.registry, *self._registries):
            self.install_registry(registry)

    def post_lowering(self, module, library):
        if self.fastmath:
            fastmathpass.rewrite_module(module, self.fastmath)


@contextmanager
def _unoptimized(context):
    """Helpers as they are: each would be optimized by itself, and again in all that call it."""
    before = type(context), config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE
    config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE = type(config.OPT)(0), 0, 0
    context.__class__ = _Context
    try:
        yield
    finally:
        context.__class__, config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE = before


def _made(room, name, kinds, emit):
    """What the target machine emits of a kernel with its entry; nothing of LLVM is left when it returns."""
    kernel = getattr(importlib.import_module(f"numbabn.kernels.{room}"), name)
    args = tuple(map(numba_type, kinds))
    context, codegen = cpu_target.target_context, _codegen()  # made now: it keeps how far it is to optimize
    with _unoptimized(context):
        kernel.compile(args)
    compiled = kernel.overloads[args]
    library = codegen.create_library(SYMBOL)
    module = library.create_ir_module(SYMBOL)
    function = ir.Function(module, ir.FunctionType(SLOT, [SLOT.as_pointer()]), SYMBOL)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    slots = iter(range(1 << 30))
    values = [_value(context, builder, function.args[0], slots, arg) for arg in args]
    callee = context.declare_function(module, compiled.fndesc)
    result = types.unliteral(compiled.signature.return_type)
    _, value = context.call_conv.call_function(builder, callee, result, args, values)
    if result == types.boolean:
        value = builder.zext(value, SLOT)
    builder.ret(value if isinstance(result, types.Integer | types.Boolean) else ir.Constant(SLOT, 0))
    library.add_ir_module(module)
    for one in compiled.library.with_all_it_calls():
        library._final_module.link_in(one._get_module_for_linking(), preserve=True)
    library._optimize_final_module()
    library._final_module.verify()
    unknown = _asked_for(str(library._final_module)) - KNOWN
    if unknown:
        raise RuntimeError(f"{compiled.fndesc.qualname} needs {', '.join(sorted(unknown))}, which no other process has")
    return getattr(codegen._tm, emit)(library._final_module)


def _value(context, builder, row, slots, kind):
    """The LLVM value of an argument, from the next slots of a row."""
    if isinstance(kind, types.NoneType):
        return context.get_dummy_value()
    if isinstance(kind, types.BaseTuple):
        return context.make_tuple(builder, kind, [_value(context, builder, row, slots, k) for k in kind.types])
    slot = builder.load(builder.gep(row, [ir.Constant(SLOT, next(slots))]))
    if isinstance(kind, Flat):
        return builder.inttoptr(slot, context.get_value_type(kind))
    if kind == types.float64:
        return builder.bitcast(slot, ir.DoubleType())
    return builder.trunc(slot, ir.IntType(1)) if kind == types.boolean else slot


def _asked_for(text):
    """Names that a module declares and does not define, without LLVM's own."""
    return {name for name in re.findall(r'^declare [^@]*@"?([\w.$]+)', text, re.M) if not name.startswith("llvm.")}
