"""How much an element counts: a mask, weights, missing values; what is not there compiles to nothing.

A `pick` is None, or (where, weights, omit): `where` and `weights` each None or a form of `forms.py`, `omit` None, or
True to leave out NaN. A form is opened for a block of rows and viewed at a row, or viewed at a run; a view is looked at
element by element, or several at a time. What is written here takes any index of `memory.load`.
"""

import numpy as np
from numba import types
from numba.extending import overload

from .ahead import AHEAD, FILLED, ahead, fill_slots, from_row, room_ahead
from .flat import Flat
from .forms import Constant, Dense
from .jit import ALONE, helper, inlined, maybe, otherwise
from .lines import touch
from .memory import at, is_set_by, load, load_by
from .operation import argument, nothing_at_all, operation
from .vector import ONE, how_many, kind_of, select

# A block of rows ------------------------------------------------------------------------------------


def opened(form, first, c0, channels, pack, inner, room):
    """A form as rows of pack x channels x inner columns that begin with row `first`, channel c0; room: see `ahead`."""
    if form is None:
        return None
    if isinstance(form, Dense):
        return Dense(at(form.flat, first * form.outer + c0 * form.channel), pack * form.outer, 0)
    if isinstance(form, Constant):
        return Constant(at(form.flat, first * form.outer), pack * form.outer, 0)
    return ahead(form, first, c0, channels, pack, inner, room)


@overload(opened, jit_options=ALONE)
def _opened(form, first, c0, channels, pack, inner, room):
    kind = kind_of(form)
    if kind is Dense:
        return lambda form, first, c0, channels, pack, inner, room: Dense(
            at(form.flat, first * form.outer + c0 * form.channel), pack * form.outer, c0 - c0
        )
    if kind is Constant:
        return lambda form, first, c0, channels, pack, inner, room: Constant(
            at(form.flat, first * form.outer), pack * form.outer, c0 - c0
        )
    if kind in AHEAD:
        return lambda form, first, c0, channels, pack, inner, room: ahead(form, first, c0, channels, pack, inner, room)
    return lambda form, first, c0, channels, pack, inner, room: None


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
def room_of_pick(pick, width):
    """How much room `block_of` may take for each of its two forms, for rows of so many columns."""
    return room_ahead(width)


@maybe
def block_of(pick, first, c0, channels, pack, inner, room, other_room):
    """A pick opened for a block of rows; the rooms are for `where` and for `weights`."""
    where, weights, omit = pick
    return (
        opened(where, first, c0, channels, pack, inner, room),
        opened(weights, first, c0, channels, pack, inner, other_room),
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
    return form._replace(flat=at(form.flat, t * form.outer))


@overload(later, jit_options=ALONE)
def _later(form, t):
    kind = kind_of(form)
    if kind is Constant:
        return lambda form, t: Constant(at(form.flat, t * form.outer), form.outer, form.channel)
    if kind in FILLED:
        return lambda form, t: from_row(form, t)
    if kind is Dense:
        return lambda form, t: Dense(at(form.flat, t * form.outer), form.outer, form.channel)
    return lambda form, t: None


@maybe
def rows_from(pick, t):
    """An opened pick from row t on."""
    where, weights, omit = pick
    return later(where, t), later(weights, t), omit


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


# Elements -------------------------------------------------------------------------------------------


def weight_at(view, j):
    """What a view says of an index: it is flat, or one number for all."""
    if view is None:
        return 1.0
    return load(view, j) if np.ndim(view) else float(view)


@operation(weight_at)
def _weight_at(view, j):
    if isinstance(view, types.NoneType):
        return types.float64(view, j), lambda context, builder, signature, args: ONE
    if isinstance(view, Flat):
        return load_by(view, j)
    return None if isinstance(view, types.Array) else (view(view, j), argument(0))


@overload(weight_at)
def _weight_at_of_array(view, j):
    return (lambda view, j: load(view, j)) if isinstance(view, types.Array) else None


@otherwise("w")
def _where(where, j, w):
    return select(weight_at(where, j) != 0.0, w, 0.0)


@otherwise(1.0)
def reach(view, j):
    """The weight at an index before the values are looked at; 1 without a pick."""
    where, weights, _ = view
    return _where(where, j, weight_at(weights, j))


@otherwise("w")
def present(omit, value, w):
    """w, or 0 for a NaN that is to be left out."""
    return select(value == value, w, 0.0)


@otherwise(1.0)
def weigh(view, value, j):
    """The weight at an index, whose value is given; 1 without a pick."""
    _, _, omit = view
    return present(omit, value, reach(view, j))


def marks(where, j):
    """Whether a view of a mask lets through what is at an index."""
    return weight_at(where, j) != 0.0


@operation(marks)
def _marks(where, j):
    return is_set_by(where, j)


@overload(marks, jit_options=ALONE)
def _overload_marks(where, j):
    if isinstance(where, types.NoneType):
        return lambda where, j: True
    return lambda where, j: weight_at(where, j) != 0.0


@otherwise(True)
def _is_there(omit, value):
    return value == value


@inlined
def _counts(view, value, j):
    """Whether a value counts, by a view without weights."""
    where, _, omit = view
    return marks(where, j) & _is_there(omit, value)


def _only_counts(view):
    """Whether values count or do not, by the type of a view: there are no weights."""
    return isinstance(view, types.BaseTuple) and isinstance(view[1], types.NoneType)


def deviation(view, value, pivot, w, j):
    """value - pivot, and 0 where nothing is to be seen of the value."""
    return value - pivot if view is None else select(w != 0.0, value - pivot, 0.0)


@overload(deviation, jit_options=ALONE)
def _deviation(view, value, pivot, w, j):
    if isinstance(view, types.NoneType):
        return lambda view, value, pivot, w, j: value - pivot
    if _only_counts(view):
        return lambda view, value, pivot, w, j: select(_counts(view, value, j), value - pivot, 0.0)
    return lambda view, value, pivot, w, j: select(w != 0.0, value - pivot, 0.0)


def four_weights(k0, k1, k2, k3, v0, v1, v2, v3, w0, w1, w2, w3, j):
    """The sum of four weights, given views, values and weights."""
    return (w0 + w1) + (w2 + w3)


@overload(four_weights, jit_options=ALONE)
def _four_weights(k0, k1, k2, k3, v0, v1, v2, v3, w0, w1, w2, w3, j):
    if _only_counts(k0):
        return lambda k0, k1, k2, k3, v0, v1, v2, v3, w0, w1, w2, w3, j: how_many(
            _counts(k0, v0, j), _counts(k1, v1, j), _counts(k2, v2, j), _counts(k3, v3, j)
        )
    return lambda k0, k1, k2, k3, v0, v1, v2, v3, w0, w1, w2, w3, j: (w0 + w1) + (w2 + w3)


@otherwise("d")
def weighted(view, w, d):
    """w * d, where a weight is more than 1 or 0; a `deviation` that does not count is 0 already."""
    _, weights, _ = view
    return _times(weights, w, d)


@otherwise("d")
def _times(weights, w, d):
    return w * d


@otherwise("result")
def unless_missing(view, value, j, result):
    """The result, and 0 for an element that is no number and has no weight: nothing of it counts, also going back."""
    return select((weigh(view, value, j) == 0.0) & ((abs(value) == np.inf) | (value != value)), 0.0, result)


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
