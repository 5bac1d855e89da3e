"""16-bit results of an affine function by float32, half the work of float64, wherever they are certain to be the same.

x * a + b with a and b as sums of two float32 each is off by less than two units in the last place of float32. Rounded
to 16 bits it is what float64 gives, unless it lies within those two units of the middle between two neighbours, or is
so small beside its terms that little of it is left, or below the normal numbers. Then nothing is written, and float64
decides, a strip in some dozens. Only x that is the mean, of which nothing is left, is common: what becomes of it is
known. So results are the same to the last bit, whichever way they went.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .forms import LANES, Affine, Eight
from .half import upper_halves, widened
from .jit import helper, inlined, maybe
from .memory import ROUNDED, Flat, at, load, moved, not_kept, place_of, store
from .objects import address_of, singles_at
from .operation import nothing_at_all, operation
from .point import one_of, plus
from .vector import DOUBLE, INT32, WORD, bits_of, kind_of, nothing, of_bits, select, spread, to_single, total

STRIP = 4 * LANES  # values that are decided on at once: a line of memory
OFF = 2  # units in the last place of float32 that a result is off by, at most
HALF = {"f2": 1 << 12, "b2": 1 << 15}  # of the last place of a result, in units of the last place of float32
LEAST = {"f2": 2.0**-14, "b2": 2.0**-120}  # below, a float16 has its last place elsewhere, and float32 may lose its own
LEFT = 2.0**-20  # of the terms, that a result has to be
TINY, HUGE = 2.0**-100, 2.0**100  # between these float32 holds both parts of a factor
TRIES, REST = 2, 16  # strips in a row that were in doubt, and how many more are not tried
KEPT = {"f2": 2**64 - 2**42, "b2": 2**64 - 2**45}
MEAN = 5  # the fields before those of an x that is the mean
NO_X = 1.0 + 2.0**-20  # no number of 16 bits
FLOATS, WORDS = ir.VectorType(ir.FloatType(), STRIP), ir.VectorType(INT32, STRIP)
NEEDED = {"f2": ("+avx2", "+fma", "+f16c"), "b2": ("+avx2", "+fma")}


class Single(NamedTuple):
    """x * (a + a_rest) + (b + b_rest), certain from `least` on, and `then` where x is `mean`.

    By column, or numbers that float32 holds; `knows`: whether some x can be the mean, and what it gives is certain.
    """

    a: Any
    a_rest: Any
    b: Any
    b_rest: Any
    least: Any
    mean: Any
    then: Any
    knows: bool


def suited(t, out):
    """True for a task whose results may be worked out this way, by the types of its arrays; None for others."""


@operation(suited)
def _suited(t, out):
    if not (isinstance(out, Flat) and out.kind in ROUNDED and kind_of(t) is Affine and t[0] == out and _plain(t)):
        return types.none(t, out), nothing_at_all
    return types.boolean(t, out), lambda context, builder, signature, args: cgutils.true_bit


def _plain(t):
    return all(isinstance(t[Affine._fields.index(name)], types.NoneType) for name in ("residual", "activation"))


def least_of(out):
    """The least normal result."""


def kept_of(out):
    """What a number of 16 bits has of the bits of a float64, those of normal numbers."""


def _constant(function, kind, llvm, values):
    @operation(function)
    def define(out):
        return kind(out), lambda context, builder, signature, args: ir.Constant(llvm, values[signature.args[0].kind])


_constant(least_of, types.float64, DOUBLE, LEAST)
_constant(kept_of, types.uint64, WORD, KEPT)


@inlined
def _split(mean, scale, shift, out):
    """The fields of a `Single`, knows as 1 or 0; nothing is certain where float32 cannot hold them."""
    before, least = mean * scale, least_of(out)
    b = plus(0.0 - before, shift, 0)
    size = abs(before) + abs(b)
    held = ((abs(scale) > TINY) | (scale == 0.0)) & (abs(scale) < HUGE) & (size < HUGE)
    high, b_high = to_single(scale), to_single(b)
    then = plus(0.0 * scale, shift, 0)
    known = held & (of_bits(bits_of(mean) & kept_of(out)) == mean) & ((then == 0.0) | (abs(then) >= least))
    return (
        high,
        to_single(scale - high),
        b_high,
        to_single(b - b_high),
        to_single(select(held, select(size * LEFT < least, least, size * LEFT), np.nan)),
        select(known, mean, NO_X),
        to_single(then),
        select(known, 1.0, 0.0),
    )


@maybe
def columns_of(suits, t, out, width, room, w):
    """A `Single` for each column of a task with columns, in a room whose fields are w apart; None stays None."""
    fields, knows = singles_at(address_of(room)), nothing(Eight(0))
    for j in range(0, width, LANES):
        k = Eight(j)
        parts = _split(load(t.mean, k), load(t.scale, k), one_of(t.shift, k), out)
        a, a_rest, b, b_rest, least, mean, then, known = parts
        store(fields, k, a)
        store(fields, moved(k, w), a_rest)
        store(fields, moved(k, 2 * w), b)
        store(fields, moved(k, 3 * w), b_rest)
        store(fields, moved(k, 4 * w), least)
        store(fields, moved(k, 5 * w), mean)
        store(fields, moved(k, 6 * w), then)
        knows = knows + known
    b, least, then = at(fields, 2 * w), at(fields, 4 * w), at(fields, 6 * w)
    return Single(fields, at(fields, w), b, at(b, w), least, at(least, w), then, total(knows) > 0.0)


@helper
def channel_of(t, out):
    """A `Single` for a task of one channel."""
    a, a_rest, b, b_rest, least, mean, then, known = _split(t.mean, t.scale, t.shift, out)
    return Single(a, a_rest, b, b_rest, least, mean, then, known > 0.0)


# Where strip after strip is in doubt, as with NaN or zeros among x, most go to float64 without another try: a doubt
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


def put_strips(single, j, x, places, out, to, past):
    """A strip of results from column j on at each of several places of x and of out, if all are certain: whether so."""
    return False


@operation(put_strips)
def _put_strips(single, j, x, places, out, to, past):
    def codegen(context, builder, signature, args):
        if not all(feature in context.codegen()._tm_features for feature in NEEDED[out.kind]):
            return cgutils.false_bit
        *fields, knows = cgutils.unpack_tuple(builder, args[0])
        fields = [_field(builder, kind, value, args[1]) for kind, value in zip(single, fields, strict=False)]
        result = cgutils.alloca_once(builder, ir.IntType(1))
        with builder.if_else(knows) as branches:
            for branch, some in zip(branches, (fields, fields[:MEAN]), strict=True):
                with branch:
                    strips = [
                        _strip(context, builder, out, some, args[2], place)
                        for place in cgutils.unpack_tuple(builder, args[3])
                    ]
                    builder.store(_stored(builder, out, strips, args[4], args[5], past), result)
        return builder.load(result)

    return types.boolean(single, types.intp, x, places, out, to, past), codegen


def _stored(builder, out, strips, pointer, to, past):
    """Store strips where none of them is doubtful; whether it was done."""
    plain = isinstance(past, types.NoneType)
    doubtful = builder.bitcast(functools.reduce(builder.or_, [strip[1] for strip in strips]), ir.IntType(STRIP))
    certain = builder.icmp_unsigned("==", doubtful, ir.Constant(doubtful.type, 0))
    with builder.if_then(certain, likely=True):
        for (result, _), place in zip(strips, cgutils.unpack_tuple(builder, to), strict=True):
            place = place_of(builder, out, pointer, place, result.type)
            stored = builder.store(result, place, align=out.size * (1 if plain else STRIP))
            if not plain:
                not_kept(builder, stored)
    return certain


def _field(builder, kind, value, j):
    """LLVM's numbers of a field from column j on, or one number so many times."""
    if isinstance(kind, Flat):
        return builder.load(place_of(builder, kind, value, j, FLOATS), align=kind.size)
    return spread(builder, builder.fptrunc(value, ir.FloatType()), FLOATS)


