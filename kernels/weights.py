"""How much an element counts: a mask, weights, missing values; what is not there compiles to nothing.

A `pick` is None, or (where, weights, omit): `where` and `weights` each None or one of the forms below, `omit` None,
or True to leave out NaN. All other numbers of x keep their address (outer, channel, inner).
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from .ahead import AHEAD, FILLED, ahead, fill_slots, from_row
from .half import load
from .jit import helper, kernel, maybe


class Dense(NamedTuple):
    """A value for each value of x: (o, c, i) at ``o * outer + c * channel + i``."""

    flat: Any
    outer: int
    channel: int


class Constant(NamedTuple):
    """A value for each run of x: (o, c, i) at ``o * outer + c * channel``."""

    flat: Any
    outer: int
    channel: int


# A block of rows ------------------------------------------------------------------------------------


def opened(form, first, c0, channels, pack, inner):
    """A form as rows of pack x channels x inner columns that begin with row `first`, channel c0."""
    if form is None:
        return None
    if isinstance(form, Dense):
        return Dense(form.flat[first * form.outer + c0 * form.channel :], pack * form.outer, 0)
    if isinstance(form, Constant):
        return Constant(form.flat[first * form.outer :], pack * form.outer, 0)
    return ahead(form, first, c0, channels, pack, inner)


@overload(opened)
def _opened(form, first, c0, channels, pack, inner):
    kind = getattr(form, "instance_class", None)
    if kind is Dense:
        return lambda form, first, c0, channels, pack, inner: Dense(
            form.flat[first * form.outer + c0 * form.channel :], pack * form.outer, 0
        )
    if kind is Constant:
        return lambda form, first, c0, channels, pack, inner: Constant(
            form.flat[first * form.outer :], pack * form.outer, 0
        )
    if kind in AHEAD:
        return lambda form, first, c0, channels, pack, inner: ahead(form, first, c0, channels, pack, inner)
    return lambda form, first, c0, channels, pack, inner: None


def row_of(form, r, slot):
    """What `at` takes, for row r of an opened form; slot: which of the rows that `fill` has written."""
    if form is None:
        return None
    if isinstance(form, Constant):
        return load(form.flat, r * form.outer)
    if isinstance(form, FILLED):
        return form.buffer[slot]
    return form.flat[r * form.outer :]


@overload(row_of)
def _row_of(form, r, slot):
    kind = getattr(form, "instance_class", None)
    if kind is Constant:
        return lambda form, r, slot: load(form.flat, r * form.outer)
    if kind in FILLED:
        return lambda form, r, slot: form.buffer[slot]
    if kind is Dense:
        return lambda form, r, slot: form.flat[r * form.outer :]
    return lambda form, r, slot: None


@maybe
def block_of(pick, first, c0, channels, pack, inner):
    """A pick opened for a block of rows."""
    where, weights, omit = pick
    return (
        opened(where, first, c0, channels, pack, inner),
        opened(weights, first, c0, channels, pack, inner),
        omit,
    )


@maybe
def fill(pick, r, step, n):
    """Make rows r, r + step, ... of an opened pick ready to be viewed as slots 0 to n - 1."""
    where, weights, _ = pick
    fill_slots(where, r, step, n)
    fill_slots(weights, r, step, n)


@maybe
def view_of_row(pick, r, slot):
    """An opened pick at row r, as `weigh` takes it; `fill` comes before."""
    where, weights, omit = pick
    return row_of(where, r, slot), row_of(weights, r, slot), omit


def later(form, t):
    """An opened form from row t on."""
    if form is None:
        return None
    if isinstance(form, FILLED):
        return from_row(form, t)
    return type(form)(form.flat[t * form.outer :], form.outer, 0)


@overload(later)
def _later(form, t):
    kind = getattr(form, "instance_class", None)
    if kind is Constant:
        return lambda form, t: Constant(form.flat[t * form.outer :], form.outer, 0)
    if kind in FILLED:
        return lambda form, t: from_row(form, t)
    if kind is Dense:
        return lambda form, t: Dense(form.flat[t * form.outer :], form.outer, 0)
    return lambda form, t: None


@maybe
def rows_from(pick, t):
    """An opened pick from row t on."""
    where, weights, omit = pick
    return later(where, t), later(weights, t), omit


def rows_that_count(pick, rows):
    """Which of an opened pick's rows count, where all of a row does or does not; else None."""
    if not _by_row(pick):
        return None
    where, _, _ = pick
    return _marked(where.flat, where.outer, rows)


