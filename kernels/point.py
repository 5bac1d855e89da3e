"""One element of a result, or several: what a task (`forms.Affine`, `forms.Gradient`) makes of the elements of x.

A task has its parameters by channel, flat. Along a row it gets them for each column (`with_columns`), along a run as
numbers (`of_channel`). Where its arrays have the elements of a row or a run, and what the pick says of them, is a
place.
"""

from numba import types
from numba.extending import overload

from .activation import activate, slope
from .columns import spread
from .forms import Affine, Gradient
from .jit import ALONE, helper, inlined, maybe
from .lines import touch
from .memory import at, load, moved, number, store
from .operation import call_of, nothing_at_all, operation
from .picks import block_of, fill, view_of_row, view_of_run
from .vector import kind_of
from .weights import unless_missing, weigh

# Parameters ------------------------------------------------------------------------------------------


@inlined
def plus(value, shift, j):
    """value + shift at an index, or the value where shift is None: an absent parameter is never loaded."""
    if shift is None:
        return value
    return value + number(shift, j)


@inlined
def beside(value, residual, j):
    """value + residual at an index, or the value where there is no residual."""
    if residual is None:
        return value
    return value + load(residual, j)


@maybe
def one_of(parameter, c):
    """The parameter of one channel; None stays None."""
    return load(parameter, c)


@maybe
def columns(parameter, c0, channels, inner, pack, phase, room):
    """A parameter of channels c0... for each column of a wide row, beginning with column `phase`; None stays None."""
    if phase == 0:
        spread(at(parameter, c0), channels, inner, pack, room)
        return room
    width, j = pack * channels * inner, -phase
    for _ in range(pack):
        for c in range(c0, c0 + channels):
            value = load(parameter, c)
            for _ in range(inner):
                room[j if j >= 0 else j + width] = value
                j += 1
    return room


# The affine function ---------------------------------------------------------------------------------


@inlined
def _affine(t, place, j):
    x_at, r_at, _ = place
    value = plus((load(t.x, moved(j, x_at)) - number(t.mean, j)) * number(t.scale, j), t.shift, j)
    return activate(t.activation, beside(value, t.residual, moved(j, r_at)))


@helper
def _affine_columns(t, first, c0, channels, inner, pack, phase, room, w):
    return Affine(
        at(t.x, first * t.x_outer + c0 * inner + phase), pack * t.x_outer, t.x_channel,
        columns(t.mean, c0, channels, inner, pack, phase, room),
        columns(t.scale, c0, channels, inner, pack, phase, at(room, w)),
        columns(t.shift, c0, channels, inner, pack, phase, at(room, 2 * w)),
        at(t.residual, first * t.r_outer + c0 * inner + phase), pack * t.r_outer, t.r_channel, t.activation,
    )  # fmt: skip


@helper
def _affine_channel(t, c):
    return Affine(
        t.x, t.x_outer, t.x_channel, load(t.mean, c), load(t.scale, c), one_of(t.shift, c),
        t.residual, t.r_outer, t.r_channel, t.activation,
    )  # fmt: skip


# The way back ----------------------------------------------------------------------------------------


@inlined
def flow(act, g, v, mean, j, residual, i):
    """The gradient g behind the activation at a value v; act: None, or (activation, scale, shift) read at j."""
    if act is None:
        return g
    activation, scale, shift = act
    return g * slope(activation, beside(plus((v - mean) * number(scale, j), shift, j), residual, i))


@inlined
def back(g, d, w, a, b, k, j):
    """The gradient of an element of x; b and k None where the statistics are frozen."""
    if b is None:
        return number(a, j) * g
    return number(a, j) * g - w * (number(b, j) + d * number(k, j))


@inlined
def _gradient(t, place, j):
    dy_at, x_at, dz_at, r_at, view = place
    v, mean = load(t.x, moved(j, x_at)), number(t.mean, j)
    g = flow(t.act, load(t.dy, moved(j, dy_at)), v, mean, j, t.residual, moved(j, r_at))
    _keep(t.dz, moved(j, dz_at), g)
    result = back(g, v - mean, weigh(view, v, j), t.a, t.b, t.k, j)
    return unless_missing(view, v, j, result)


@inlined
def _keep(dz, j, g):
    if dz is not None:
        store(dz, j, g)


@maybe
def act_columns(act, c0, channels, inner, pack, phase, room, w):
    """The parameters that an activation needs, for each column; None stays None."""
    activation, scale, shift = act
    return (
        activation,
        columns(scale, c0, channels, inner, pack, phase, room),
        columns(shift, c0, channels, inner, pack, phase, at(room, w)),
    )


@maybe
def act_channel(act, c):
    """The parameters that an activation needs, of one channel; None stays None."""
    activation, scale, shift = act
    return activation, load(scale, c), one_of(shift, c)


@helper
def _gradient_columns(t, first, c0, channels, inner, pack, phase, room, w):
    begin = c0 * inner + phase
    more = at(room, PARAMETERS * w)
    return Gradient(
        at(t.dy, first * t.dy_outer + begin), pack * t.dy_outer, t.dy_channel,
        at(t.x, first * t.x_outer + begin), pack * t.x_outer, t.x_channel,
        at(t.dz, first * t.dz_outer + begin), pack * t.dz_outer, t.dz_channel,
        block_of(t.pick, first, c0, channels, pack, inner, 0, more, at(more, PICK_ROOM * w)),
        columns(t.mean, c0, channels, inner, pack, phase, room),
        act_columns(t.act, c0, channels, inner, pack, phase, at(room, w), w),
        at(t.residual, first * t.r_outer + begin), pack * t.r_outer, t.r_channel,
        columns(t.a, c0, channels, inner, pack, phase, at(room, 3 * w)),
        columns(t.b, c0, channels, inner, pack, phase, at(room, 4 * w)),
        columns(t.k, c0, channels, inner, pack, phase, at(room, 5 * w)),
    )  # fmt: skip