def _strip(context, builder, flat, fields, x, i):
    """(results, which are doubtful) of the elements of x from i on, as LLVM's vectors; fields may end before `mean`."""
    a, a_rest, b, b_rest, least, *known = fields
    elements = ir.VectorType(flat.element, STRIP)
    value = builder.load(place_of(builder, flat, x, i, elements), align=flat.size)
    value = widened(context, builder, flat.kind, value, STRIP)
    y = builder.fadd(_called(builder, "fma", value, a, b), _called(builder, "fma", value, a_rest, b_rest))
    doubtful = builder.fcmp_unordered("<", _called(builder, "fabs", y), least)
    if known:  # x that is the mean, by its bits, as -0 is no 0
        other = builder.icmp_unsigned("!=", builder.bitcast(value, WORDS), builder.bitcast(known[0], WORDS))
        y, doubtful = builder.select(other, y, known[1]), builder.and_(other, doubtful)
    half = HALF[flat.kind]
    moved = builder.add(builder.bitcast(y, WORDS), _words(half + OFF))
    close = builder.icmp_unsigned("==", builder.and_(moved, _words(2 * half - 2 * OFF)), _words(0))
    doubtful = builder.or_(doubtful, close)
    # What is not close to the middle is rounded by adding half of what is cut off, and a little more.
    return builder.fptrunc(y, elements) if flat.kind == "f2" else upper_halves(builder, moved), doubtful


def _called(builder, name, *values):
    kind = ir.FunctionType(FLOATS, [FLOATS] * len(values))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{STRIP}f32"), values)


def _words(value):
    return ir.Constant(WORDS, [value] * STRIP)
