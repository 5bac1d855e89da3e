"""Flat memory in a kernel: an address whose type says what lies there, with loads and stores of one value or several.

A `Flat` is what the entry of a kernel makes of a one-dimensional array; without the compiler, it is the array itself.
The kernels for CUDA hand arrays of numba to `load` and `store`. Everything is float64 between the two.
"""

import functools
import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import overload

from .flat import BYTE, Flat, eight_elements, few_elements, not_kept, place_of, put_few
from .forms import LANES, Eight, Few
from .half import (
    BFLOAT,
    HALF,
    bfloat_to_float,
    double_to_bfloat,
    double_to_half,
    half_to_float,
    narrowed,
    packed,
    repeated,
    several,
    to_bfloat,
    to_odd,
    widened,
)
from .jit import ALONE
from .operation import argument, nothing_at_all, operation
from .vector import DOUBLE, INT32, TRUTH, VECTOR, kind_of, spread, unknown

ROUNDED = ("f2", "b2")  # kinds that a float64 is rounded to by more than an instruction
OWN = {"f8": types.float64, "i8": types.int64}  # kinds that a kernel keeps for itself, read and written by []


def _to_double(context, builder, flat, value, n):
    """An element, or n of them, as float64."""
    if flat.kind == "f8":
        return value
    if flat.kind in ROUNDED:
        value = widened(context, builder, flat.kind, value, n)
    elif flat.kind[0] in "iu":
        return (builder.sitofp if flat.kind[0] == "i" else builder.uitofp)(value, several(DOUBLE, n))
    return builder.fpext(value, several(DOUBLE, n))


def _from_double(context, builder, flat, value, n, past=False):
    """float64 to an element, or n of them; one that is a number of 16 bits has been rounded for it before."""
    if flat.kind == "f8":
        return value
    value = builder.fptrunc(value, several(ir.FloatType(), n))
    if flat.kind == "f2":
        return narrowed(context, builder, value, n)
    if flat.kind == "b2":
        word = several(INT32, n)
        value = builder.lshr(builder.bitcast(value, word), repeated(word, 16, n))
        return packed(builder, value) if past else builder.trunc(value, several(ir.IntType(16), n))
    return value


# Elements --------------------------------------------------------------------------------------------


@operation(operator.getitem, Flat, types.Integer)
def _getitem(x, i):
    if not isinstance(x, Flat):
        return None

    def codegen(context, builder, signature, args):
        return builder.load(place_of(builder, signature.args[0], *args))

    return OWN[x.kind](x, types.intp), codegen


