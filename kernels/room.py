"""Room for a kernel's own numbers, which it takes once and shares out by itself."""

import sys

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .flat import BYTE, LINE, Flat, place_of
from .forms import LANES
from .jit import helper
from .operation import argument, nothing_at_all, operation
from .vector import INT32, WORD

WORK = Flat("f8")
PAGE = 2 << 20  # bytes
HUGE_PAGES = 14  # what Linux calls MADV_HUGEPAGE


def new_room(n):
    """Room for n float64, on a whole line, to be given back by `free_room`."""
    return np.empty(n)


def is_missing(room):
    """Whether there was no memory for a room; None is none that was asked for."""
    return False


def free_room(room):
    """Give back what `new_room` gave, or None."""


@helper
def padded(n):
    """The size of an array of n float64 in a room: whole lines, and such that not all begin at one place in a page."""
    return (n + LANES - 1) // LANES * LANES + 2 * LANES


def clear(room, n):
    """Make n numbers 0; nothing for None."""
    if room is not None:
        room[:n] = 0.0


def seen_as(room, other, n):
    """Room for n elements of the kind of `other`, in a room of as many float64."""
    return np.empty(n, other.dtype)


def copy(source, i, out, j, n):
    """Copy n elements as they are, from i on to j on, between flat memory of one kind."""
    out[j : j + n] = source[i : i + n]


def repeat(source, i, out, j):
    """Write element i `LANES` times, as it is, from j on."""
    out[j : j + LANES] = source[i]


def repeat_eight(source, i, out, j, times):
    """Write `LANES` elements from i on so many times each, 2 to 4, as they are, from j on."""
    out[j : j + times * LANES] = np.repeat(source[i : i + LANES], times)


@operation(new_room)
def _new_room(n):
    """Much room begins with a page of 2 MiB, and is asked for by such: to find 64 MiB of small ones takes longer than
    the work of some rows."""

    def codegen(context, builder, signature, args):
        line, page = ir.Constant(WORD, LINE), ir.Constant(WORD, PAGE)
        size = builder.mul(args[0], ir.Constant(WORD, 8))
        much = builder.icmp_unsigned(">=", size, ir.Constant(WORD, 2 * PAGE))
        unit = builder.select(much, page, line)
        size = builder.and_(builder.add(size, unit), builder.neg(unit))
        kind = ir.FunctionType(BYTE.as_pointer(), [WORD, WORD])
        room = builder.call(cgutils.get_or_insert_function(builder.module, kind, "aligned_alloc"), [unit, size])
        if sys.platform == "linux":
            kind = ir.FunctionType(INT32, [BYTE.as_pointer(), WORD, INT32])
            advise = cgutils.get_or_insert_function(builder.module, kind, "madvise")
            with builder.if_then(much):  # of no memory at all it only says so
                builder.call(advise, [room, size, ir.Constant(INT32, HUGE_PAGES)])
        return room

    return WORK(types.intp), codegen


@operation(is_missing)
def _is_missing(room):
    def codegen(context, builder, signature, args):
        if isinstance(signature.args[0], types.NoneType):
            return cgutils.false_bit
        return builder.icmp_unsigned("==", builder.ptrtoint(args[0], WORD), ir.Constant(WORD, 0))

    return types.boolean(room), codegen


@operation(free_room)
def _free_room(room):
    if isinstance(room, types.NoneType):
        return types.void(room), nothing_at_all

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer()])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "free"), args)
        return context.get_dummy_value()

    return types.void(room), codegen


@operation(clear)
def _clear(room, n):
    if isinstance(room, types.NoneType):
        return types.void(room, n), nothing_at_all

    def codegen(context, builder, signature, args):
        size = builder.mul(args[1], ir.Constant(WORD, 8))
        cgutils.memset(builder, args[0], size, 0)
        return context.get_dummy_value()

    return types.void(room, types.intp), codegen


@operation(seen_as)
def _seen_as(room, other, n):
    return other(room, other, types.intp), argument(0)


@operation(copy)
def _copy(source, i, out, j, n):
    def codegen(context, builder, signature, args):
        a, i, b, j, n = args
        flat = signature.args[0]
        cgutils.raw_memcpy(builder, place_of(builder, flat, b, j), place_of(builder, flat, a, i), n, flat.size)
        return context.get_dummy_value()

    return types.void(source, types.intp, out, types.intp, types.intp), codegen


@operation(repeat)
def _repeat(source, i, out, j):
    def codegen(context, builder, signature, args):
        flat = signature.args[0]
        kind, word = ir.VectorType(ir.IntType(8 * flat.size), LANES), ir.IntType(8 * flat.size)
        value = builder.load(place_of(builder, flat, args[0], args[1], word), align=flat.size)
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(INT32, 0))
        lanes = ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES)
        several = builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), lanes)
        builder.store(several, place_of(builder, flat, args[2], args[3], kind), align=flat.size)
        return context.get_dummy_value()

    return types.void(source, types.intp, out, types.intp), codegen


@operation(repeat_eight)
def _repeat_eight(source, i, out, j, times):
    def codegen(context, builder, signature, args):
        source, i, out, j, times = args
        flat = signature.args[0]
        word = ir.IntType(8 * flat.size)
        eight = ir.VectorType(word, LANES)
        value = builder.load(place_of(builder, flat, source, i, eight), align=flat.size)
        for n in (2, 3, 4):
            with builder.if_then(builder.icmp_signed("==", times, ir.Constant(WORD, n))):
                places = [k // n for k in range(n * LANES)]
                lanes = ir.Constant(ir.VectorType(INT32, n * LANES), places)
                several = builder.shuffle_vector(value, ir.Constant(eight, ir.Undefined), lanes)
                builder.store(several, place_of(builder, flat, out, j, several.type), align=flat.size)
        return context.get_dummy_value()

    return types.void(source, types.intp, out, types.intp, types.intp), codegen
