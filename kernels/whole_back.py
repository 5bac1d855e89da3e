"""The way back in one call, as `whole.py` does the way there."""

from .fits import is_double, is_other, is_parameter, is_result
from .jit import helper, kernel
from .job import CHANNELS, INPUTS, NOTHING, PARTS, ROW, SUMS, WHERE
from .learn import slopes
from .memory import at
from .objects import address_of, doubles_at
from .room import clear, free_room, is_missing, new_room, padded
from .whole import all_items, apart, elements, parameter, row_of, told


@helper
def _summed(job, crew, helpers, dy, x, mean, sums, room):
    """The sums over the gradient, (2, parts, channels), the first part that of all; whether there was memory."""
    each = job[PARTS] * job[CHANNELS]
    clear(sums, 2 * each)
    form = at(job, SUMS)
    slots = row_of(job, form, room)
    slots[form[WHERE]] = dy
    slots[form[WHERE + 1]] = x
    slots[form[WHERE + 2]] = address_of(mean)
    slots[form[WHERE + 3]] = address_of(sums)
    done = all_items(crew, helpers, form, slots)
    for part in range(job[CHANNELS], each, job[CHANNELS]):
        for c in range(job[CHANNELS]):
            sums[c] += sums[part + c]
            sums[each + c] += sums[each + part + c]
    return done


@kernel
def backward(crew, helpers, job, dy, x, out, mean, m2, gamma, beta, count, eps, gradients):
    """The gradient of x into `out`, which neither dy nor x touches, those of gamma and beta into `gradients`.

    count: values of each channel. Of beta it matters only that it is one.
    """
    if not (is_double(job, mean) and is_double(job, m2) and is_parameter(job, gamma) and is_parameter(job, beta)):
        return NOTHING
    if x == out or dy == out or not (is_other(job, dy, x) and is_result(job, out, x)):
        return NOTHING
    if not (apart(job, x, out) and apart(job, dy, out)):
        return NOTHING
    each, width = job[PARTS] * job[CHANNELS], padded(job[CHANNELS])
    room = new_room(3 * width + padded(2 * each) + job[ROW])
    if is_missing(room):
        return NOTHING
    dy, x, out = elements(job, dy), elements(job, x), elements(job, out)
    means, squares, into = (
        doubles_at(elements(job, mean)),
        doubles_at(elements(job, m2)),
        doubles_at(elements(job, gradients)),
    )
    a, b, k, sums = room, at(room, width), at(room, 2 * width), at(room, 3 * width)
    slots, done = at(sums, padded(2 * each)), NOTHING
    if _summed(job, crew, helpers, dy, x, means, sums, slots):
        parameter(job, gamma, 1.0, a)
        slopes(job[CHANNELS], count, squares, a, eps, sums, at(sums, each), a, b, k, into)
        form = at(job, INPUTS)
        row = row_of(job, form, slots)
        row[form[WHERE]] = dy
        row[form[WHERE + 1]] = x
        row[form[WHERE + 2]] = out
        row[form[WHERE + 3]] = address_of(means)
        row[form[WHERE + 4]] = address_of(a)
        row[form[WHERE + 5]] = address_of(b)
        row[form[WHERE + 6]] = address_of(k)
        done = told(all_items(crew, helpers, form, row), helpers)
    free_room(room)
    return done
