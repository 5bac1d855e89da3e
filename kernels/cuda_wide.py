"""CUDA: four neighbouring values of an array at once, by one load or store of up to 16 bytes.

`room` is memory of a thread, which the compiler keeps in registers; values lie in it from `at` on. The names with "one"
take a single value in the same way.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .half import bfloat_to_float, double_to_bfloat, double_to_half, half_to_float
from .jit import ALONE, helper
from .memory import field, load, store

WIDE = 4  # values
MOST = 16  # bytes of one load or store


def element_of(array):
    """(LLVM's type of an element as it lies in memory, numba's type of what is loaded of it, its bytes)."""
    if field(array):
        return ir.IntType(16), types.uint16, 2
    size = array.dtype.bitwidth // 8
    if isinstance(array.dtype, types.Float):
        return (ir.FloatType() if size == 4 else ir.DoubleType()), array.dtype, size
    return ir.IntType(8 * size), array.dtype, size


def _place(context, builder, kind, array, i):
    """(pointer to what lies from index i on, as one number or a vector; LLVM's type of an element; its bits; align).

    The caller promises that i is a multiple of four, and the memory begins at a multiple of four elements.
    """
    element, _, size = element_of(kind)
    data = context.make_array(kind)(context, builder, value=array).data
    first = builder.gep(builder.bitcast(data, element.as_pointer()), [i])
    # What is shorter than a load can be is one number: a vector of it would be loaded in halves.
    several = ir.VectorType(element, WIDE) if 2 * WIDE * size > MOST else ir.IntType(8 * WIDE * size)
    return builder.bitcast(first, several.as_pointer()), element, 8 * size, min(MOST, WIDE * size)


@intrinsic
def four_of(typingctx, x, i):
    """The four elements of an array from an index on, as they lie there."""

    def codegen(context, builder, signature, args):
        pointer, element, bits, align = _place(context, builder, signature.args[0], *args)
        several = builder.load(pointer, align=align)
        if isinstance(several.type, ir.VectorType):
            values = [builder.extract_element(several, ir.Constant(ir.IntType(32), k)) for k in range(WIDE)]
        else:
            places = [ir.Constant(several.type, bits * k) for k in range(WIDE)]
            values = [builder.trunc(builder.lshr(several, place), element) for place in places]
        return cgutils.pack_array(builder, values)

    return types.UniTuple(element_of(x)[1], WIDE)(x, types.int64), codegen


@intrinsic
def store_four(typingctx, out, i, a, b, c, d):
    """Write four elements, as they are to lie there, from an index on."""

    def codegen(context, builder, signature, args):
        pointer, _, bits, align = _place(context, builder, signature.args[0], *args[:2])
        kind = pointer.type.pointee
        several = ir.Constant(kind, ir.Undefined if isinstance(kind, ir.VectorType) else 0)
        for k, value in enumerate(args[2:]):
            if isinstance(kind, ir.VectorType):
                several = builder.insert_element(several, value, ir.Constant(ir.IntType(32), k))
            else:
                moved = builder.shl(builder.zext(value, kind), ir.Constant(kind, bits * k))
                several = builder.or_(several, moved)
        builder.store(several, pointer, align=align)
        return context.get_dummy_value()

    each = element_of(out)[1]
    return types.void(out, types.int64, each, each, each, each), codegen


@intrinsic
def element(typingctx, x, i):
    """The element of an array at an index that is not negative."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return x.dtype(x, types.int64), codegen


def number_at(x, i):
    """A number of a vector of float64, at an index that is not negative: without looking whether it is."""
    return x[i]


@overload(number_at, jit_options=ALONE)
def _number_at(x, i):
    return lambda x, i: element(x, i)


@intrinsic
def quotient(typingctx, a, b):
    """a // b of whole numbers, a not negative and b positive."""

    def codegen(context, builder, signature, args):
        return builder.udiv(*args)

    return types.int64(types.int64, types.int64), codegen


def divided(a, b):
    """divmod(a, b) of whole numbers, a not negative and b positive: without looking for a sign, and for zero."""
    return divmod(a, b)


@overload(divided, jit_options=ALONE)
def _divided(a, b):
    def by_instruction(a, b):
        q = quotient(a, b)
        return q, a - q * b

    return by_instruction


@helper
def take_one(x, i, room, at):
    """The value of x at an index, into the room."""
    room[at] = load(x, i)


@helper
def put_one(out, i, room, at):
    """The value of the room, into `out` at an index."""
    store(out, i, room[at])


def take_four(x, i, room, at):
    """The values of x at four indices from i on, a multiple of four, into the room as float64."""
    for k in range(WIDE):
        room[at + k] = load(x, i + k)


def put_four(out, i, room, at):
    """Four values of the room, rounded once, into `out` from index i on, a multiple of four."""
    for k in range(WIDE):
        store(out, i + k, room[at + k])


@overload(take_four, jit_options=ALONE)
def _take_four(x, i, room, at):
    if field(x) == "half":

        def halves(x, i, room, at):
            a, b, c, d = four_of(x, i)
            room[at], room[at + 1] = half_to_float(a), half_to_float(b)
            room[at + 2], room[at + 3] = half_to_float(c), half_to_float(d)

        return halves
    if field(x) == "bfloat":

        def bfloats(x, i, room, at):
            a, b, c, d = four_of(x, i)
            room[at], room[at + 1] = bfloat_to_float(a), bfloat_to_float(b)
            room[at + 2], room[at + 3] = bfloat_to_float(c), bfloat_to_float(d)

        return bfloats

    def natives(x, i, room, at):
        room[at], room[at + 1], room[at + 2], room[at + 3] = four_of(x, i)

    return natives


@overload(put_four, jit_options=ALONE)
def _put_four(out, i, room, at):
    if field(out) == "half":

        def halves(out, i, room, at):
            store_four(
                out, i, double_to_half(room[at]), double_to_half(room[at + 1]),
                double_to_half(room[at + 2]), double_to_half(room[at + 3]),
            )  # fmt: skip

        return halves
    if field(out) == "bfloat":

        def bfloats(out, i, room, at):
            store_four(
                out, i, double_to_bfloat(room[at]), double_to_bfloat(room[at + 1]),
                double_to_bfloat(room[at + 2]), double_to_bfloat(room[at + 3]),
            )  # fmt: skip

        return bfloats

    kind = element_of(out)[1]

    def natives(out, i, room, at):
        store_four(out, i, kind(room[at]), kind(room[at + 1]), kind(room[at + 2]), kind(room[at + 3]))

    return natives
