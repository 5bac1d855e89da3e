"""Weights and masks of packed rows that are written out, a value for each column, before the rows are used.

`picks.py` opens, fills and views them. One call fills several rows: a call for each took longer than the work itself.
"""

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from .forms import LANES, ByRow, ByRun, NestedDense, Scattered
from .jit import helper
from .lines import touch
from .memory import at, load, store
from .room import copy, padded, repeat, repeat_eight, seen_as
from .vector import kind_of

AT_ONCE = 8  # rows that a kernel looks at together
ASKED = 128  # masks or weights further on that memory is asked for, where eight are repeated


class Repeated(NamedTuple):
    """`ByRow`, opened: packed row r has the values at ``r * row + k * outer``, each for `each` columns.

    The slots of `buffer`, `width` long, hold packed rows, and the last values of each some more than these.
    """

    flat: Any
    row: int
    outer: int
    each: int
    several: int
    buffer: Any
    width: int


class Tiled(NamedTuple):
    """`ByRun`, opened, rows by themselves: row r has the `inner` values from ``r * row`` on, over and over.

    The slots of `buffer`, `width` long, hold rows.
    """

    flat: Any
    row: int
    inner: int
    buffer: Any
    width: int


class Gathered(NamedTuple):
    """`Scattered`, opened: column j of packed row r has the value at ``r * row + places[j]``.

    The slots of `buffer`, `width` long, hold packed rows; where row is 0, all the same one.
    """

    flat: Any
    row: int
    places: Any
    buffer: Any
    width: int


class Copied(NamedTuple):
    """`NestedDense`, opened: packed row r has the values of rows ``first + r * several`` on, `row` of each.

    The slots of `buffer`, `width` long, hold packed rows.
    """

    flat: Any
    axes: Any
    first: int
    several: int
    row: int
    buffer: Any
    width: int


AHEAD = (ByRow, ByRun, NestedDense, Scattered)
FILLED = (Repeated, Tiled, Copied, Gathered)


@helper
def room_ahead(width):
    """How much room a form of rows of so many columns may need."""
    return (AT_ONCE + 1) * (padded(width) + LANES)


def ahead(form, first, c0, channels, pack, inner, room):
    """A form as rows of pack x channels x inner columns that begin with row `first`, channel c0."""
    if isinstance(form, ByRow):
        return _repeated(form, first, channels, pack, inner, room)
    if isinstance(form, ByRun):
        return _tiled(form, first, channels, inner, room)
    if isinstance(form, NestedDense):
        return _copied(form, first, c0, channels, pack, inner, room)
    return _gathered(form, first, c0, channels, pack, inner, room)


@overload(ahead)
def _ahead(form, first, c0, channels, pack, inner, room):
    if kind_of(form) is ByRow:
        return lambda form, first, c0, channels, pack, inner, room: _repeated(form, first, channels, pack, inner, room)
    if kind_of(form) is ByRun:
        return lambda form, first, c0, channels, pack, inner, room: _tiled(form, first, channels, inner, room)
    if kind_of(form) is NestedDense:
        return lambda form, first, c0, channels, pack, inner, room: _copied(
            form, first, c0, channels, pack, inner, room
        )
    return lambda form, first, c0, channels, pack, inner, room: _gathered(form, first, c0, channels, pack, inner, room)


@helper
def _repeated(form, first, channels, pack, inner, room):
    each, width = channels * inner, padded(pack * channels * inner + LANES)
    buffer = seen_as(room, form.flat, AT_ONCE * width)
    return Repeated(at(form.flat, first * form.outer), pack * form.outer, form.outer, each, pack, buffer, width)


@helper
def _tiled(form, first, channels, inner, room):
    width = channels * inner
    return Tiled(at(form.flat, first * form.outer), form.outer, inner, seen_as(room, form.flat, AT_ONCE * width), width)


@helper
def _copied(form, first, c0, channels, pack, inner, room):
    row = channels * inner
    width = padded(pack * row + LANES)
    flat, buffer = at(form.flat, c0 * form.channel), seen_as(room, form.flat, AT_ONCE * width)
    return Copied(flat, form.axes, first, pack, row, buffer, width)


@helper
def _gathered(form, first, c0, channels, pack, inner, room):
    places, width = room, pack * channels * inner
    j = 0
    for k in range(pack):
        for c in range(channels):
            for i in range(inner):
                places[j] = float(k * form.outer + c * form.channel + i * form.inner)
                j += 1
    flat, buffer, row = (
        at(form.flat, first * form.outer + c0 * form.channel),
        at(room, padded(width)),
        pack * form.outer,
    )
    if row == 0:
        for slot in range(AT_ONCE):
            _gather(flat, places, at(buffer, slot * width), width)
    return Gathered(flat, row, places, buffer, width)


