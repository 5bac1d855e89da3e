"""What a task takes for 16-bit results by float32 (`certain.py`): its factors and terms as sums of two float32 each.

By column in a room, or of one channel as numbers. `least` is the size from which a result can be certain: a normal
number that is not small beside the terms; NaN where float32 cannot hold what it takes.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import overload

from .flat import Flat
from .forms import LANES, Affine, Eight, Few, Gradient
from .half import HALF_LEAST, to_bfloat, to_half
from .jit import ALONE, helper, inlined, maybe, otherwise
from .memory import at, load, moved, store
from .objects import address_of, singles_at
from .operation import call_of, nothing_at_all, operation
from .point import one_of, plus
from .room import new_room
from .vector import DOUBLE, kind_of, nothing, select, to_single, total

STRIP = 4 * LANES  # values that are decided on at once: a line of memory
# Below, a float16 has its last place elsewhere, and float32 may lose what it adds.
LEAST = {"f2": HALF_LEAST, "b2": 2.0**-96}
LEFT = 2.0**-19  # of the terms, that a result has to be
BEFORE = 2.0**-5  # of a product that is rounded in float64 alone, that counts as a term
# What a factor is multiplied by before it is rounded: so the rest has its sign and is not 0, and infinity times both is
# one infinity.
BELOW = 1.0 - 2.0**-24
TINY, HUGE = 2.0**-100, 2.0**100  # between these float32 holds both parts of a factor
WHOLE = 2.0**-60  # a factor from here on has a rest that is a normal number
ROOM = 4 * LANES  # float64 that hold eight numbers of float32 for each of eight channels
NO_X = 1.0 + 2.0**-20  # no number of 16 bits
# Tasks: the kinds of results, and what there must not be. float16 is too often too close to the middle for gradients.
TASKS = {
    Affine: (("f2", "b2"), ("residual", "activation")),
    Gradient: (("b2",), ("dz", "pick", "act", "residual")),
}


class SingleAffine(NamedTuple):
    """x * (a + a_rest) + (b + b_rest); `then` where x is `root`, the 16-bit number next to where that is 0.

    careful: whether results are to be compared with `least`, and x with `root`. If not, a result of `2 * LEAST` and
    more is no smaller than `least`, whatever x is. Where `then` is certain, `root` is no number of 16 bits.
    """

    a: Any
    a_rest: Any
    b: Any
    b_rest: Any
    least: Any
    root: Any
    then: Any
    careful: bool


class SingleGradient(NamedTuple):
    """dy * (a + a_rest) + (x * (k + k_rest) + (c + c_rest))."""

    a: Any
    a_rest: Any
    k: Any
    k_rest: Any
    c: Any
    c_rest: Any
    least: Any


# Which tasks -----------------------------------------------------------------------------------------


def suited(t, out):
    """True for a task whose results may be worked out this way, by the types of its arrays; None for others."""


@operation(suited)
def _suited(t, out):
    if not (isinstance(out, Flat) and kind_of(t) in TASKS and _is_suited(t, out)):
        return types.none(t, out), nothing_at_all
    return types.boolean(t, out), lambda context, builder, signature, args: cgutils.true_bit


def _is_suited(t, out):
    kinds, absent = TASKS[kind_of(t)]
    fields = dict(zip(kind_of(t)._fields, t, strict=True))
    if out.kind not in kinds or not fields["x"] == fields.get("dy", out) == out:
        return False
    return all(isinstance(fields[name], types.NoneType) for name in absent) and (
        not isinstance(fields.get("b"), types.NoneType)
    )


# The parts of its numbers ----------------------------------------------------------------------------


def least_of(out):
    """The least normal result."""


def nearest(value, out):
    """float64 to the nearest 16-bit number, ties to even."""


@operation(least_of)
def _least_of(out):
    least = LEAST[out.kind]
    return types.float64(out), lambda context, builder, signature, args: ir.Constant(DOUBLE, least)


@overload(nearest, jit_options=ALONE)
def _nearest(value, out):
    return (lambda value, out: to_half(value)) if out.kind == "f2" else (lambda value, out: to_bfloat(value))


@inlined
def _is_held(factor, tiny):
    return ((abs(factor) > tiny) | (factor == 0.0)) & (abs(factor) < HUGE)


@inlined
def _least(held, size, out):
    """From where on results are certain beside terms of a size."""
    least = least_of(out)
    return to_single(select(held, select(size * LEFT < least, least, size * LEFT), np.nan))


@inlined
def _affine(mean, scale, shift, out):
    """The fields of a `SingleAffine`, careful as 1 or 0."""
    before = mean * scale
    b = plus(0.0 - before, shift, 0)
    size = abs(before) * BEFORE + abs(b)
    held = _is_held(scale, WHOLE) & (abs(before) + abs(b) < HUGE)
    high, b_high, least = to_single(scale * BELOW), to_single(b), _least(held, size, out)
    root = nearest(0.0 - b / scale, out)
    then = nearest(plus((root - mean) * scale, shift, 0), out)
    left = size * LEFT
    # Either what is small beside the terms is so by its bits, or nothing is: of no x is less left than of the root.
    clear = (left <= least_of(out)) | (abs(then) >= left)
    known = (abs(then) < least) & (abs(root) < HUGE)
    return (
        high,
        to_single(scale - high),
        b_high,
        to_single(b - b_high),
        least,
        select(known, root, NO_X),
        then,
        select(held & clear & (then != 0.0), 0.0, 1.0),  # x that gives 0 may be common
    )


@inlined
def _gradient(mean, a, b, k, out):
    """The fields of a `SingleGradient`."""
    before, minus = mean * k, 0.0 - k
    c = before - b
    size = abs(before) + abs(b)
    held = _is_held(a, TINY) & _is_held(k, TINY) & (size < HUGE)
    a_high, k_high, c_high = to_single(a), to_single(minus), to_single(c)
    rests = to_single(a - a_high), to_single(minus - k_high), to_single(c - c_high)
    return a_high, rests[0], k_high, rests[1], c_high, rests[2], _least(held, size, out)


# By column, and of a channel -------------------------------------------------------------------------


@inlined
def _keep(fields, i, w, parts):
    """Seven fields of some columns, w apart."""
    store(fields, i, parts[0])
    store(fields, moved(i, w), parts[1])
    store(fields, moved(i, 2 * w), parts[2])
    store(fields, moved(i, 3 * w), parts[3])
    store(fields, moved(i, 4 * w), parts[4])
    store(fields, moved(i, 5 * w), parts[5])
    store(fields, moved(i, 6 * w), parts[6])


@helper
def _affine_columns(t, out, width, room, w):
    fields, careful = singles_at(address_of(room)), nothing(Eight(0))
    for j in range(0, width // STRIP * STRIP, LANES):
        i = Eight(j)
        parts = _affine(load(t.mean, i), load(t.scale, i), one_of(t.shift, i), out)
        _keep(fields, i, w, parts)
        careful = careful + parts[7]
    b, least, then = at(fields, 2 * w), at(fields, 4 * w), at(fields, 6 * w)
    return SingleAffine(fields, at(fields, w), b, at(b, w), least, at(least, w), then, total(careful) > 0.0)


@helper
def _gradient_columns(t, out, width, room, w):
    fields = singles_at(address_of(room))
    for j in range(0, width // STRIP * STRIP, LANES):
        i = Eight(j)
        _keep(fields, i, w, _gradient(load(t.mean, i), load(t.a, i), load(t.b, i), load(t.k, i), out))
    k, c, least = at(fields, 2 * w), at(fields, 4 * w), at(fields, 6 * w)
    return SingleGradient(fields, at(fields, w), k, at(k, w), c, at(c, w), least)


@inlined
def _eight_affine(t, out, c, fields):
    parts = _affine(load(t.mean, c), load(t.scale, c), one_of(t.shift, c), out)
    _keep(fields, Eight(0), LANES, parts)
    store(fields, Eight(7 * LANES), parts[7])


@inlined
def _eight_gradients(t, out, c, fields):
    _keep(fields, Eight(0), LANES, _gradient(load(t.mean, c), load(t.a, c), load(t.b, c), load(t.k, c), out))


@inlined
def _seven(fields, c):
    """What `_keep` kept of one of eight channels."""
    return (
        load(fields, c),
        load(fields, c + LANES),
        load(fields, c + 2 * LANES),
        load(fields, c + 3 * LANES),
        load(fields, c + 4 * LANES),
        load(fields, c + 5 * LANES),
        load(fields, c + 6 * LANES),
    )


@inlined
def _one_affine(t, fields, c):
    a, a_rest, b, b_rest, least, root, then = _seven(fields, c)
    return SingleAffine(a, a_rest, b, b_rest, least, root, then, load(fields, c + 7 * LANES) > 0.0)


@inlined
def _one_gradient(t, fields, c):
    a, a_rest, k, k_rest, rest, rest_of_rest, least = _seven(fields, c)
    return SingleGradient(a, a_rest, k, k_rest, rest, rest_of_rest, least)


def _columns(t, out, width, room, w):
    """The task in float32, for each column, in a room whose fields are w apart."""


def _eight(t, out, c, fields):
    """Keep the fields at an index of channels, `LANES` apart."""


def _one(t, fields, c):
    """The task in float32 of one of eight channels."""


@call_of(_columns)
def _columns_by_task(t, out, width, room, w):
    return _affine_columns if kind_of(t) is Affine else _gradient_columns


@call_of(_eight)
def _eight_by_task(t, out, c, fields):
    return _eight_affine if kind_of(t) is Affine else _eight_gradients


@call_of(_one)
def _one_by_task(t, fields, c):
    return _one_affine if kind_of(t) is Affine else _one_gradient


@maybe
def columns_of(suits, t, out, width, room, w):
    """`_columns` of a task that is suited; None stays None."""
    return _columns(t, out, width, room, w)


@maybe
def room_of_eight(suits):
    """Room for `eight_known`; None where nothing is."""
    return new_room(ROOM)


@maybe
def only_if(suits, room):
    """The room, where a task is suited."""
    return room


@otherwise("known")
def eight_known(room, t, out, c, channels, known):
    """Which eight channels of a task are known, channel c among them: worked out together, into a room or None."""
    if c // LANES != known:
        known = c // LANES
        first, fields = known * LANES, singles_at(address_of(room))
        if channels - first >= LANES:
            _eight(t, out, Eight(first), fields)
        else:
            _eight(t, out, Few(first, channels - first), fields)
    return known


@inlined
def one_known(t, c, room):
    """The task in float32 of channel c, as numbers, out of eight that are known."""
    return _one(t, singles_at(address_of(room)), c % LANES)
