"""Eight float64 values at a time, whatever the machine's vectors hold: what the inner loops work on.

A kernel says how many values a step takes by the type of its index: an int is one, `Eight(i)` eight neighbours from i
on, `Few(i, n)` the first n of them. `memory.load` gives a float for an int, and a vector for the others; what is
written here works on both, and without the compiler on NumPy arrays of so many values. Numbers are repeated as needed.
"""

import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, overload, register_model

from .forms import LANES, Eight, Few
from .jit import ALONE
from .operation import argument, operation

DOUBLE, WORD, BIT, INT32 = ir.DoubleType(), ir.IntType(64), ir.IntType(1), ir.IntType(32)
ONE = ir.Constant(DOUBLE, 1.0)
FLAGS = ("contract",)


class Lanes(types.Type):
    """`LANES` values of one LLVM type in a vector."""

    def __init__(self, name, element):
        super().__init__(f"{name}[{LANES}]")
        self.llvm = ir.VectorType(element, LANES)


VECTOR, BITS, TRUTH = Lanes("float64", DOUBLE), Lanes("uint64", WORD), Lanes("bool", BIT)
OF_ELEMENT = {types.float64: VECTOR, types.uint64: BITS, types.boolean: TRUTH}


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, kind.llvm)


def spread(builder, value, kind):
    """An LLVM value repeated in all places of a kind of vector; a vector as it is."""
    if isinstance(value.type, ir.VectorType):
        return value
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count))


def _operation(function, operand, element, result, build):
    """Let an operator take two vectors, or a vector and a number."""
    cases = [(operand, operand), (operand, element), (element, operand)]
    template = type(
        f"Lanes_{function.__name__}",
        (ConcreteTemplate,),
        {"key": function, "cases": [signature(result, *case) for case in cases]},
    )
    infer_global(function)(template)

    def implementation(context, builder, signature, args):
        return build(builder, *(spread(builder, a, operand.llvm) for a in args))

    for case in cases:
        lower_builtin(function, *case)(implementation)


for _function, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operation(
        _function,
        VECTOR,
        types.float64,
        VECTOR,
        lambda builder, a, b, name=_name: getattr(builder, name)(a, b, flags=FLAGS),
    )
for _function, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
):
    _operation(
        _function,
        VECTOR,
        types.float64,
        TRUTH,
        lambda builder, a, b, sign=_sign: builder.fcmp_ordered(sign, a, b),
    )
_operation(operator.ne, VECTOR, types.float64, TRUTH, lambda builder, a, b: builder.fcmp_unordered("!=", a, b))
for _function, _name in ((operator.add, "add"), (operator.and_, "and_"), (operator.or_, "or_")):
    _operation(_function, BITS, types.uint64, BITS, lambda builder, a, b, name=_name: getattr(builder, name)(a, b))
for _function, _name in ((operator.and_, "and_"), (operator.or_, "or_")):
    _operation(_function, TRUTH, types.boolean, TRUTH, lambda builder, a, b, name=_name: getattr(builder, name)(a, b))


@infer_global(abs)
class _LanesAbs(ConcreteTemplate):
    cases = (signature(VECTOR, VECTOR),)


@lower_builtin(abs, VECTOR)
def _abs(context, builder, signature, args):
    kind = ir.FunctionType(VECTOR.llvm, [VECTOR.llvm])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fabs.v{LANES}f64"), args)


def to_single(value):
    """float64 rounded to float32, as float64."""
    return np.float64(np.float32(value)) if np.isscalar(value) else value.astype(np.float32).astype(np.float64)


@operation(to_single)
def _to_single(value):
    def codegen(context, builder, signature, args):
        several = signature.args[0] is VECTOR
        single = ir.VectorType(ir.FloatType(), LANES) if several else ir.FloatType()
        return builder.fpext(builder.fptrunc(args[0], single), VECTOR.llvm if several else DOUBLE)

    return value(value), codegen


def unknown(builder, number):
    """LLVM's float64 of an x86 processor that is a number, and that LLVM has to take for any: nothing is done to it."""
    kind = ir.FunctionType(DOUBLE, [DOUBLE])
    same = builder.asm(kind, "", "=x,0", [ir.Constant(DOUBLE, number)], side_effect=False)
    same.attributes.add("readnone")
    return same


def added(a, b):
    """a + b; vectors are multiplied with one for it, as on AMD's processors the units that add also convert."""
    return a + b


@operation(added)
def _added(a, b):
    def codegen(context, builder, signature, args):
        if signature.return_type is not VECTOR or "+fma" not in context.codegen()._tm_features:
            return builder.fadd(*args, flags=FLAGS)
        one = unknown(builder, 1.0)  # else LLVM would add
        fma = ir.FunctionType(VECTOR.llvm, [VECTOR.llvm] * 3)
        call = cgutils.get_or_insert_function(builder.module, fma, f"llvm.fma.v{LANES}f64")
        return builder.call(call, [args[0], spread(builder, one, VECTOR.llvm), args[1]])

    return a(a, b), codegen


# Choosing ------------------------------------------------------------------------------------------


def select(condition, a, b):
    """a where the condition holds, else b; both are computed."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, a, b)
    return a if condition else b


@operation(select)
def _select(condition, a, b):
    """Of vectors; numbers are left to `_selected`, which CUDA's compiler takes too."""
    if not any(isinstance(kind, Lanes) for kind in (condition, a, b)):
        return None
    result = _common(a, b) if condition == types.boolean else _wide(_common(a, b))

    def codegen(context, builder, signature, args):
        kind = signature.return_type
        return builder.select(args[0], *(spread(builder, value, kind.llvm) for value in args[1:]))

    return result(condition, a, b), codegen


