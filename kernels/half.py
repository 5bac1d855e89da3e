"""float16 and bfloat16: from float64 with one rounding, and the bits of single values.

numba has no arithmetic for the 16-bit floats. An array of them is handed on as records with one field of 16 bits, whose
name says which format it holds. The conversions become vector instructions (vcvtph2ps, vcvtps2ph, a shift).
"""

import functools
import platform

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .forms import LANES
from .jit import helper, inlined
from .vector import INT32, bits_of, of_bits, select

HALF = np.dtype([("half", np.uint16)], align=True)
BFLOAT = np.dtype([("bfloat", np.uint16)], align=True)

# Of the bits of a float64: what a float32 has no place for, and what it has; the sign, the exponent; what makes 1.5 *
# 2**45 times as much of 2**exponent, and 1.5 * 2**42 times.
BEHIND_FLOAT, FLOAT = np.uint64(2**29 - 1), np.uint64(2**64 - 2**29)
SIGN = np.uint64(1 << 63)
EXPONENT = np.uint64(0x7FF << 52)
FAR = np.uint64((45 << 52) + (1 << 51))
HALF_FAR = np.uint64((42 << 52) + (1 << 51))
LEAST_NORMAL, HALF_LEAST = 2.0**-126, 2.0**-14


@intrinsic
def half_to_float(typingctx, bits):
    """uint16 holding a float16 -> float32, exact."""

    def codegen(context, builder, signature, args):
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


@intrinsic
def double_to_half(typingctx, value):
    """float64 -> uint16 holding the nearest float16, ties to even: one instruction of a GPU."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float64), codegen


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


def several(scalar, n):
    """LLVM's type of n numbers, or of one, for 0."""
    return ir.VectorType(scalar, n) if n else scalar


def widened(context, builder, kind, value, n):
    """LLVM's n numbers of 16 bits of a kind, or one, for 0, as float32: exact."""
    if kind == "f2":
        if _lacks_conversions(context):
            return _widened_by_bits(builder, value, n)
        return builder.fpext(value, several(ir.FloatType(), n))
    if n == LANES and "+avx2" in context.codegen()._tm_features:
        return _to_upper_halves(builder, value)
    word = several(INT32, n)
    value = builder.shl(builder.zext(value, word), repeated(word, 16, n))
    return builder.bitcast(value, several(ir.FloatType(), n))


def _to_upper_halves(builder, value):
    """LLVM's `LANES` numbers of 16 bits as those of float32, by AVX2: a load of both halves and a shuffle."""
    byte = ir.VectorType(ir.IntType(8), 4 * LANES)
    both = _shuffled(builder, value, value, [*range(LANES)] * 2)
    places = [place for k in range(LANES) for place in (128, 128, 2 * k, 2 * k + 1)]  # 128 and more: zero
    kind = ir.FunctionType(byte, [byte, byte])
    shuffle = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pshuf.b")
    halves = builder.call(shuffle, [builder.bitcast(both, byte), ir.Constant(byte, places)])
    return builder.bitcast(halves, ir.VectorType(ir.FloatType(), LANES))


def narrowed(context, builder, value, n):
    """LLVM's n float32, or one, for 0, as float16, to the nearest, ties to even."""
    if _lacks_conversions(context):
        return _narrowed_by_bits(builder, value, n)
    return builder.fptrunc(value, several(ir.HalfType(), n))


def bits_of_halves(context, builder, value, n):
    """`narrowed`, of 16, 32 or more, as the bits of the results, by F16C.

    A conversion whose bits are both looked at and stored is stored by LLVM as float16, and never past the cache.
    """
    half = ir.IntType(16)
    each, name, rest = 8, "llvm.x86.vcvtps2ph.256", [ir.Constant(INT32, 0)]
    if "+avx512f" in context.codegen()._tm_features:
        each, name = 16, "llvm.x86.avx512.mask.vcvtps2ph.512"
        rest += [ir.Constant(several(half, each), None), ir.Constant(half, -1)]  # of a mask: all
    kind = ir.FunctionType(several(half, each), [several(ir.FloatType(), each), *(number.type for number in rest)])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    parts = [_shuffled(builder, value, value, range(k, k + each)) for k in range(0, n, each)]
    parts = [builder.call(function, [part, *rest]) for part in parts]
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [_shuffled(builder, a, b, range(2 * a.type.count)) for a, b in pairs]
    return parts[0]


def _lacks_conversions(context):
    """Whether the processor leaves conversions to functions that a process need not have: x86 before F16C."""
    return platform.machine() in ("x86_64", "AMD64") and "+f16c" not in context.codegen()._tm_features