@helper
def _gradient_channel(t, c):
    return Gradient(
        t.dy, t.dy_outer, t.dy_channel, t.x, t.x_outer, t.x_channel, t.dz, t.dz_outer, t.dz_channel, t.pick,
        load(t.mean, c), act_channel(t.act, c), t.residual, t.r_outer, t.r_channel,
        load(t.a, c), one_of(t.b, c), one_of(t.k, c),
    )  # fmt: skip


# Either ----------------------------------------------------------------------------------------------

FIELDS = Gradient._fields
SINGLE = 6  # of a channel, at most; seven numbers of float32 come behind them (`single.py`)
PARAMETERS = SINGLE + 4
PICK_ROOM = 12  # what a form that is written out ahead takes at most, in padded rows: see `ahead.room_ahead`


@helper
def room_of_columns(t, width_padded):
    """How much room `with_columns` takes, at most."""
    return (PARAMETERS + (2 * PICK_ROOM if _has_pick(t) else 0)) * width_padded


def _has_pick(t):
    return isinstance(t, Gradient) and t.pick is not None


@overload(_has_pick, jit_options=ALONE)
def _with_pick(t):
    has = kind_of(t) is Gradient and not isinstance(t[FIELDS.index("pick")], types.NoneType)
    return lambda t: has


def point(t, place, j):
    """The result at an index of a row or a run."""
    return _affine(t, place, j) if isinstance(t, Affine) else _gradient(t, place, j)


def with_columns(t, first, c0, channels, inner, pack, phase, room, w):
    """The task from row `first`, channel c0, column `phase` on, for rows of pack x channels x inner columns.

    w: `room.padded` of so many columns, which the room has `room_of_columns` of.
    """
    which = _affine_columns if isinstance(t, Affine) else _gradient_columns
    return which(t, first, c0, channels, inner, pack, phase, room, w)


def of_channel(t, c):
    """The task with the parameters of one channel."""
    return _affine_channel(t, c) if isinstance(t, Affine) else _gradient_channel(t, c)


def make_ready(t, r, step, n):
    """Rows r, r + step, ... will be asked for, as slots 0 to n - 1."""
    if isinstance(t, Gradient):
        fill(t.pick, r, step, n)


def row_place(t, r, slot):
    """Where row r of a task with columns is; `make_ready` comes before."""
    if isinstance(t, Affine):
        return r * t.x_outer, r * t.r_outer, None
    view = view_of_row(t.pick, r, slot)
    return r * t.dy_outer, r * t.x_outer, r * t.dz_outer, r * t.r_outer, view


def run_place(t, o, c, i):
    """Where the run is that begins at (o, c, i)."""
    if isinstance(t, Affine):
        return o * t.x_outer + c * t.x_channel + i, o * t.r_outer + c * t.r_channel + i, None
    return (
        o * t.dy_outer + c * t.dy_channel + i,
        o * t.x_outer + c * t.x_channel + i,
        o * t.dz_outer + c * t.dz_channel + i,
        o * t.r_outer + c * t.r_channel + i,
        view_of_run(t.pick, o, c, i),
    )


def look_ahead(t, place, j):
    """Ask for the memory that will be read soon, beyond an element of a place."""


@call_of(point)
def _point(t, place, j):
    return _affine if kind_of(t) is Affine else _gradient


@call_of(with_columns)
def _with_columns(t, first, c0, channels, inner, pack, phase, room, w):
    return _affine_columns if kind_of(t) is Affine else _gradient_columns


@call_of(of_channel)
def _of_channel(t, c):
    return _affine_channel if kind_of(t) is Affine else _gradient_channel


@operation(make_ready)
def _is_ready(t, r, step, n):
    if kind_of(t) is Gradient:
        return None
    return types.none(t, r, step, n), nothing_at_all


@overload(make_ready, jit_options=ALONE)
def _make_ready(t, r, step, n):
    return (lambda t, r, step, n: fill(t.pick, r, step, n)) if kind_of(t) is Gradient else None


@overload(row_place, jit_options=ALONE)
def _row_place(t, r, slot):
    if kind_of(t) is Affine:
        return lambda t, r, slot: (r * t.x_outer, r * t.r_outer, None)
    return lambda t, r, slot: (
        r * t.dy_outer,
        r * t.x_outer,
        r * t.dz_outer,
        r * t.r_outer,
        view_of_row(t.pick, r, slot),
    )


@overload(run_place, jit_options=ALONE)
def _run_place(t, o, c, i):
    if kind_of(t) is Affine:
        return lambda t, o, c, i: (o * t.x_outer + c * t.x_channel + i, o * t.r_outer + c * t.r_channel + i, None)
    return lambda t, o, c, i: (
        o * t.dy_outer + c * t.dy_channel + i,
        o * t.x_outer + c * t.x_channel + i,
        o * t.dz_outer + c * t.dz_channel + i,
        o * t.r_outer + c * t.r_channel + i,
        view_of_run(t.pick, o, c, i),
    )


AHEAD = 512  # elements that memory is asked for ahead, where results go past the cache


@overload(look_ahead, jit_options=ALONE)
def _look_ahead(t, place, j):
    if kind_of(t) is Affine:
        return lambda t, place, j: touch(t.x, place[0] + j + AHEAD)

    def both(t, place, j):
        touch(t.dy, place[0] + j + AHEAD)
        touch(t.x, place[1] + j + AHEAD)

    return both
