"""NumPy arrays as a kernel finds them: objects of the interpreter, by their addresses, and kernels by theirs.

An array object begins with what every object has, and goes on with the address of its elements: part of NumPy's C
interface, which compiled extensions rely on. To read it here takes nothing; to ask for it in Python, a quarter of a
microsecond for each array.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .flat import BYTE, Flat
from .vector import WORD


@intrinsic
def address_of(typingctx, flat):
    """The address of flat memory, as a whole number."""
    return types.int64(flat), lambda context, builder, signature, args: builder.ptrtoint(args[0], WORD)


def _memory_at(kind):
    flat = Flat(kind)

    @intrinsic
    def at_address(typingctx, address):
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], BYTE.as_pointer())

        return flat(types.int64), codegen

    return at_address


words_at, singles_at, doubles_at = _memory_at("i8"), _memory_at("f4"), _memory_at("f8")


@intrinsic
def call(typingctx, function, slots):
    """Call the C function of a kernel (see `build.py`) with a row of slots; what it returns."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(WORD, [WORD.as_pointer()])
        function = builder.inttoptr(args[0], kind.as_pointer())
        return builder.call(function, [builder.bitcast(args[1], WORD.as_pointer())])

    return types.int64(types.int64, slots), codegen
