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

# Of the bits of a float64: what a float32 has no place for, the sign, the exponent; and 1.5 * 2**45 of 2**exponent.
BEHIND_FLOAT = np.uint64(2**29 - 1)
SIGN = np.uint64(1 << 63)
EXPONENT = np.uint64(0x7FF << 52)
FAR = np.uint64((45 << 52) + (1 << 51))
LEAST_NORMAL = 2.0**-126


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


@intrinsic
def _double_to_bits(typingctx, value):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.uint64(types.float64), codegen


@intrinsic
def _bits_to_double(typingctx, bits):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), codegen


def bits_of(value):
    """float64 -> its bits as uint64."""
    return np.float64(value).view(np.uint64)


def of_bits(bits):
    """uint64 -> the float64 with these bits."""
    return np.uint64(bits).view(np.float64)


def load(x, i):
    """Element i of a flat array as float64."""
    value = x[i]
    if x.dtype == HALF:
        return np.float64(value["half"].view(np.float16))
    if x.dtype == BFLOAT:
        return np.float64((np.uint32(value["bfloat"]) << np.uint32(16)).view(np.float32))
    return np.float64(value)


@helper
def to_odd(value):
    """A float64 to float32 so that rounding it to a float16 gives what rounding once would.

    What is cut off makes the last bit that stays odd. The conversion is exact after that, but for numbers which are
    zeros of float16. NaN and infinity stay.
    """
    bits = bits_of(value)
    return np.float32(of_bits((bits | ((bits & BEHIND_FLOAT) + BEHIND_FLOAT)) & ~BEHIND_FLOAT))


@helper
def to_bfloat(value):
    """A float64 to the nearest float32 that is a bfloat16, ties to even; NaN and infinity stay.

    A number is added whose last place counts what the last place of the result does, and is taken away again. What
    is below the normal numbers has the last place of the least of them.
    """
    bits = bits_of(value)
    power = of_bits(bits & EXPONENT)
    power = LEAST_NORMAL if power < LEAST_NORMAL else power
    far = of_bits(bits_of(power) + FAR)  # beyond 2**978 it wraps, to a number that changes nothing
    return np.float32(of_bits(bits_of((value + far) - far) | (bits & SIGN)))


def store(out, i, value):
    """Round a float to the type of out[i], once, and write it there."""
    if out.dtype == HALF:
        out[i]["half"] = to_odd(value).astype(np.float16).view(np.uint16)
    elif out.dtype == BFLOAT:
        out[i]["bfloat"] = np.uint16(to_bfloat(value).view(np.uint32) >> np.uint32(16))
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


@overload(bits_of)
def _bits_of(value):
    return lambda value: _double_to_bits(value)


@overload(of_bits)
def _of_bits(bits):
    return lambda bits: _bits_to_double(bits)


@overload(store)
def _store(out, i, value):
    if _field(out) == "half":

        def store_half(out, i, value):
            out[i].half = float_to_half(to_odd(value))

        return store_half
    if _field(out) == "bfloat":

        def store_bfloat(out, i, value):
            out[i].bfloat = np.uint16(float_to_bits(to_bfloat(value)) >> np.uint32(16))

        return store_bfloat

    def store_native(out, i, value):
        out[i] = value

    return store_native
