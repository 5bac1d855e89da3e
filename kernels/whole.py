"""One call does all that a verb asks for, by the kernels that the general way takes: in the caller's thread, or shared.

A job (`job.py`) says which kernels they are, and has the slots of their arguments; what differs from call to call is
put in here. So one machine code serves every dtype and shape. Arrays come as the addresses of their objects, 0 for
none; those that may be anything are looked at first (`fits.py`), and NOTHING is done where one is not as it has to be.
x is, by how the job was found. `crew` is the memory that helpers share with the caller (`crew.py`) where there are any.
"""

from .crew import together
from .fits import is_parameter, is_result, is_single
from .jit import helper, kernel
from .job import (
    BEGIN,
    BOTH,
    BYTES,
    CHANNELS,
    DATA,
    DONE,
    FUNCTION,
    LEARN,
    LENGTH,
    LOST,
    MEASURE,
    MERGE,
    NOTHING,
    PARTS,
    ROW,
    UNLEARNED,
    WHERE,
    WRITE,
)
from .learn import fold
from .memory import at, load
from .objects import address_of, call, doubles_at, singles_at, words_at
from .room import copy, free_room, is_missing, new_room, padded, seen_as
from .welford import scale_of


@helper
def elements(job, array):
    """The address of the elements of an array object."""
    return words_at(array)[job[DATA]]


@helper
def row_of(job, form, room):
    """The slots of a kernel, some of them to be filled in."""
    slots = seen_as(room, job, form[LENGTH])
    copy(job, form[BEGIN], slots, 0, form[LENGTH])
    return slots


@helper
def all_items(crew, helpers, form, slots):
    """All items of a kernel; whether there was memory for them."""
    return together(crew, helpers, form, slots) if helpers > 0 else call(form[FUNCTION], slots) != 0


@helper
def told(done, helpers):
    """What is done after a kernel that writes: where one thread has no memory, others may have written."""
    if done:
        return DONE
    return LOST if helpers > 0 else NOTHING


@helper
def _room_of(job):
    """Room for a row of slots, and for the parts of the moments where they are several."""
    return job[ROW] + (3 * padded(job[PARTS] * job[CHANNELS]) if job[PARTS] > 1 else 0)


@helper
def _parts(job, count, mean, m2, room):
    """Where the parts of the moments go: into the room, behind a row of slots, or where the moments do."""
    if job[PARTS] > 1:
        width = padded(job[PARTS] * job[CHANNELS])
        count = at(room, job[ROW])
        mean, m2 = at(count, width), at(count, 2 * width)
    return count, mean, m2


@helper
def _first(job, parts, count, mean, m2):
    """The first of several parts to where the moments go."""
    if job[PARTS] > 1:
        counts, means, squares = parts
        copy(counts, 0, count, 0, job[CHANNELS])
        copy(means, 0, mean, 0, job[CHANNELS])
        copy(squares, 0, m2, 0, job[CHANNELS])


@helper
def _measured(job, crew, helpers, x, count, mean, m2, room):
    """The moments of x into arrays of the channels; whether there was memory for them."""
    parts = _parts(job, count, mean, m2, room)
    counts, means, squares = parts
    form = at(job, MEASURE)
    slots = row_of(job, form, room)
    slots[form[WHERE]] = x
    slots[form[WHERE + 1]] = address_of(counts)
    slots[form[WHERE + 2]] = address_of(means)
    slots[form[WHERE + 3]] = address_of(squares)
    done = all_items(crew, helpers, form, slots)
    if done and job[PARTS] > 1:
        form = at(job, MERGE)
        slots = row_of(job, form, room)
        slots[form[WHERE]] = address_of(counts)
        slots[form[WHERE + 1]] = address_of(means)
        slots[form[WHERE + 2]] = address_of(squares)
        done = all_items(crew, helpers, form, slots)
        _first(job, parts, count, mean, m2)
    return done


@helper
def _written(job, crew, helpers, x, out, mean, scale, shift, room):
    """x normalized into out; whether there was memory for it."""
    form = at(job, WRITE)
    slots = row_of(job, form, room)
    slots[form[WHERE]] = x
    slots[form[WHERE + 1]] = out
    slots[form[WHERE + 2]] = address_of(mean)
    slots[form[WHERE + 3]] = address_of(scale)
    slots[form[WHERE + 4]] = address_of(shift)
    return all_items(crew, helpers, form, slots)


@helper
def _trained(job, crew, helpers, x, out, count, mean, m2, gamma, beta, eps, room):
    """Both, channel by channel, where a job has a kernel for that."""
    parts = _parts(job, count, mean, m2, room)
    counts, means, squares = parts
    form = at(job, BOTH)
    slots = row_of(job, form, room)
    slots[form[WHERE]] = x
    slots[form[WHERE + 1]] = out
    slots[form[WHERE + 2]] = address_of(counts)
    slots[form[WHERE + 3]] = address_of(means)
    slots[form[WHERE + 4]] = address_of(squares)
    slots[form[WHERE + 5]] = address_of(gamma)
    slots[form[WHERE + 6]] = address_of(beta)
    room[form[WHERE + 7]] = eps
    done = all_items(crew, helpers, form, slots)
    _first(job, parts, count, mean, m2)
    return done


