"""Weights and masks of packed rows that are written out, a value for each column, before the rows are used.

`weights.py` opens, fills and views them. One call fills several rows: a call for each took longer than the work itself.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from .half import load
from .jit import helper

AT_ONCE = 8  # rows that a kernel looks at together
BEYOND = 8  # a value is repeated by as many at a time: the next one overwrites what is too much


class ByRow(NamedTuple):
    """A value for each row of x, of a native type: (o, c, i) at ``o * outer``."""

    flat: Any
    outer: int


class ByRun(NamedTuple):
    """A value for each place of a run, all channels alike, of a native type: (o, c, i) at ``o * outer + i``."""

    flat: Any
    outer: int


class Scattered(NamedTuple):
    """Anything else: (o, c, i) at ``o * outer + c * channel + i * inner``."""

    flat: Any
    outer: int
    channel: int
    inner: int


class Repeated(NamedTuple):
    """`ByRow`, opened: packed row r has the values at ``r * row + k * outer``, each for `width` columns.

    The slots of `buffer`, (AT_ONCE, columns + BEYOND), hold packed rows.
    """

    flat: Any
    row: int
    outer: int
    width: int
    buffer: Any


class Tiled(NamedTuple):
    """`ByRun`, opened, rows by themselves: row r has the `inner` values from ``r * row`` on, over and over.

    The slots of `buffer`, (AT_ONCE, columns), hold rows.
    """

    flat: Any
    row: int
    inner: int
    buffer: Any


class Gathered(NamedTuple):
    """`Scattered`, opened: column j of packed row r has the value at ``r * row + at[j]``.

    The slots of `buffer`, (AT_ONCE, columns), hold packed rows; where row is 0, all the same one.
    """

    flat: Any
    row: int
    at: Any
    buffer: Any


AHEAD = (ByRow, ByRun, Scattered)
FILLED = (Repeated, Tiled, Gathered)


def _kind(form):
    """The NamedTuple that a numba type stands for."""
    return getattr(form, "instance_class", None)


def ahead(form, first, c0, channels, pack, inner):
    """A form as rows of pack x channels x inner columns that begin with row `first`, channel c0."""
    if isinstance(form, ByRow):
        return _repeated(form, first, channels, pack, inner)
    if isinstance(form, ByRun):
        return _tiled(form, first, channels, inner)
    return _gathered(form, first, c0, channels, pack, inner)


@overload(ahead)
def _ahead(form, first, c0, channels, pack, inner):
    if _kind(form) is ByRow:
        return lambda form, first, c0, channels, pack, inner: _repeated(form, first, channels, pack, inner)
    if _kind(form) is ByRun:
        return lambda form, first, c0, channels, pack, inner: _tiled(form, first, channels, inner)
    return lambda form, first, c0, channels, pack, inner: _gathered(form, first, c0, channels, pack, inner)


@helper
def _repeated(form, first, channels, pack, inner):
    width = channels * inner
    buffer = np.empty((AT_ONCE, pack * width + BEYOND), form.flat.dtype)
    return Repeated(form.flat[first * form.outer :], pack * form.outer, form.outer, width, buffer)


@helper
def _tiled(form, first, channels, inner):
    buffer = np.empty((AT_ONCE, channels * inner), form.flat.dtype)
    return Tiled(form.flat[first * form.outer :], form.outer, inner, buffer)


@helper
def _gathered(form, first, c0, channels, pack, inner):
    at = np.empty(pack * channels * inner, np.uint64)  # unsigned: no index from the end, which would cost a branch
    j = 0
    for k in range(pack):
        for c in range(channels):
            for i in range(inner):
                at[j] = k * form.outer + c * form.channel + i * form.inner
                j += 1
    flat, row, buffer = form.flat[first * form.outer + c0 * form.channel :], pack * form.outer, np.empty((AT_ONCE, j))
    if row == 0:
        for slot in range(AT_ONCE):
            _gather(flat, at, buffer[slot])
    return Gathered(flat, row, at, buffer)


def from_row(form, t):
    """An opened form from packed row t on."""
    return type(form)(form.flat[t * form.row :], *form[1:])


@overload(from_row)
def _from_row(form, t):
    if _kind(form) is Repeated:
        return lambda form, t: Repeated(form.flat[t * form.row :], form.row, form.outer, form.width, form.buffer)
    if _kind(form) is Tiled:
        return lambda form, t: Tiled(form.flat[t * form.row :], form.row, form.inner, form.buffer)
    return lambda form, t: Gathered(form.flat[t * form.row :], form.row, form.at, form.buffer)


def fill_slots(form, r, step, n):
    """Write packed rows r, r + step, ... of an opened form to slots 0 to n - 1; other forms need no filling."""
    if isinstance(form, Repeated):
        _repeat_rows(form, r, step, n)
    elif isinstance(form, Tiled):
        _tile_rows(form, r, step, n)
    elif isinstance(form, Gathered):
        _gather_rows(form, r, step, n)


@overload(fill_slots)
def _fill_slots(form, r, step, n):
    if _kind(form) is Repeated:
        return lambda form, r, step, n: _repeat_rows(form, r, step, n)
    if _kind(form) is Tiled:
        return lambda form, r, step, n: _tile_rows(form, r, step, n)
    if _kind(form) is Gathered:
        return lambda form, r, step, n: _gather_rows(form, r, step, n)
    return lambda form, r, step, n: None


@helper
def _gather_rows(form, r, step, n):
    for slot in range(n if form.row != 0 else 0):
        _gather(form.flat[(r + slot * step) * form.row :], form.at, form.buffer[slot])


@helper
def _gather(flat, at, out):
    for j in range(at.size):
        out[j] = load(flat, at[j])


@helper
def _tile_rows(form, r, step, n):
    for slot in range(n):
        out, at, have = form.buffer[slot], (r + slot * step) * form.row, form.inner
        _copy(form.flat[at : at + have], out[:have])
        while have < out.size:  # twice as much each time, by ever longer copies
            more = min(have, out.size - have)
            _copy(out[:more], out[have : have + more])
            have += more


@helper
def _copy(source, out):
    for j in range(out.size):
        out[j] = source[j]


@helper
def _repeat_rows(form, r, step, n):
    width, outer = np.uint64(form.width), np.uint64(form.outer)  # unsigned, as in `_gathered`
    several = (form.buffer.shape[1] - BEYOND) // form.width
    for slot in range(n):
        out, source, at = form.buffer[slot], np.uint64((r + slot * step) * form.row), np.uint64(0)
        for _ in range(several):
            value = form.flat[source]
            for j in range(at, at + width, np.uint64(BEYOND)):
                _store_run(out, j, value)
            source += outer
            at += width


def _store_run(out, at, value):
    """Store a value BEYOND times, from element `at` of a flat array on."""
    out[at : at + BEYOND] = value


@intrinsic
def _stored_run(typingctx, out, at, value):
    """`_store_run` by whole vectors, which the compiler does not make of so few elements."""

    def codegen(context, builder, signature, args):
        several = ir.VectorType(args[2].type, BEYOND)
        undefined, lanes = ir.Constant(several, ir.Undefined), ir.VectorType(ir.IntType(32), BEYOND)
        first = builder.insert_element(undefined, args[2], ir.Constant(ir.IntType(32), 0))
        run = builder.shuffle_vector(first, undefined, ir.Constant(lanes, [0] * BEYOND))
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), several.as_pointer())
        builder.store(run, place, align=out.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(out, types.uint64, out.dtype), codegen


@overload(_store_run)
def _run_stored(out, at, value):
    return lambda out, at, value: _stored_run(out, at, value)
