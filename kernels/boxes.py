"""Boxes of arrays, one after the other: worked on where they are, or copied to scratch and back.

What is copied, which kernels work, and on what, a desk says (`desk.py`), so that one machine code serves every dtype
and order of memory. A thread has a desk of its own.
"""

from .desk import (
    ADDRESS,
    ALL,
    ARRAY,
    ARRAY_STEP,
    AXES,
    AXIS,
    BACK,
    BIT,
    BOX_STRIDES,
    CALLS,
    COPIES,
    COUNT,
    FIRST_BACK,
    FIRST_CALL,
    FIRST_COPY,
    FIRST_MOVE,
    FUNCTION,
    HEAD,
    KINDS,
    LOOP,
    LOOPS,
    MOVES,
    ROW,
    SCRATCH,
    SCRATCH_STEP,
    SIZE,
    SLOT,
    SLOTS,
    STRIDES,
    TIMES,
    TURNED,
)
from .jit import helper, kernel
from .memory import at
from .objects import call, move_1, move_2, move_4, move_8, move_many, turn_2, turn_4, turn_8


@helper
def _apart(desk, strides, box):
    """How many bytes a box is from the first one, in an array with these strides from box to box."""
    bytes_apart, rest = 0, box
    for d in range(desk[AXES] - 1, -1, -1):
        count = desk[HEAD + AXIS * d + COUNT]
        bytes_apart += rest % count * strides[d]
        rest //= count
    return bytes_apart


@helper
def _kind(desk, box):
    """Which kind of box this is."""
    kind, rest = 0, box
    for d in range(desk[AXES] - 1, -1, -1):
        count = desk[HEAD + AXIS * d + COUNT]
        kind += desk[HEAD + AXIS * d + BIT] if rest % count + 1 == count else 0
        rest //= count
    return kind


def _one_by_one(move):
    """What copies n elements between addresses, each by a function of these."""

    @helper
    def copied(out, step, source, source_step, n):
        for i in range(n):
            move(out + i * step, source + i * source_step)

    return copied


_bytes, _halves, _words, _doubles = map(_one_by_one, (move_1, move_2, move_4, move_8))
_turned_halves, _turned_words, _turned_doubles = map(_one_by_one, (turn_2, turn_4, turn_8))


@helper
def _line(out, step, source, source_step, n, size, turned):
    """Copy n elements of some bytes between addresses."""
    if step == size and source_step == size and (size == 1 or turned == 0):
        move_many(out, source, n * size)
    elif size == 1:
        _bytes(out, step, source, source_step, n)
    elif size == 2 and turned == 0:
        _halves(out, step, source, source_step, n)
    elif size == 2:
        _turned_halves(out, step, source, source_step, n)
    elif size == 4 and turned == 0:
        _words(out, step, source, source_step, n)
    elif size == 4:
        _turned_words(out, step, source, source_step, n)
    elif turned == 0:
        _doubles(out, step, source, source_step, n)
    else:
        _turned_doubles(out, step, source, source_step, n)


@helper
def _copied(desk, form, box, back):
    """One copy of a box: to scratch, or back from there."""
    array, scratch, size = form[ARRAY] + _apart(desk, at(form, STRIDES), box), form[SCRATCH], form[SIZE]
    turned, outer = form[TURNED], form[LOOPS] - 1
    loops = at(form, STRIDES + desk[AXES])
    inner = at(loops, LOOP * outer)
    lines = 1
    for d in range(outer):
        lines *= loops[LOOP * d + TIMES]
    for line in range(lines):
        p, q, rest = array, scratch, line
        for d in range(outer - 1, -1, -1):
            loop = at(loops, LOOP * d)
            k = rest
            if d > 0:
                k = rest % loop[TIMES]
                rest //= loop[TIMES]
            p += k * loop[ARRAY_STEP]
            q += k * loop[SCRATCH_STEP]
        if back:
            _line(p, inner[ARRAY_STEP], q, inner[SCRATCH_STEP], inner[TIMES], size, turned)
        else:
            _line(q, inner[SCRATCH_STEP], p, inner[ARRAY_STEP], inner[TIMES], size, turned)


@helper
def _all_copied(desk, n, first, box, back):
    where = first
    for _ in range(n):
        form = at(desk, where)
        _copied(desk, form, box, back)
        where += form[ALL]


@kernel
def boxes(lo, hi, desk):
    """Boxes lo..hi; whether there was memory for what the kernels keep."""
    for box in range(lo, hi):
        what = at(desk, desk[desk[KINDS] + _kind(desk, box)])
        for k in range(what[MOVES]):
            form = at(desk, what[FIRST_MOVE] + k * (BOX_STRIDES + desk[AXES]))
            desk[form[SLOT]] = form[ADDRESS] + _apart(desk, at(form, BOX_STRIDES), box)
        _all_copied(desk, what[COPIES], what[FIRST_COPY], box, False)
        where = what[FIRST_CALL]
        for _ in range(what[CALLS]):
            form = at(desk, where)
            if call(form[FUNCTION], at(form, ROW)) == 0:
                return False
            where += ROW + form[SLOTS]
        _all_copied(desk, what[BACK], what[FIRST_BACK], box, True)
    return True