def _widened_by_bits(builder, value, n):
    """The bits of a float16 as those of a float32 that is smaller by 2**112, which a multiplication makes up for."""
    word, single = several(INT32, n), several(ir.FloatType(), n)
    constant = functools.partial(repeated, n=n)
    bits = builder.zext(builder.bitcast(value, several(ir.IntType(16), n)), word)
    size = builder.shl(builder.and_(bits, constant(word, 0x7FFF)), constant(word, 13))
    number = builder.fmul(builder.bitcast(size, single), constant(single, 2.0**112))
    none = builder.icmp_unsigned(">=", size, constant(word, 0x1F << 23))  # infinity and NaN
    bits_of_none = builder.or_(size, constant(word, 0xFF << 23))
    size = builder.select(none, bits_of_none, builder.bitcast(number, word))
    sign = builder.shl(builder.and_(bits, constant(word, 0x8000)), constant(word, 16))
    return builder.bitcast(builder.or_(size, sign), single)


def _narrowed_by_bits(builder, value, n):
    """By adding half of what is cut off; of what is below the normal numbers, an addition of 1/2 cuts it off."""
    word, single = several(INT32, n), several(ir.FloatType(), n)
    constant = functools.partial(repeated, n=n)
    bits = builder.bitcast(value, word)
    size = builder.and_(bits, constant(word, 0x7FFF_FFFF))
    odd = builder.and_(builder.lshr(size, constant(word, 13)), constant(word, 1))
    moved = builder.add(builder.add(size, odd), constant(word, 0xFFF - (112 << 23)))
    normal = builder.lshr(moved, constant(word, 13))
    below = builder.fadd(builder.bitcast(size, single), constant(single, 0.5))
    below = builder.sub(builder.bitcast(below, word), constant(word, 126 << 23))
    result = builder.select(builder.icmp_unsigned("<", size, constant(word, 113 << 23)), below, normal)
    result = builder.select(
        builder.icmp_unsigned(">=", size, constant(word, 143 << 23)), constant(word, 0x1F << 10), result
    )
    missing = builder.icmp_unsigned(">", size, constant(word, 0xFF << 23))
    result = builder.select(missing, constant(word, 0x3F << 9), result)
    sign = builder.lshr(builder.and_(bits, constant(word, 1 << 31)), constant(word, 16))
    result = builder.trunc(builder.or_(result, sign), several(ir.IntType(16), n))
    return builder.bitcast(result, several(ir.HalfType(), n))


def repeated(kind, value, n):
    """LLVM's constant of n numbers, or of one, for 0."""
    return ir.Constant(kind, [value] * n if n else value)


def _shuffled(builder, a, b, places):
    """LLVM's vector of the elements of two at some places."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT32, len(places)), list(places)))


def upper_halves(builder, words):
    """LLVM's upper halves of numbers of 32 bits."""
    n = words.type.count
    halves = builder.bitcast(words, ir.VectorType(ir.IntType(16), 2 * n))
    return _shuffled(builder, halves, halves, range(1, 2 * n, 2))


def packed(builder, words):
    """LLVM's `LANES` numbers of 32 bits as so many of 16 that hold them, by SSE 4.1.

    LLVM's own way, a store that cuts them off, is never one past the cache.
    """
    four, eight = ir.VectorType(INT32, LANES // 2), ir.VectorType(ir.IntType(16), LANES)
    both = [_shuffled(builder, words, words, range(first, first + LANES // 2)) for first in (0, LANES // 2)]
    kind = ir.FunctionType(eight, [four, four])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse41.packusdw"), both)


@helper
def to_odd(value):
    """A float64 to float32 so that rounding it to a float16 gives what rounding once would.

    What is cut off makes the last bit that stays odd. The conversion is exact after that, but for numbers which are
    zeros of float16. NaN and infinity stay.
    """
    bits = bits_of(value)
    return of_bits((bits | ((bits & BEHIND_FLOAT) + BEHIND_FLOAT)) & FLOAT)


@inlined
def _in_last_places(value, far, least):
    """A float64 rounded to fewer places, ties to even; NaN and infinity stay.

    A number is added whose last place counts what the last place of the result does, `far` times the power of two of
    the value, and is taken away again. What is below the normal numbers has the last place of the least of them.
    """
    bits = bits_of(value)
    power = of_bits(bits & EXPONENT)
    power = select(power < least, least, power)
    far = of_bits(bits_of(power) + far)  # beyond 2**978 it wraps, to a number that changes nothing
    return of_bits(bits_of((value + far) - far) | (bits & SIGN))


@helper
def to_bfloat(value):
    """A float64 to the nearest float32 that is a bfloat16."""
    return _in_last_places(value, FAR, LEAST_NORMAL)


@helper
def to_half(value):
    """A float64 to the nearest that is a float16, or would be if there were larger ones."""
    return _in_last_places(value, HALF_FAR, HALF_LEAST)


@helper
def bfloat_to_float(bits):
    """uint16 holding a bfloat16 -> float32, exact."""
    return bits_to_float(np.uint32(np.uint32(bits) << np.uint32(16)))


@helper
def double_to_bfloat(value):
    """float64 -> uint16 holding the nearest bfloat16, ties to even."""
    return np.uint16(float_to_bits(np.float32(to_bfloat(value))) >> np.uint32(16))
