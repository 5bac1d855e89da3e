"""Small arrays: one call does all that a verb asks for, in the caller's thread, by the kernels for large ones.

A job (`job.py`) says which they are, and has the slots of their arguments; what differs from call to call is put in
here. So one machine code serves every dtype and shape. Arrays come as the addresses of their objects, 0 for none.
"""

from .jit import helper, kernel
from .job import BYTES, CHANNELS, DATA, DONE, MEASURE, NOTHING, UNLEARNED, WRITE
from .learn import cumulative, exponential, fold
from .memory import at, load
from .objects import address_of, call, doubles_at, singles_at, words_at
from .room import copy, free_room, is_missing, new_room, padded, seen_as
from .welford import scale_of


@helper
def _elements(job, array):
    """The address of the elements of an array object."""
    return words_at(array)[job[DATA]]


@helper
def _measured(job, x, count, mean, m2, room):
    """The moments of x into arrays of the channels; whether there was memory for them."""
    slots = seen_as(room, job, job[MEASURE + 2])
    copy(job, job[MEASURE + 1], slots, 0, job[MEASURE + 2])
    slots[job[MEASURE + 3]] = x
    slots[job[MEASURE + 4]] = address_of(count)
    slots[job[MEASURE + 5]] = address_of(mean)
    slots[job[MEASURE + 6]] = address_of(m2)
    return call(job[MEASURE], slots) != 0


@helper
def _written(job, x, out, mean, scale, shift, room):
    """x normalized into out; whether there was memory for it."""
    slots = seen_as(room, job, job[WRITE + 2])
    copy(job, job[WRITE + 1], slots, 0, job[WRITE + 2])
    slots[job[WRITE + 3]] = x
    slots[job[WRITE + 4]] = out
    slots[job[WRITE + 5]] = address_of(mean)
    slots[job[WRITE + 6]] = address_of(scale)
    slots[job[WRITE + 7]] = address_of(shift)
    return call(job[WRITE], slots) != 0


@helper
def _parameter(job, array, single, absent, room):
    """A parameter of the channels as float64, where nothing that is written later changes it."""
    channels = job[CHANNELS]
    if array == 0:
        for c in range(channels):
            room[c] = absent
    elif single != 0:
        singles = singles_at(_elements(job, array))
        for c in range(channels):
            room[c] = load(singles, c)
    else:
        copy(doubles_at(_elements(job, array)), 0, room, 0, channels)


@helper
def _apart(job, x, out):
    """Whether two arrays of one size are one object, or do not touch."""
    return x == out or abs(_elements(job, x) - _elements(job, out)) >= job[BYTES]


@helper
def _learned(job, count, mean, m2, known_count, known_mean, known_spread, weight, free):
    """What a running average becomes, behind M2; nothing where there is no average.

    known_spread: the variance and `weight` the momentum; or without degrees of freedom, of the cumulative average, M2
    and ddof.
    """
    if known_count == 0:
        return DONE
    n, known = doubles_at(_elements(job, known_count)), doubles_at(_elements(job, known_mean))
    spread, into = doubles_at(_elements(job, known_spread)), at(m2, job[CHANNELS])
    if free > 0.0:
        finite = exponential(job[CHANNELS], n, known, spread, count[0], mean, m2, free, weight, into)
    else:
        finite = cumulative(job[CHANNELS], n, known, spread, count[0], mean, m2, weight, into)
    return DONE if finite else UNLEARNED


@kernel
def moments(job, x, moments, known_count, known_mean, known_spread, weight, free):
    """Mean and M2 into the first rows of `moments`, and a running average into those behind, of as many channels."""
    channels = job[CHANNELS]
    room = new_room(padded(channels) + job[MEASURE + 2])
    if is_missing(room):
        return NOTHING
    mean = doubles_at(_elements(job, moments))
    m2, count, slots = at(mean, channels), room, at(room, padded(channels))
    x = _elements(job, x)
    done = NOTHING
    if _measured(job, x, count, mean, m2, slots):
        done = _learned(job, count, mean, m2, known_count, known_mean, known_spread, weight, free)
    free_room(room)
    return done


@kernel
def normalize(job, x, out, mean, var, gamma, beta, singles, eps):
    """Normalize by given statistics, unless a variance is negative; eps below 0: `var` is what to multiply by.

    singles: a bit for each parameter that is float32, mean first.
    """
    width = padded(job[CHANNELS])
    room = new_room(4 * width + job[WRITE + 2])
    if not _apart(job, x, out) or is_missing(room):
        free_room(room)
        return NOTHING
    x, out = _elements(job, x), _elements(job, out)
    by, scale, weight, shift = room, at(room, width), at(room, 2 * width), at(room, 3 * width)
    _parameter(job, mean, singles & 1, 0.0, by)
    _parameter(job, var, singles & 2, 1.0, scale)
    _parameter(job, beta, singles & 8, -0.0, shift)  # to add that changes nothing, not even the sign of a zero
    valid = True
    if eps >= 0.0:
        _parameter(job, gamma, singles & 4, 1.0, weight)
        valid = fold(job[CHANNELS], scale, weight, eps, scale)
    slots = at(room, 4 * width)
    if valid:
        valid = _written(job, x, out, by, scale, shift, slots)
    free_room(room)
    return DONE if valid else NOTHING


@kernel
def train(
    job, x, out, moments, gamma, beta, singles, eps, known_count, known_mean, known_spread, weight, free
):  # fmt: skip
    """`moments`, and x normalized by them; singles: bits 4 and 8 as above."""
    channels, width = job[CHANNELS], padded(job[CHANNELS])
    room = new_room(3 * width + max(job[MEASURE + 2], job[WRITE + 2]))
    if not _apart(job, x, out) or is_missing(room):
        free_room(room)
        return NOTHING
    x, out = _elements(job, x), _elements(job, out)
    mean = doubles_at(_elements(job, moments))
    m2, count, scale, shift = at(mean, channels), room, at(room, width), at(room, 2 * width)
    slots = at(room, 3 * width)
    done = NOTHING
    if _measured(job, x, count, mean, m2, slots):
        _parameter(job, gamma, singles & 4, 1.0, scale)
        _parameter(job, beta, singles & 8, -0.0, shift)
        for c in range(channels):
            scale[c] = scale_of(count[c], m2[c], scale[c], eps)
        if _written(job, x, out, mean, scale, shift, slots):
            done = _learned(job, count, mean, m2, known_count, known_mean, known_spread, weight, free)
    free_room(room)
    return done
