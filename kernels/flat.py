"""Flat memory for the compiler: the type of an address that says what lies there, and LLVM's loads and stores of it."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, register_model

from .forms import LANES
from .vector import DOUBLE, INT32, mask_of

LINE = 64  # bytes that memory is read and written by
BYTE = ir.IntType(8)
ELEMENTS = {
    "f2": ir.HalfType(),
    "b2": ir.IntType(16),
    "f4": ir.FloatType(),
    "f8": DOUBLE,
    **{f"{sign}{size}": ir.IntType(8 * size) for sign in "iu" for size in (1, 2, 4, 8)},
}


class Flat(types.Type):
    """Memory that holds elements of a kind: the keys of `ELEMENTS`, b2 for bfloat16."""

    def __init__(self, kind):
        self.kind, self.element, self.size = kind, ELEMENTS[kind], int(kind[1:])
        super().__init__(f"Flat({kind})")


@register_model(Flat)
class _FlatModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, BYTE.as_pointer())


def place_of(builder, flat, pointer, i, element=None):
    """The LLVM pointer to element i."""
    whole = builder.bitcast(pointer, flat.element.as_pointer())
    place = builder.gep(whole, [i])
    return place if element is None else builder.bitcast(place, element.as_pointer())


def not_kept(builder, stored):
    """Let an LLVM store go past the cache."""
    stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(INT32, 1)]))


def eight_elements(builder, flat, pointer, index):
    """LLVM's elements of flat memory at an `Eight`."""
    place = place_of(builder, flat, pointer, builder.extract_value(index, 0), ir.VectorType(flat.element, LANES))
    return builder.load(place, align=flat.size)


def few_elements(builder, flat, pointer, index):
    """Those at a `Few`; what it leaves out is 0, and is not read."""
    kind, place, mask = _few(builder, flat, pointer, index)
    operands = [place, ir.Constant(INT32, flat.size), mask, ir.Constant(kind, None)]
    value = _called(builder, "load", flat, kind, operands)
    return builder.bitcast(value, ir.VectorType(flat.element, LANES))


def put_few(builder, flat, pointer, index, value):
    """Store elements at a `Few`; what it leaves out is not touched."""
    kind, place, mask = _few(builder, flat, pointer, index)
    operands = [builder.bitcast(value, kind), place, ir.Constant(INT32, flat.size), mask]
    _called(builder, "store", flat, ir.VoidType(), operands)


def _few(builder, flat, pointer, index):
    """(whole numbers of the same size, where they begin, which of them)."""
    first, n = (builder.extract_value(index, k) for k in (0, 1))
    kind = ir.VectorType(ir.IntType(8 * flat.size), LANES)
    return kind, place_of(builder, flat, pointer, first, kind), mask_of(builder, n)


def _called(builder, name, flat, result, operands):
    function = ir.FunctionType(result, [value.type for value in operands])
    name = f"llvm.masked.{name}.v{LANES}i{8 * flat.size}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), operands)
