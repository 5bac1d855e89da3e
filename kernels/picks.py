"""Masks and weights, opened for a block of rows and viewed at a row, or viewed at a run.

A `pick` is None, or (where, weights, omit): `where` and `weights` each None or a form of `forms.py`, `omit` None, or
True to leave out NaN. `weights.py` looks at the views element by element, or several at a time.
"""

import numpy as np
from numba import types
from numba.extending import overload

from .ahead import AHEAD, FILLED, ahead, fill_slots, from_row, room_ahead
from .flat import Flat
from .forms import Constant, Dense, Nested
from .jit import ALONE, helper, inlined, maybe, otherwise
from .lines import touch
from .memory import at, load
from .nested import Rows, opened_nested, room_of_table, run_written, tile_of
from .operation import argument, nothing_at_all, operation
from .vector import kind_of

# A block of rows ------------------------------------------------------------------------------------


def opened(form, first, c0, channels, pack, inner, places, room):
    """A form as rows of pack x channels x inner columns that begin with row `first`, channel c0; room: see `ahead`."""
    if isinstance(form, Nested):
        return opened_nested(form, first, channels, pack, inner, places, room)
    if form is None:
        return None
    if isinstance(form, Dense):
        return Dense(at(form.flat, first * form.outer + c0 * form.channel), pack * form.outer, 0)
    if isinstance(form, Constant):
        return Constant(at(form.flat, first * form.outer), pack * form.outer, 0)
    return ahead(form, first, c0, channels, pack, inner, room)


@overload(opened, jit_options=ALONE)
def _opened(form, first, c0, channels, pack, inner, places, room):
    kind = kind_of(form)
    if kind is Dense:
        return lambda form, first, c0, channels, pack, inner, places, room: Dense(
            at(form.flat, first * form.outer + c0 * form.channel), pack * form.outer, c0 - c0
        )
    if kind is Constant:
        return lambda form, first, c0, channels, pack, inner, places, room: Constant(
            at(form.flat, first * form.outer), pack * form.outer, c0 - c0
        )
    if kind is Nested:
        return lambda form, first, c0, channels, pack, inner, places, room: opened_nested(
            form, first, channels, pack, inner, places, room
        )
    if kind in AHEAD:
        return lambda form, first, c0, channels, pack, inner, places, room: ahead(
            form, first, c0, channels, pack, inner, room
        )
    return lambda form, first, c0, channels, pack, inner, places, room: None


def row_of(form, r, slot):
    """What `weight_at` takes, for row r of an opened form; slot: which of the rows that `fill` has written."""
    if form is None:
        return None
    if isinstance(form, Constant):
        return load(form.flat, r * form.outer)
    if isinstance(form, FILLED):
        return at(form.buffer, slot * form.width)
    return at(form.flat, r * form.outer)


@overload(row_of, jit_options=ALONE)
def _row_of(form, r, slot):
    kind = kind_of(form)
    if kind is Constant:
        return lambda form, r, slot: load(form.flat, r * form.outer)
    if kind in FILLED:
        return lambda form, r, slot: at(form.buffer, slot * form.width)
    if kind is Dense:
        return lambda form, r, slot: at(form.flat, r * form.outer)
    return lambda form, r, slot: None


@otherwise(0)
def room_of_pick(pick, width, places):
    """How much room `block_of` may take for each of its two forms, in float64.

    width: columns; places: the most rows, not packed, of a tile, where rows are taken by `rows_from`.
    """
    return room_ahead(width) + (room_of_table(places) if has_nested(pick) else 0)


def has_nested(pick):
    """Whether a pick has a form that is to be written out before it is used."""
    return pick is not None and isinstance(pick[0], Nested) | isinstance(pick[1], Nested)


@operation(has_nested)
def _has_nested(pick):
    has = isinstance(pick, types.BaseTuple) and Nested in (kind_of(pick[0]), kind_of(pick[1]))
    return types.boolean(pick), lambda context, builder, signature, args: context.get_constant(types.boolean, has)