@helper
def _marked(flat, step, rows):
    found = np.empty(rows, np.intp)
    n = 0
    for i in range(rows):
        found[n] = i
        n += load(flat, i * step) != 0.0
    return found[:n]


def _by_row(pick):
    return pick is not None and isinstance(pick[0], Constant) and pick[1] is pick[2] is None


@overload(rows_that_count)
def _rows_that_count(pick, rows):
    if _typed_by_row(pick):
        return lambda pick, rows: _marked(pick[0].flat, pick[0].outer, rows)
    return lambda pick, rows: None


def _typed_by_row(pick):
    if not isinstance(pick, types.BaseTuple):
        return False
    where, weights, omit = pick
    return getattr(where, "instance_class", None) is Constant and weights == omit == types.none


def within_rows(pick):
    """What is left to look at in the rows that count: the opened pick, or None."""
    return None if _by_row(pick) else pick


@overload(within_rows)
def _within_rows(pick):
    if _typed_by_row(pick):
        return lambda pick: None
    return lambda pick: pick


# A run of one channel -------------------------------------------------------------------------------


def run_of(form, o, c, i):
    """What `at` takes, for the run that begins at (o, c, i)."""
    if form is None:
        return None
    if isinstance(form, Constant):
        return load(form.flat, o * form.outer + c * form.channel)
    return form.flat[o * form.outer + c * form.channel + i :]


@overload(run_of)
def _run_of(form, o, c, i):
    kind = getattr(form, "instance_class", None)
    if kind is Constant:
        return lambda form, o, c, i: load(form.flat, o * form.outer + c * form.channel)
    if kind is Dense:
        return lambda form, o, c, i: form.flat[o * form.outer + c * form.channel + i :]
    return lambda form, o, c, i: None


@maybe
def view_of_run(pick, o, c, i):
    """A pick at the run that begins at (o, c, i), as `weigh` takes it."""
    where, weights, omit = pick
    return run_of(where, o, c, i), run_of(weights, o, c, i), omit


# An element -----------------------------------------------------------------------------------------


def at(view, j):
    """Element j of a view: an array, or one number for all."""
    if view is None:
        return 1.0
    return load(view, j) if np.ndim(view) else float(view)


@overload(at)
def _at(view, j):
    if isinstance(view, types.NoneType):
        return lambda view, j: 1.0
    if isinstance(view, types.Array):
        return lambda view, j: load(view, j)
    return lambda view, j: view


@helper
def reach(view, j):
    """The weight of element j before its own value is looked at; 1 without a pick."""
    if view is None:
        return 1.0
    where, weights, _ = view
    w = at(weights, j)
    return w if at(where, j) != 0.0 else 0.0


@helper
def present(omit, value, w):
    """w, or 0 for a NaN that is to be left out."""
    if omit is None:
        return w
    return w if value == value else 0.0


@helper
def weigh(view, value, j):
    """The weight of element j, whose value is given; 1 without a pick."""
    if view is None:
        return 1.0
    _, _, omit = view
    return present(omit, value, reach(view, j))


@helper
def deviation(view, value, pivot, w):
    """value - pivot, and 0 where nothing is to be seen of the value."""
    if view is None:
        return value - pivot
    return value - pivot if w != 0.0 else 0.0


@helper
def weighted(view, w, d):
    """w * d, where a weight is more than 1 or 0; a `deviation` that does not count is 0 already."""
    if view is None:
        return d
    _, weights, _ = view
    return d if weights is None else w * d


@helper
def missing(view, value, j):
    """Whether element j is no number and has no weight: nothing of it counts, on the way back neither."""
    if view is None:
        return False
    return weigh(view, value, j) == 0.0 and not np.isfinite(value)


@kernel
def usable(weights, lo, hi):
    """Whether elements lo..hi of a flat array are finite and not negative."""
    part, count = weights[lo:hi], 0
    for i in range(part.size):
        w = load(part, i)
        count += (w >= 0.0) & (w < np.inf)
    return count == part.size
