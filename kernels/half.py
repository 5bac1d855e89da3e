"""One element: loads and stores of native types as they are, of float16 and bfloat16 through their bits.

numba has no arithmetic for the 16-bit floats on a CPU, so such an array reaches a kernel as
records with one field of 16 bits, whose name says which format it holds. The conversions below
become vector instructions (vcvtph2ps, vcvtps2ph, a shift).
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from .jit import helper, maybe

HALF = np.dtype([("half", np.uint16)], align=True)
BFLOAT = np.dtype([("bfloat", np.uint16)], align=True)


@intrinsic
def half_to_float(typingctx, bits):
    """uint16 holding a float16 -> float32, exact."""

    def codegen(context, builder, signature, args):
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


@intrinsic
def float_to_half(typingctx, value):
    """float32 -> uint16 holding the nearest float16, ties to even."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), codegen


@intrinsic
def bits_to_float(typingctx, bits):
    """uint32 -> the float32 with these bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@intrinsic
def float_to_bits(typingctx, value):
    """float32 -> its bits as uint32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), codegen


def load(x, i):
    """Element i of a flat array as float64."""
    value = x[i]
    if x.dtype == HALF:
        return np.float64(value["half"].view(np.float16))
    if x.dtype == BFLOAT:
        return np.float64((np.uint32(value["bfloat"]) << np.uint32(16)).view(np.float32))
    return np.float64(value)


def to_odd(value):
    """A float64 to float32 so that rounding it again gives what rounding once would: what is cut off makes it odd."""
    near = np.float32(value)
    if near == value or np.isnan(value) or near.view(np.uint32) & np.uint32(1):
        return near
    return np.uint32(int(near.view(np.uint32)) + (1 if abs(value) > abs(near) else -1)).view(np.float32)


def store(out, i, value):
    """Round a float to the type of out[i], once, and write it there."""
    if out.dtype == HALF:
        out[i]["half"] = to_odd(value).astype(np.float16).view(np.uint16)
    elif out.dtype == BFLOAT:
        out[i]["bfloat"] = _nearest_bfloat(to_odd(value).view(np.uint32), np.isnan(value))
    else:
        out[i] = value


def plus(value, shift, j):
    """value + shift[j], or the value where shift is None: an absent parameter is never loaded."""
    return value if shift is None else value + shift[j]


@helper
def beside(value, residual, j):
    """value + residual[j], or the value where there is no residual."""
    if residual is None:
        return value
    return value + load(residual, j)


@maybe
def part_of(array, start, n):
    """n elements of a flat array; None stays None."""
    return array[start : start + n]


@maybe
def part_from(array, start):
    """A flat array from an element on; None stays None."""
    return array[start:]


def _nearest_bfloat(bits, is_nan):
    """Upper 16 of 32 bits, ties to even; a NaN stays a quiet NaN."""
    rounded = np.uint32(bits) + np.uint32(0x7FFF) + ((np.uint32(bits) >> np.uint32(16)) & np.uint32(1))
    return np.uint16((np.uint32(0x7FC00000) if is_nan else rounded) >> np.uint32(16))


def _field(array):
    return next(iter(array.dtype.fields)) if isinstance(array.dtype, types.Record) else ""


@overload(load)
def _load(x, i):
    if _field(x) == "half":
        return lambda x, i: np.float64(half_to_float(x[i].half))
    if _field(x) == "bfloat":
        return lambda x, i: np.float64(bits_to_float(np.uint32(np.uint32(x[i].bfloat) << np.uint32(16))))
    return lambda x, i: np.float64(x[i])


@overload(plus)
def _plus(value, shift, j):
    if isinstance(shift, types.NoneType):
        return lambda value, shift, j: value
    return lambda value, shift, j: value + shift[j]


@overload(to_odd)
def _to_odd(value):
    def odd(value):
        near = np.float32(value)
        bits = float_to_bits(near)
        # Nothing of a branch in it, so that it vectorizes; a NaN stays one.
        even = np.uint32((bits & np.uint32(1)) ^ np.uint32(1)) if np.float64(near) != value else np.uint32(0)
        away = abs(value) > abs(np.float64(near))
        return bits_to_float(np.uint32(bits + even) if away else np.uint32(bits - even))

    return odd


@overload(store)
def _store(out, i, value):
    if _field(out) == "half":

        def store_half(out, i, value):
            out[i].half = float_to_half(to_odd(value))

        return store_half
    if _field(out) == "bfloat":

        def store_bfloat(out, i, value):
            bits = float_to_bits(to_odd(value))
            rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
            out[i].bfloat = np.uint16((np.uint32(0x7FC00000) if value != value else rounded) >> np.uint32(16))

        return store_bfloat

    def store_native(out, i, value):
        out[i] = value

    return store_native
