"""NumPy arrays as a kernel finds them: objects of the interpreter, by their addresses, and kernels by theirs.

An array object begins with what every object has, and goes on with the address of its elements: part of NumPy's C
interface, which compiled extensions rely on. To read it here takes nothing; to ask for it in Python, a quarter of a
microsecond for each array.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
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


# Elements of any type, by addresses that may be unaligned --------------------------------------------


def _moving(size, turned):
    """(address to, address from): an element of some bytes, as it is or with these the other way round."""
    kind = ir.IntType(8 * size)

    @intrinsic
    def move(typingctx, out, source):
        def codegen(context, builder, signature, args):
            to, of = (builder.inttoptr(arg, kind.as_pointer()) for arg in args)
            value = builder.load(of, align=1)
            if turned:
                value = builder.bswap(value)
            builder.store(value, to, align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return move


move_1, move_2, move_4, move_8 = (_moving(size, False) for size in (1, 2, 4, 8))
turn_2, turn_4, turn_8 = (_moving(size, True) for size in (2, 4, 8))


@intrinsic
def move_many(typingctx, out, source, n):
    """Copy n bytes between addresses."""

    def codegen(context, builder, signature, args):
        to, of = (builder.inttoptr(arg, BYTE.as_pointer()) for arg in args[:2])
        cgutils.raw_memcpy(builder, to, of, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen
