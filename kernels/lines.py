"""Lines, by which memory is read and written: where they begin, asked for ahead of time, written past the cache."""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .flat import BYTE, LINE, place_of
from .operation import operation
from .vector import INT32, WORD


def line_of(x):
    """How many elements of flat memory make a line."""
    return LINE // x.itemsize


def gap(x):
    """How many elements of flat memory come before the next line begins; 0 where one begins."""
    return -x.__array_interface__["data"][0] % LINE // x.itemsize


def touch(x, i):
    """Ask for the line with element i ahead of time; it may lie beyond the end."""


def settle():
    """Wait until what was stored past the cache can be seen by others."""


@operation(line_of)
def _line_of(x):
    elements = LINE // x.size
    return types.intp(x), lambda context, builder, signature, args: ir.Constant(WORD, elements)


@operation(gap)
def _gap(x):
    def codegen(context, builder, signature, args):
        behind = builder.neg(builder.ptrtoint(args[0], WORD))
        return builder.udiv(
            builder.and_(behind, ir.Constant(WORD, LINE - 1)), ir.Constant(WORD, signature.args[0].size)
        )

    return types.intp(x), codegen


@operation(touch)
def _touch(x, i):
    def codegen(context, builder, signature, args):
        place = builder.bitcast(place_of(builder, signature.args[0], *args), BYTE.as_pointer())
        read, near, data = (ir.Constant(INT32, k) for k in (0, 3, 1))
        kind = ir.FunctionType(ir.VoidType(), [place.type, INT32, INT32, INT32])
        builder.call(
            cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0"), [place, read, near, data]
        )
        return context.get_dummy_value()

    return types.void(x, types.intp), codegen


@operation(settle)
def _settle():
    def codegen(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen
