"""16-bit results of an affine function by float32, half the work of float64, wherever they are certain to be the same.

x * a + b with a and b as sums of two float32 each is off by less than two units in the last place of float32. Rounded
to 16 bits it is what float64 gives, unless it lies within those two units of the middle between two neighbours, or is
so small beside its terms that little of it is left, or below the normal numbers. Then nothing is written, and float64
decides, a strip in some dozens. So results are the same to the last bit, whichever way they went.
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
from .memory import ROUNDED, Flat, at, load, not_kept, place_of, store
from .objects import address_of, singles_at
from .operation import nothing_at_all, operation
from .point import one_of, plus
from .vector import INT32, kind_of, select, spread, to_single

STRIP = 4 * LANES  # values that are decided on at once: a line of memory
OFF = 2  # units in the last place of float32 that a result is off by, at most
HALF = {"f2": 1 << 12, "b2": 1 << 15}  # of the last place of a result, in units of the last place of float32
LEAST = {"f2": 2.0**-14, "b2": 2.0**-120}  # below, a float16 has its last place elsewhere, and float32 may lose its own
LEFT = 2.0**-20  # of the terms, that a result has to be
TINY, HUGE = 2.0**-100, 2.0**100  # between these float32 holds both parts of a factor
TRIES, REST = 2, 16  # strips in a row that were in doubt, and how many more are not tried
FLOATS, WORDS = ir.VectorType(ir.FloatType(), STRIP), ir.VectorType(INT32, STRIP)
NEEDED = {"f2": ("+avx2", "+fma", "+f16c"), "b2": ("+avx2", "+fma")}


class Single(NamedTuple):
    """x * (a + a_rest) + (b + b_rest), certain from `least` on: by column, or numbers that float32 holds."""

    a: Any
    a_rest: Any
    b: Any
    b_rest: Any
    least: Any


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


@operation(least_of)
def _least_of(out):
    least = LEAST[out.kind]
    return types.float64(out), lambda context, builder, signature, args: ir.Constant(ir.DoubleType(), least)


@inlined
def _split(mean, scale, shift, least):
    """The fields of a `Single`; least is NaN, so that nothing is certain, where float32 cannot hold them."""
    before = mean * scale
    b = plus(0.0 - before, shift, 0)
    size = abs(before) + abs(b)
    held = ((abs(scale) > TINY) | (scale == 0.0)) & (abs(scale) < HUGE) & (size < HUGE)
    least = select(held, select(size * LEFT < least, least, size * LEFT), np.nan)
    high, b_high = to_single(scale), to_single(b)
    return high, to_single(scale - high), b_high, to_single(b - b_high), to_single(least)


@maybe
def columns_of(suits, t, out, width, room, w):
    """A `Single` for each column of a task with columns, in a room whose fields are w apart; None stays None."""
    fields = singles_at(address_of(room))
    for j in range(0, width, LANES):
        parts = _split(load(t.mean, Eight(j)), load(t.scale, Eight(j)), one_of(t.shift, Eight(j)), least_of(out))
        for k, part in enumerate(parts):
            store(fields, Eight(k * w + j), part)
    return Single(fields, at(fields, w), at(fields, 2 * w), at(fields, 3 * w), at(fields, 4 * w))


@helper
def channel_of(t, out):
    """A `Single` for a task of one channel."""
    a, a_rest, b, b_rest, least = _split(t.mean, t.scale, t.shift, least_of(out))
    return Single(a, a_rest, b, b_rest, least)


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
        plain = isinstance(past, types.NoneType)
        fields = [_field(builder, kind, builder.extract_value(args[0], k), args[1]) for k, kind in enumerate(single)]
        strips = [
            _strip(context, builder, out, fields, args[2], builder.extract_value(args[3], k))
            for k in range(len(places))
        ]
        doubtful = builder.bitcast(functools.reduce(builder.or_, [strip[1] for strip in strips]), ir.IntType(STRIP))
        certain = builder.icmp_unsigned("==", doubtful, ir.Constant(doubtful.type, 0))
        with builder.if_then(certain, likely=True):
            for k, (result, _) in enumerate(strips):
                place = place_of(builder, out, args[4], builder.extract_value(args[5], k), result.type)
                stored = builder.store(result, place, align=out.size * (1 if plain else STRIP))
                if not plain:
                    not_kept(builder, stored)
        return certain

    return types.boolean(single, types.intp, x, places, out, to, past), codegen


def _field(builder, kind, value, j):
    """LLVM's numbers of a field from column j on, or one number so many times."""
    if isinstance(kind, Flat):
        return builder.load(place_of(builder, kind, value, j, FLOATS), align=kind.size)
    return spread(builder, builder.fptrunc(value, ir.FloatType()), FLOATS)


def _strip(context, builder, flat, fields, x, i):
    """(results, which are doubtful) of the elements of x from i on, as LLVM's vectors."""
    a, a_rest, b, b_rest, least = fields
    elements = ir.VectorType(flat.element, STRIP)
    value = builder.load(place_of(builder, flat, x, i, elements), align=flat.size)
    value = widened(context, builder, flat.kind, value, STRIP)
    y = builder.fadd(_called(builder, "fma", value, a, b), _called(builder, "fma", value, a_rest, b_rest))
    half = HALF[flat.kind]
    moved = builder.add(builder.bitcast(y, WORDS), _words(half + OFF))
    close = builder.icmp_unsigned("==", builder.and_(moved, _words(2 * half - 2 * OFF)), _words(0))
    doubtful = builder.or_(close, builder.fcmp_unordered("<", _called(builder, "fabs", y), least))
    # What is not close to the middle is rounded by adding half of what is cut off, and a little more.
    return builder.fptrunc(y, elements) if flat.kind == "f2" else upper_halves(builder, moved), doubtful


def _called(builder, name, *values):
    kind = ir.FunctionType(FLOATS, [FLOATS] * len(values))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{STRIP}f32"), values)


def _words(value):
    return ir.Constant(WORDS, [value] * STRIP)