@operation(operator.setitem, Flat, types.Integer, types.Any)
def _setitem(x, i, value):
    if not isinstance(x, Flat):
        return None

    def codegen(context, builder, signature, args):
        builder.store(args[2], place_of(builder, signature.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(x, types.intp, OWN[x.kind]), codegen


# Loads and stores ------------------------------------------------------------------------------------


def load(x, i):
    """The element or elements of flat memory at an index, as float64; what an index leaves out is 0."""
    if isinstance(i, (Eight, Few)):
        n = LANES if isinstance(i, Eight) else i.n
        return np.array([load(x, k) for k in range(i.i, i.i + n)] + [0.0] * (LANES - n))
    value = x[i]
    if x.dtype == HALF:
        return np.float64(value["half"].view(np.float16))
    if x.dtype == BFLOAT:
        return np.float64((np.uint32(value["bfloat"]) << np.uint32(16)).view(np.float32))
    return np.float64(value)


def store(out, i, value):
    """Round to the type of the memory, once, and write there."""
    if isinstance(i, (Eight, Few)):
        n = LANES if isinstance(i, Eight) else i.n
        for k, one in enumerate(np.broadcast_to(value, LANES)[:n]):
            store(out, i.i + k, one)
    elif out.dtype == HALF:
        out[i]["half"] = np.float32(to_odd(value)).astype(np.float16).view(np.uint16)
    elif out.dtype == BFLOAT:
        out[i]["bfloat"] = np.uint16(np.float32(to_bfloat(value)).view(np.uint32) >> np.uint32(16))
    else:
        out[i] = value


def store_past(out, i, value):
    """Store eight values past the cache, where they are whole lines of memory; `settle` comes after the last."""
    store(out, i, value)


@operation(load)
def load_by(x, i):
    """`load` of flat memory, by the types of the arguments."""
    if not isinstance(x, Flat):
        return None
    if kind_of(i) is Eight:
        return VECTOR(x, i), _load_eight
    if kind_of(i) is Few:
        return VECTOR(x, i), _load_few
    return types.float64(x, types.intp), _load_one


def _load_one(context, builder, signature, args):
    flat = signature.args[0]
    return _to_double(context, builder, flat, builder.load(place_of(builder, flat, *args)), 0)


def _load_eight(context, builder, signature, args):
    flat = signature.args[0]
    return _to_double(context, builder, flat, eight_elements(builder, flat, *args), LANES)


def _load_few(context, builder, signature, args):
    flat = signature.args[0]
    return _to_double(context, builder, flat, few_elements(builder, flat, *args), LANES)


def is_set_by(x, i):
    """Whether bytes of flat memory are not 0, eight of them or a few, by the types of the arguments."""
    if not (isinstance(x, Flat) and x.kind == "u1" and kind_of(i) in (Eight, Few)):
        return None
    elements = eight_elements if kind_of(i) is Eight else few_elements

    def codegen(context, builder, signature, args):
        value = elements(builder, signature.args[0], *args)
        zero = ir.Constant(value.type, None)
        if "+avx512bw" in context.codegen()._tm_features:
            # Else LLVM turns "not 0" around for all that asks, and AVX-512 needs both.
            zero = builder.bitcast(unknown(builder, 0.0), value.type)
        return builder.icmp_unsigned(">", value, zero)

    return TRUTH(x, i), codegen


def _put(out, i, value):
    """`store` of what has been rounded."""


def _put_past(out, i, value):
    """`store_past` of what has been rounded."""


def _putting(past):
    """The operation that stores, into the cache or past it."""

    def define(out, i, value):
        if not isinstance(out, Flat):
            return None
        if kind_of(i) is Eight:
            return types.void(out, i, value), _store_eight_past if past else _store_eight
        if kind_of(i) is Few:
            return types.void(out, i, value), _store_few
        return types.void(out, types.intp, types.float64), _store_one

    return define


operation(_put)(_putting(False))
operation(_put_past)(_putting(True))


def _storing(put):
    """The operation that rounds and stores; of numbers of 16 bits it is left to an overload."""

    def define(out, i, value):
        return put(out, i, value) if isinstance(out, Flat) and out.kind not in ROUNDED else None

    return define


operation(store)(_storing(_putting(False)))
operation(store_past)(_storing(_putting(True)))


def _store_one(context, builder, signature, args):
    flat = signature.args[0]
    builder.store(_from_double(context, builder, flat, args[2], 0), place_of(builder, flat, args[0], args[1]))
    return context.get_dummy_value()


def _store_eight(context, builder, signature, args, past=False):
    flat = signature.args[0]
    packs = past and "+sse4.1" in context.codegen()._tm_features
    value = _from_double(context, builder, flat, spread(builder, args[2], VECTOR.llvm), LANES, packs)
    place = place_of(builder, flat, args[0], builder.extract_value(args[1], 0), value.type)
    stored = builder.store(value, place, align=flat.size * LANES if past else flat.size)
    if past:
        not_kept(builder, stored)
    return context.get_dummy_value()


_store_eight_past = functools.partial(_store_eight, past=True)


def _store_few(context, builder, signature, args):
    flat = signature.args[0]
    value = _from_double(context, builder, flat, spread(builder, args[2], VECTOR.llvm), LANES)
    put_few(builder, flat, args[0], args[1], value)
    return context.get_dummy_value()


@overload(load)
def _overload_load(x, i):
    return None if isinstance(x, Flat) else _load_of_array(x)


@overload(store, jit_options=ALONE)
def _overload_store(out, i, value):
    if not isinstance(out, Flat):
        return _store_to_array(out)
    if out.kind == "f2":
        return lambda out, i, value: _put(out, i, to_odd(value))
    return (lambda out, i, value: _put(out, i, to_bfloat(value))) if out.kind == "b2" else None


@overload(store_past, jit_options=ALONE)
def _overload_store_past(out, i, value):
    if out.kind == "f2":
        return lambda out, i, value: _put_past(out, i, to_odd(value))
    return (lambda out, i, value: _put_past(out, i, to_bfloat(value))) if out.kind == "b2" else None


def field(array):
    return next(iter(array.dtype.fields)) if isinstance(getattr(array, "dtype", None), types.Record) else ""


def _load_of_array(x):
    if field(x) == "half":
        return lambda x, i: np.float64(half_to_float(x[i].half))
    if field(x) == "bfloat":
        return lambda x, i: np.float64(bfloat_to_float(x[i].bfloat))
    return lambda x, i: np.float64(x[i])


def _store_to_array(out):
    if field(out) == "half":

        def store_half(out, i, value):
            out[i].half = double_to_half(value)

        return store_half
    if field(out) == "bfloat":

        def store_bfloat(out, i, value):
            out[i].bfloat = double_to_bfloat(value)

        return store_bfloat

    def store_native(out, i, value):
        out[i] = value

    return store_native


def number(value, j):
    """What lies at an index of flat memory; one number is the same at all."""
    return value if isinstance(value, float) else load(value, j)


@operation(number)
def _number(value, j):
    if isinstance(value, Flat):
        return load_by(value, j)
    return None if isinstance(value, types.Array) else (value(value, j), argument(0))


@overload(number)
def _overload_number(value, j):
    return (lambda value, j: load(value, j)) if isinstance(value, types.Array) else None


# Addresses -------------------------------------------------------------------------------------------


def at(x, n):
    """Flat memory from element n on; None stays None."""
    return None if x is None else x[n:]


def moved(index, n):
    """The index of what lies n elements further."""
    return index + n if isinstance(index, int | np.integer) else index._replace(i=index.i + n)


@operation(at)
def _at(x, n):
    if isinstance(x, types.NoneType):
        return types.none(x, n), nothing_at_all
    if not isinstance(x, Flat):
        return None

    def codegen(context, builder, signature, args):
        return builder.bitcast(place_of(builder, signature.args[0], *args), BYTE.as_pointer())

    return x(x, types.intp), codegen


@overload(at)
def _overload_at(x, n):
    return (lambda x, n: x[n:]) if isinstance(x, types.Array) else None


@operation(moved)
def _moved(index, n):
    def codegen(context, builder, signature, args):
        index, n = args
        if not isinstance(signature.args[0], types.BaseTuple):
            return builder.add(index, n)
        return builder.insert_value(index, builder.add(builder.extract_value(index, 0), n), 0)

    of = index if isinstance(index, types.BaseTuple) else types.intp
    return of(of, types.intp), codegen