def from_row(form, t):
    """An opened form from packed row t on."""
    if isinstance(form, Copied):
        return form._replace(first=form.first + t * form.several)
    return form._replace(flat=at(form.flat, t * form.row))


@overload(from_row)
def _from_row(form, t):
    if kind_of(form) is Repeated:
        return lambda form, t: Repeated(
            at(form.flat, t * form.row), form.row, form.outer, form.each, form.several, form.buffer, form.width
        )
    if kind_of(form) is Tiled:
        return lambda form, t: Tiled(at(form.flat, t * form.row), form.row, form.inner, form.buffer, form.width)
    if kind_of(form) is Copied:
        return lambda form, t: Copied(
            form.flat, form.axes, form.first + t * form.several, form.several, form.row, form.buffer, form.width
        )
    return lambda form, t: Gathered(at(form.flat, t * form.row), form.row, form.places, form.buffer, form.width)


def fill_slots(form, r, step, n):
    """Write packed rows r, r + step, ... of an opened form to slots 0 to n - 1; other forms need no filling."""
    if isinstance(form, Repeated):
        _repeat_rows(form, r, step, n)
    elif isinstance(form, Tiled):
        _tile_rows(form, r, step, n)
    elif isinstance(form, Copied):
        _copy_rows(form, r, step, n)
    elif isinstance(form, Gathered):
        _gather_rows(form, r, step, n)


@overload(fill_slots)
def _fill_slots(form, r, step, n):
    if kind_of(form) is Repeated:
        return lambda form, r, step, n: _repeat_rows(form, r, step, n)
    if kind_of(form) is Tiled:
        return lambda form, r, step, n: _tile_rows(form, r, step, n)
    if kind_of(form) is Copied:
        return lambda form, r, step, n: _copy_rows(form, r, step, n)
    if kind_of(form) is Gathered:
        return lambda form, r, step, n: _gather_rows(form, r, step, n)
    return lambda form, r, step, n: None


@helper
def _gather_rows(form, r, step, n):
    if form.row != 0:
        for slot in range(n):
            flat = at(form.flat, (r + slot * step) * form.row)
            _gather(flat, form.places, at(form.buffer, slot * form.width), form.width)


@helper
def _gather(flat, places, out, width):
    for j in range(width):
        store(out, j, load(flat, np.intp(places[j])))


@helper
def _copy_rows(form, r, step, n):
    for slot in range(n):
        place = form.first + (r + slot * step) * form.several
        write_out(form.flat, form.axes, place, form.several, form.row, at(form.buffer, slot * form.width))


@helper
def write_out(flat, axes, place, n, row, out):
    """Write what is at n places of an axis that is three in one, from one on, side by side, `row` values for each.

    flat: from place 0 on. Up to `LANES` values more are written behind them.
    """
    many, few, fast = axes.many, axes.few, axes.fast
    a, k = place // few, place % few
    b, a = a // many, a % many
    done = 0
    while done < n:
        size, start, to = min(few - k, n - done), b * axes.slowest + a * axes.slow + k * fast, done * row
        if fast == row:
            copy(flat, start, out, to, size * row)
        elif fast == 0 and row == 1:
            for j in range(to, to + size, LANES):  # what is too much is overwritten
                repeat(flat, start, out, j)
        else:
            for j in range(size):
                copy(flat, start + j * fast, out, to + j * row, row)
        done, k, a = done + size, 0, a + 1
        if a == many:
            a, b = 0, b + 1


@helper
def _tile_rows(form, r, step, n):
    for slot in range(n):
        out, have = slot * form.width, form.inner
        copy(form.flat, (r + slot * step) * form.row, form.buffer, out, have)
        while have < form.width:  # twice as much each time, by ever longer copies
            more = min(have, form.width - have)
            copy(form.buffer, out, form.buffer, out + have, more)
            have += more


@helper
def _repeat_rows(form, r, step, n):
    few = 0
    if form.outer == 1 and 2 <= form.each <= 4:
        few = form.several // LANES * LANES
    for slot in range(n):
        first, out = (r + slot * step) * form.row, slot * form.width
        for k in range(0, few, LANES):
            touch(form.flat, first + k + ASKED)
            repeat_eight(form.flat, first + k, form.buffer, out + k * form.each, form.each)
        for k in range(few, form.several):
            begin = out + k * form.each
            for j in range(begin, begin + form.each, LANES):  # the next value overwrites what is too much
                repeat(form.flat, first + k * form.outer, form.buffer, j)