@helper
def parameter(job, array, absent, room):
    """A parameter of the channels as float64, where nothing that is written later changes it."""
    channels = job[CHANNELS]
    if array == 0:
        for c in range(channels):
            room[c] = absent
    elif is_single(job, array):
        singles = singles_at(elements(job, array))
        for c in range(channels):
            room[c] = load(singles, c)
    else:
        copy(doubles_at(elements(job, array)), 0, room, 0, channels)


@helper
def apart(job, x, out):
    """Whether two arrays are one object, or lie so far apart that they do not touch."""
    return x == out or abs(elements(job, x) - elements(job, out)) >= job[BYTES]


@helper
def _learned(job, learn, count, mean, m2, known_count, known_mean, known_spread, free, weight, room):
    """What a running average becomes, behind M2, by a kernel of `learn.py` and its arguments; nothing without one."""
    if learn == 0:
        return DONE
    slots = seen_as(room, job, LEARN)
    slots[0] = job[CHANNELS]
    slots[1] = elements(job, known_count)
    slots[2] = elements(job, known_mean)
    slots[3] = elements(job, known_spread)
    room[4] = count[0]
    slots[5] = address_of(mean)
    slots[6] = address_of(m2)
    room[7] = free
    room[8] = weight
    slots[9] = address_of(at(m2, job[CHANNELS]))
    return DONE if call(learn, slots) != 0 else UNLEARNED


@kernel
def moments(crew, helpers, job, x, moments, learn, known_count, known_mean, known_spread, free, weight):
    """Mean and M2 into the first rows of `moments`, and a running average into those behind, of as many channels.

    learn: the C function of a kernel of `learn.py`, or 0; then count, mean, and variance or M2 that are known.
    """
    channels = job[CHANNELS]
    room = new_room(padded(channels) + _room_of(job))
    if is_missing(room):
        return NOTHING
    mean = doubles_at(elements(job, moments))
    m2, count, slots = at(mean, channels), room, at(room, padded(channels))
    x = elements(job, x)
    done = NOTHING
    if _measured(job, crew, helpers, x, count, mean, m2, slots):
        done = _learned(job, learn, count, mean, m2, known_count, known_mean, known_spread, free, weight, slots)
    free_room(room)
    return done


@kernel
def normalize(crew, helpers, job, x, out, mean, var, gamma, beta, eps):
    """Normalize by given statistics, unless a variance is negative; eps below 0: `var` is what to multiply by."""
    if not (is_parameter(job, mean) and is_parameter(job, var)):
        return NOTHING
    if not (is_parameter(job, gamma) and is_parameter(job, beta) and is_result(job, out, x) and apart(job, x, out)):
        return NOTHING
    width = padded(job[CHANNELS])
    room = new_room(4 * width + job[ROW])
    if is_missing(room):
        return NOTHING
    x, out = elements(job, x), elements(job, out)
    by, scale, weight, shift = room, at(room, width), at(room, 2 * width), at(room, 3 * width)
    parameter(job, mean, 0.0, by)
    parameter(job, var, 1.0, scale)
    parameter(job, beta, -0.0, shift)  # to add that changes nothing, not even the sign of a zero
    valid, done = True, NOTHING
    if eps >= 0.0:
        parameter(job, gamma, 1.0, weight)
        valid = fold(job[CHANNELS], scale, weight, eps, scale)
    slots = at(room, 4 * width)
    if valid:
        done = told(_written(job, crew, helpers, x, out, by, scale, shift, slots), helpers)
    free_room(room)
    return done


@kernel
def train(
    crew, helpers, job, x, out, moments, gamma, beta, eps,
    learn, known_count, known_mean, known_spread, free, weight,
):  # fmt: skip
    """`moments`, and x normalized by them."""
    if not (is_parameter(job, gamma) and is_parameter(job, beta) and is_result(job, out, x) and apart(job, x, out)):
        return NOTHING
    channels, width = job[CHANNELS], padded(job[CHANNELS])
    room = new_room(3 * width + _room_of(job))
    if is_missing(room):
        return NOTHING
    x, out = elements(job, x), elements(job, out)
    mean = doubles_at(elements(job, moments))
    m2, count, scale, shift = at(mean, channels), room, at(room, width), at(room, 2 * width)
    slots = at(room, 3 * width)
    parameter(job, gamma, 1.0, scale)
    parameter(job, beta, -0.0, shift)
    done = NOTHING
    if job[BOTH] != 0:
        done = told(_trained(job, crew, helpers, x, out, count, mean, m2, scale, shift, eps, slots), helpers)
    elif _measured(job, crew, helpers, x, count, mean, m2, slots):
        for c in range(channels):
            scale[c] = scale_of(count[c], m2[c], scale[c], eps)
        done = told(_written(job, crew, helpers, x, out, mean, scale, shift, slots), helpers)
    if done == DONE:
        done = _learned(job, learn, count, mean, m2, known_count, known_mean, known_spread, free, weight, slots)
    free_room(room)
    return done