def _common(a, b):
    return a if isinstance(a, Lanes) else b


def _wide(kind):
    return kind if isinstance(kind, Lanes) else OF_ELEMENT[kind]


@overload(select, jit_options=ALONE)
def _selected(condition, a, b):
    return lambda condition, a, b: a if condition else b


def how_many(a, b, c, d):
    """How many of four conditions hold, as float64."""
    return np.asarray(a, np.float64) + b + c + d


@operation(how_many)
def _how_many(a, b, c, d):
    """Counted in whole numbers, by whichever unit is free: from 2**51 on, one more is two in the bits of a float64.

    A one in the bits LLVM would make from the condition itself, which takes an instruction more.
    """

    def codegen(context, builder, signature, args):
        begin, two = ir.Constant(VECTOR.llvm, [2.0**51] * LANES), ir.Constant(BITS.llvm, [2] * LANES)
        count = builder.bitcast(begin, BITS.llvm)
        for condition in args:
            holds = spread(builder, condition, TRUTH.llvm)
            count = builder.select(holds, builder.add(count, two), count)
        return builder.fsub(builder.bitcast(count, VECTOR.llvm), begin)

    return VECTOR(a, b, c, d), codegen


# Bits -----------------------------------------------------------------------------------------------


def bits_of(value):
    """float64 -> its bits as uint64."""
    return np.asarray(value, np.float64).view(np.uint64)[()]


def of_bits(bits):
    """uint64 -> the float64 with these bits."""
    return np.asarray(bits, np.uint64).view(np.float64)[()]


@intrinsic
def _bits_of(typingctx, value):
    result = BITS if value is VECTOR else types.uint64

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], BITS.llvm if result is BITS else WORD)

    return result(value), codegen


@intrinsic
def _of_bits(typingctx, bits):
    result = VECTOR if bits is BITS else types.float64

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], VECTOR.llvm if result is VECTOR else DOUBLE)

    return result(bits), codegen


@overload(bits_of)
def _overload_bits_of(value):
    return lambda value: _bits_of(value)


@overload(of_bits)
def _overload_of_bits(bits):
    return lambda bits: _of_bits(bits)


# Lanes ----------------------------------------------------------------------------------------------


def nothing(index):
    """0 for as many values as an index takes; eight for a few, too."""
    return 0.0 if isinstance(index, int) else np.zeros(LANES)


def within(value, index):
    """A vector of eight, with 0 in the lanes that an index of a few leaves out."""
    if isinstance(index, Few):
        return np.where(np.arange(LANES) < index.n, value, 0.0)
    return value


def total(value):
    """The sum of all lanes, in halves: the order is the same on every machine."""
    while np.size(value) > 1:
        value = value[: value.size // 2] + value[value.size // 2 :]
    return float(value[0])


def by_lane(function, value, argument):
    """``function(v, argument)`` of each value; function: a compiled function of numbers."""
    if isinstance(value, np.ndarray):
        return np.array([function(v, argument) for v in value])
    return function(np.float64(value), argument)


def kind_of(index):
    """The NamedTuple that a numba type stands for; None for others."""
    return getattr(index, "instance_class", None)


def mask_of(builder, n):
    """The LLVM vector of truths whose first n lanes are true."""
    places = ir.Constant(ir.VectorType(WORD, LANES), list(range(LANES)))
    return builder.icmp_signed("<", places, spread(builder, n, BITS.llvm))


@operation(nothing)
def _nothing(index):
    if kind_of(index) in (Eight, Few):
        return VECTOR(index), lambda context, builder, signature, args: ir.Constant(VECTOR.llvm, None)
    return types.float64(index), lambda context, builder, signature, args: ir.Constant(DOUBLE, 0.0)


@operation(within)
def _within(value, index):
    if kind_of(index) is not Few:
        return value(value, index), argument(0)

    def codegen(context, builder, signature, args):
        value = spread(builder, args[0], VECTOR.llvm)
        mask = mask_of(builder, builder.extract_value(args[1], 1))
        return builder.select(mask, value, ir.Constant(VECTOR.llvm, None))

    return VECTOR(value, index), codegen


@operation(total)
def _total(value):
    def codegen(context, builder, signature, args):
        (value,), n = args, LANES
        while n > 1:
            n //= 2
            some = ir.VectorType(INT32, n)
            halves = [builder.shuffle_vector(value, value, ir.Constant(some, list(range(lo, lo + n)))) for lo in (0, n)]
            value = builder.fadd(*halves)
        return builder.extract_element(value, ir.Constant(INT32, 0))

    return types.float64(value), codegen


@intrinsic
def _lane(typingctx, value, k):
    def codegen(context, builder, signature, args):
        return builder.extract_element(args[0], args[1])

    return types.float64(value, types.intp), codegen


@intrinsic
def _eight(typingctx, a, b, c, d, e, f, g, h):
    def codegen(context, builder, signature, args):
        value = ir.Constant(VECTOR.llvm, ir.Undefined)
        for k, lane in enumerate(args):
            value = builder.insert_element(value, lane, ir.Constant(INT32, k))
        return value

    return VECTOR(*[types.float64] * LANES), codegen


@overload(by_lane, jit_options=ALONE)
def _by_lane(function, value, argument):
    if value is not VECTOR:
        return lambda function, value, argument: function(value, argument)
    return lambda function, value, argument: _eight(
        function(_lane(value, 0), argument),
        function(_lane(value, 1), argument),
        function(_lane(value, 2), argument),
        function(_lane(value, 3), argument),
        function(_lane(value, 4), argument),
        function(_lane(value, 5), argument),
        function(_lane(value, 6), argument),
        function(_lane(value, 7), argument),
    )
