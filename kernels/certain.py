"""16-bit results by float32, half the work of float64, wherever they are certain to be the same to the last bit.

A sum of products in float32, of what is the sum of two float32 each, is off by less than some units in the last place.
Rounded to 16 bits it is what float64 gives, unless it lies within those units of the middle between two neighbours, or
is so small beside its terms that little of it is left, or below the normal numbers. Then nothing is written, and
float64 decides: a line of four rows in sixteen of float16, in a hundred of bfloat16.

Of most affine functions the bits of a result show that it is small, or no x makes it so. Of the others each result is
compared with the least that is certain, and what the x gives that is next to their root, the mean or not far from it,
is known before: it may be common.
"""

import functools

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .flat import Flat, not_kept, place_of
from .forms import Gradient
from .half import bits_of_halves, repeated, upper_halves, widened
from .jit import inlined
from .operation import operation
from .single import STRIP, SingleAffine
from .vector import INT32, kind_of, spread

HALF = {"f2": 1 << 12, "b2": 1 << 15}  # of the last place of a result, in units of the last place of float32
SMALL = {"f2": 0x7800, "b2": 0x7000}  # bits, of which a result below twice `single.LEAST` has none
OFF = 2  # units in the last place of float32 that an affine function is off by, at most
TWICE_HALF = 2.0**-23 * (1 + 2.0**-5)  # of a number: twice what rounding it to float32 may change, and a little more
TRIES, REST = 3, 16  # strips in a row that were in doubt, and how many more are not tried
FLOATS, WORDS = ir.VectorType(ir.FloatType(), STRIP), ir.VectorType(INT32, STRIP)
HALVES = ir.VectorType(ir.IntType(16), STRIP)
_floats, _words = (functools.partial(repeated, kind, n=STRIP) for kind in (FLOATS, WORDS))
NEEDED = {"f2": ("+avx2", "+fma", "+f16c"), "b2": ("+avx2", "+fma")}


# Where strip after strip is in doubt, as where one x in twenty is NaN, most go to float64 without another try: a doubt
# counts how many were, from 0.


@inlined
def is_worth(doubt):
    """Whether to try another strip."""
    return doubt < TRIES


@inlined
def after(doubt, sure):
    """The doubt after a strip that was certain, or was not."""
    if sure:
        return 0
    return doubt + 1 if doubt < TRIES + REST else TRIES - 1


def put_strips(single, t, j, places, out, to, past):
    """A strip of results of a task from column j of each of several places on, if all are certain: whether they are.

    to: where each goes in out; single: the task in float32.
    """
    return False


@operation(put_strips)
def _put_strips(single, t, j, places, out, to, past):
    def codegen(context, builder, signature, args):
        if not all(feature in context.codegen()._tm_features for feature in NEEDED[out.kind]):
            return cgutils.false_bit
        task, to_ = cgutils.unpack_tuple(builder, args[1]), cgutils.unpack_tuple(builder, args[5])
        fields = [
            _field(builder, kind, value, args[2])
            for kind, value in zip(single, cgutils.unpack_tuple(builder, args[0]), strict=True)
        ]
        begins = [
            [builder.add(value, args[2]) for value in cgutils.unpack_tuple(builder, place)[:2]]
            for place in cgutils.unpack_tuple(builder, args[3])
        ]
        elements = functools.partial(_elements, context, builder, out)

        def stored(strip):
            return _stored(builder, [strip(*begin) for begin in begins], out, args[4], to_, past)

        if kind_of(single) is not SingleAffine:
            x = task[Gradient._fields.index("x")]
            return stored(lambda g, v: _gradients(builder, fields, elements(task[0], g), elements(x, v)))
        *fields, careful = fields
        result = cgutils.alloca_once(builder, ir.IntType(1))
        with builder.if_else(careful) as branches:
            for branch, some in zip(branches, (fields, fields[:4]), strict=True):
                with branch:
                    done = stored(lambda v, _, some=some: _affine(context, builder, out, some, elements(task[0], v)))
                    builder.store(done, result)
        return builder.load(result)

    return types.boolean(single, t, types.intp, places, out, to, past), codegen


def _field(builder, kind, value, j):
    """LLVM's numbers of a field from column j on, or one number so many times; a truth as it is."""
    if kind == types.boolean:
        return value
    if isinstance(kind, Flat):
        return builder.load(place_of(builder, kind, value, j, FLOATS), align=kind.size)
    return spread(builder, builder.fptrunc(value, ir.FloatType()), FLOATS)