@maybe
def block_of(pick, first, c0, channels, pack, inner, places, room, other_room):
    """A pick opened for a block of rows; the rooms are for `where` and for `weights`, see `room_of_pick`."""
    where, weights, omit = pick
    return (
        opened(where, first, c0, channels, pack, inner, places, room),
        opened(weights, first, c0, channels, pack, inner, places, other_room),
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


def later(form, t, n):
    """An opened form from row t on, for n rows."""
    if isinstance(form, Rows):
        return tile_of(form, t, n)
    if form is None:
        return None
    if isinstance(form, FILLED):
        return from_row(form, t)
    return form._replace(flat=at(form.flat, t * form.outer))


@overload(later, jit_options=ALONE)
def _later(form, t, n):
    kind = kind_of(form)
    if kind is Constant:
        return lambda form, t, n: Constant(at(form.flat, t * form.outer), form.outer, form.channel)
    if kind is Rows:
        return lambda form, t, n: tile_of(form, t, n)
    if kind in FILLED:
        return lambda form, t, n: from_row(form, t)
    if kind is Dense:
        return lambda form, t, n: Dense(at(form.flat, t * form.outer), form.outer, form.channel)
    return lambda form, t, n: None


@maybe
def rows_from(pick, t, n):
    """An opened pick from row t on, for n rows."""
    where, weights, omit = pick
    return later(where, t, n), later(weights, t, n), omit


def count_rows(pick, rows, places):
    """How many of an opened pick's rows count, and write which to `places`, where all of a row does or does not."""
    return _marked(pick[0].flat, pick[0].outer, rows, places) if by_row(pick) else rows


@helper
def _marked(flat, step, rows, places):
    n = 0
    for i in range(rows):
        places[n] = float(i)
        n += load(flat, i * step) != 0.0
    return n


def place(pick, places, i):
    """The i-th row that counts."""
    return int(places[i]) if by_row(pick) else i


def by_row(pick):
    """Whether all of a row counts or does not, and nothing else is asked."""
    return pick is not None and isinstance(pick[0], Constant) and pick[1] is pick[2] is None


def _typed_by_row(pick):
    if not isinstance(pick, types.BaseTuple):
        return False
    where, weights, omit = pick
    return kind_of(where) is Constant and weights == omit == types.none


@overload(count_rows, jit_options=ALONE)
def _count_rows(pick, rows, places):
    if _typed_by_row(pick):
        return lambda pick, rows, places: _marked(pick[0].flat, pick[0].outer, rows, places)
    return None


@operation(count_rows)
def _every_row(pick, rows, places):
    return None if _typed_by_row(pick) else (types.intp(pick, types.intp, places), argument(1))


@overload(place, jit_options=ALONE)
def _place(pick, places, i):
    return (lambda pick, places, i: np.intp(places[i])) if _typed_by_row(pick) else None


@operation(place)
def _same_place(pick, places, i):
    return None if _typed_by_row(pick) else (types.intp(pick, places, types.intp), argument(2))


def within_rows(pick):
    """What is left to look at in the rows that count: the opened pick, or None."""
    return None if by_row(pick) else pick


@operation(within_rows)
def _within_rows(pick):
    if _typed_by_row(pick):
        return types.none(pick), nothing_at_all
    return pick(pick), argument(0)


# A run of one channel -------------------------------------------------------------------------------


def run_of(form, o, c, i):
    """What `weight_at` takes, for the run that begins at (o, c, i)."""
    if form is None:
        return None
    if isinstance(form, Constant):
        return load(form.flat, o * form.outer + c * form.channel)
    return at(form.flat, o * form.outer + c * form.channel + i)


@overload(run_of, jit_options=ALONE)
def _run_of(form, o, c, i):
    kind = kind_of(form)
    if kind is Constant:
        return lambda form, o, c, i: load(form.flat, o * form.outer + c * form.channel)
    if kind is Dense:
        return lambda form, o, c, i: at(form.flat, o * form.outer + c * form.channel + i)
    return lambda form, o, c, i: None


@maybe
def view_of_run(pick, o, c, i):
    """A pick at the run that begins at (o, c, i), as `weigh` takes it."""
    where, weights, omit = pick
    return run_of(where, o, c, i), run_of(weights, o, c, i), omit


def written_run(form, o, c, i, n, room):
    """`run_of`, of n values: what is to be written out, goes to a room for as many."""
    return run_written(form, o, c, i, n, room) if isinstance(form, Nested) else run_of(form, o, c, i)


@overload(written_run, jit_options=ALONE)
def _written_run(form, o, c, i, n, room):
    if kind_of(form) is Nested:
        return lambda form, o, c, i, n, room: run_written(form, o, c, i, n, room)
    return lambda form, o, c, i, n, room: run_of(form, o, c, i)


@maybe
def view_of_values(pick, o, c, i, n, room, size):
    """`view_of_run`, of n values; room: `size` for `where`, and as much for `weights`."""
    where, weights, omit = pick
    return written_run(where, o, c, i, n, room), written_run(weights, o, c, i, n, at(room, size)), omit


@otherwise(0)
def _channel_stride(form):
    return form.channel


@otherwise(False)
def one_for_all(pick):
    """Whether all channels of planes have the same masks and weights, which it pays to use while they are cached."""
    where, weights, _ = pick
    some = where is not None or weights is not None
    return some and _channel_stride(where) == 0 and _channel_stride(weights) == 0


@inlined
def ask_for_picks(k0, k1, k2, k3, j, ahead):
    """Ask for the masks and weights of elements further on, where each has its own, of four streams."""
    if ahead is not None and k0 is not None:
        _ask_both(k0, j, ahead)
        _ask_both(k1, j, ahead)
        _ask_both(k2, j, ahead)
        _ask_both(k3, j, ahead)


@inlined
def _ask_both(view, j, ahead):
    where, weights, _ = view
    _ask(where, j, ahead)
    _ask(weights, j, ahead)


def _ask(flat, j, ahead):
    if not isinstance(flat, float) and flat is not None:
        touch(flat, j + ahead)


@overload(_ask, jit_options=ALONE)
def _overload_ask(flat, j, ahead):
    if isinstance(flat, Flat):
        return lambda flat, j, ahead: touch(flat, j + ahead)
    return lambda flat, j, ahead: None