def _elements(context, builder, flat, pointer, i):
    """LLVM's elements of flat memory from i on, as float32."""
    place = place_of(builder, flat, pointer, i, ir.VectorType(flat.element, STRIP))
    return widened(context, builder, flat.kind, builder.load(place, align=flat.size), STRIP)


def _affine(context, builder, flat, fields, x):
    """(results, which are doubtful) as LLVM's vectors; fields: four, and three more where care is to be taken."""
    a, a_rest, b, b_rest, *care = fields
    y = builder.fadd(_called(builder, "fma", x, a, b), _called(builder, "fma", x, a_rest, b_rest))
    if not care:
        result, close = _rounded(context, builder, flat, y)
        bits = builder.and_(result, repeated(HALVES, SMALL[flat.kind], STRIP))
        return result, builder.or_(close, builder.icmp_unsigned("==", bits, repeated(HALVES, 0, STRIP)))
    least, root, then = care
    doubtful = builder.fcmp_unordered("<", _called(builder, "fabs", y), least)
    # x next to the root, by its bits, as -0 is no 0
    other = builder.icmp_unsigned("!=", builder.bitcast(x, WORDS), builder.bitcast(root, WORDS))
    result, close = _rounded(context, builder, flat, builder.select(other, y, then))
    return result, builder.or_(builder.and_(other, doubtful), close)


def _gradients(builder, fields, dy, x):
    """(results, which are doubtful) as LLVM's vectors, of bfloat16.

    What comes from x may be far larger than the result, and be off by more than its last places: by how much is
    compared with how far the result is from the middle. Twice as much, as below a power of two it is half as far.
    """
    a, a_rest, k, k_rest, c, c_rest, least = fields
    from_x = _called(builder, "fma", x, k, c)
    rest = _called(builder, "fma", dy, a_rest, _called(builder, "fma", x, k_rest, c_rest))
    y = builder.fadd(_called(builder, "fma", dy, a, from_x), rest)
    bits = builder.bitcast(y, WORDS)
    moved = builder.add(bits, _words(HALF["b2"]))  # rounds, but for what is in the middle
    nearest = builder.bitcast(builder.and_(moved, _words(0xFFFF << 16)), FLOATS)
    off = _called(builder, "fabs", builder.fsub(y, nearest))
    off = _called(builder, "fma", _called(builder, "fabs", from_x), _floats(TWICE_HALF), off)
    power = builder.bitcast(builder.and_(bits, _words(0xFF << 23)), FLOATS)
    middle = builder.fmul(power, _floats((HALF["b2"] - 3) * 2.0**-23))
    small = builder.fcmp_unordered("<", _called(builder, "fabs", y), least)
    return upper_halves(builder, moved), builder.or_(small, builder.fcmp_unordered(">=", off, middle))


def _rounded(context, builder, flat, y):
    """(rounded to 16 bits, which are within `OFF` units of the middle) as LLVM's vectors."""
    half = HALF[flat.kind]
    moved = builder.add(builder.bitcast(y, WORDS), _words(half + OFF))
    close = builder.icmp_unsigned("==", builder.and_(moved, _words(2 * half - 2 * OFF)), _words(0))
    if flat.kind == "f2":
        return bits_of_halves(context, builder, y, STRIP), close
    # Not close to the middle: half of what is cut off, and a little more, rounds as half of it.
    return upper_halves(builder, moved), close


def _stored(builder, strips, out, pointer, to, past):
    """Store strips where none of their results is doubtful; whether it was done."""
    plain = isinstance(past, types.NoneType)
    doubtful = builder.bitcast(functools.reduce(builder.or_, [strip[1] for strip in strips]), ir.IntType(STRIP))
    certain = builder.icmp_unsigned("==", doubtful, ir.Constant(doubtful.type, 0))
    with builder.if_then(certain, likely=True):
        for (result, _), i in zip(strips, to, strict=True):
            place = place_of(builder, out, pointer, i, result.type)
            stored = builder.store(result, place, align=out.size * (1 if plain else STRIP))
            if not plain:
                not_kept(builder, stored)
    return certain


def _called(builder, name, *values):
    kind = ir.FunctionType(FLOATS, [FLOATS] * len(values))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{STRIP}f32"), values)
