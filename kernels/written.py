"""Results, written: an array of the shape of x, row by row or run by run, for any task of `point.py`.

Large results may go past the cache (`past`), by whole lines of memory: what is written that way is neither read before,
nor pushes out what others need. A line that is written in part, between such ones, costs as much as dozens of them; so
rows begin where a line begins, the columns turned to fit (`phase`), and what is left of one run is kept for the next.
"""

from .forms import LANES, Eight, Few
from .jit import helper, kernel, otherwise
from .lines import gap, line_of, settle
from .memory import at, load, moved, store, store_past
from .point import (
    SINGLE,
    look_ahead,
    make_ready,
    of_channel,
    point,
    room_of_columns,
    row_place,
    run_place,
    with_columns,
)
from .room import copy, free_room, is_missing, new_room, padded, seen_as
from .single import ROOM, columns_of, eight_known, only_if, room_of_eight, suited
from .strips import by_strips, four_ahead, four_by_strips, run_by_strips, write_four, write_lines, write_two

# Rows ------------------------------------------------------------------------------------------------


@helper
def _single(t, out, width, room):
    """The task in float32 where that may do for its results, behind its columns in a room; else None."""
    w = padded(width)
    return columns_of(suited(t, out), t, out, width, at(room, SINGLE * w), w)


@helper
def _write_row(t, r, out, q, width):
    """One row of a task with columns, into the cache."""
    make_ready(t, r, 0, 1)
    place, rest = row_place(t, r, 0), width % LANES
    for j in range(0, width - rest, LANES):
        store(out, Eight(q + j), point(t, place, Eight(j)))
    if rest > 0:
        last = Few(width - rest, rest)
        store(out, moved(last, q), point(t, place, last))


def _odd_quarter(single, rows):
    """A quarter of rows, of many an odd number: else rows of 512 bytes meet in the same lines of a cache."""
    return rows // 4 - (1 if rows % 8 < 4 and rows > 64 else 0)


@otherwise(_odd_quarter)
def _quarter(single, rows):
    """A quarter of rows; by float32 rows that are left over take longer than what meets."""
    return rows // 4


@helper
def _write_rows(t, single, out, step, rows, width):
    """Rows of a task with columns, four at a time, one from each quarter of them; `step` from row to row of out."""
    quarter, rest, doubt = _quarter(single, rows), width % LANES, 0
    first = by_strips(single, width)
    twos = width - (width - first) % (2 * LANES)
    for i in range(quarter):
        make_ready(t, i, quarter, 4)
        p0, p1 = row_place(t, i, 0), row_place(t, i + quarter, 1)
        p2, p3 = row_place(t, i + 2 * quarter, 2), row_place(t, i + 3 * quarter, 3)
        q0, q1, q2, q3 = i * step, (i + quarter) * step, (i + 2 * quarter) * step, (i + 3 * quarter) * step
        doubt = four_by_strips(single, t, p0, p1, p2, p3, out, q0, q1, q2, q3, width, None, doubt)
        for j in range(first, twos, 2 * LANES):
            write_two(t, p0, p1, p2, p3, out, q0, q1, q2, q3, Eight(j), None)
        for j in range(twos, width - rest, LANES):
            write_four(t, p0, p1, p2, p3, out, q0, q1, q2, q3, Eight(j), None)
        if rest > 0:
            write_four(t, p0, p1, p2, p3, out, q0, q1, q2, q3, Few(width - rest, rest), None)
    for i in range(4 * quarter, rows):
        _write_row(t, i, out, i * step, width)


@helper
def _write_rows_past(t, single, out, rows, width):
    """`_write_rows` past the cache: each row whole lines, all of them one after the other."""
    quarter, doubt = rows // 4, 0
    for i in range(quarter):
        p0, p1 = row_place(t, i, 0), row_place(t, i + quarter, 1)
        p2, p3 = row_place(t, i + 2 * quarter, 2), row_place(t, i + 3 * quarter, 3)
        q0, q1, q2, q3 = i * width, (i + quarter) * width, (i + 2 * quarter) * width, (i + 3 * quarter) * width
        doubt = four_by_strips(single, t, p0, p1, p2, p3, out, q0, q1, q2, q3, width, True, doubt)
        for line in range(by_strips(single, width), width, line_of(out)):
            four_ahead(t, p0, p1, p2, p3, line)
            write_lines(t, p0, p1, p2, p3, out, q0, q1, q2, q3, line)
    for i in range(4 * quarter, rows):
        place = row_place(t, i, 0)
        for j in range(0, width, LANES):
            store_past(out, Eight(i * width + j), point(t, place, Eight(j)))


@helper
def _rectangle(t, out, step, first, last, c0, c1, inner, pack, room):
    """Rows first..last, channels c0..c1, several rows taken as one where they touch."""
    packed = (last - first) // pack * pack
    for row, n, p in ((first, packed, pack), (first + packed, last - first - packed, 1)):
        if n > 0:
            width = p * (c1 - c0) * inner
            with_all = with_columns(t, row, c0, c1 - c0, inner, p, 0, room, padded(width))
            single = _single(with_all, out, width if n >= 4 * p else 0, room)  # which four rows share
            _write_rows(with_all, single, at(out, row * step + c0 * inner), p * step, n // p, width)


@kernel
def rows(lo, hi, t, out, step, rows, channels, inner, pack, row_blocks, col_blocks):
    """Items lo..hi of col_blocks x row_blocks; out: flat, `step` from row to row, perhaps the memory of x."""
    room = new_room(room_of_columns(t, padded(pack * (-(-channels // col_blocks)) * inner)))
    if is_missing(room):
        return False
    item = lo
    while item < hi:
        k, b = item // row_blocks, item % row_blocks
        end = b + hi - item if b + hi - item < row_blocks else row_blocks  # min is a function more to compile
        first, last = rows * b // row_blocks, rows * end // row_blocks
        c0, c1 = channels * k // col_blocks, channels * (k + 1) // col_blocks
        _rectangle(t, out, step, first, last, c0, c1, inner, pack, room)
        item += end - b
    free_room(room)
    return True


@kernel
def rows_past(lo, hi, t, out, rows, channels, inner, pack, items):
    """Items lo..hi of `items` past the cache; all rows touch, or begin with a line; pack rows are whole lines."""
    width = pack * channels * inner
    room = new_room(room_of_columns(t, padded(width)))
    if is_missing(room):
        return False
    phase = gap(out)
    whole = rows // pack - (1 if phase > 0 else 0)
    first, last = whole * lo // items, whole * hi // items
    with_all = with_columns(t, first * pack, 0, channels, inner, pack, phase, room, padded(width))
    single = _single(with_all, out, width, room)
    _write_rows_past(with_all, single, at(out, first * width + phase), last - first, width)
    settle()
    if lo == 0 and phase > 0:
        _write_row(with_columns(t, 0, 0, channels, inner, pack, 0, room, padded(width)), 0, out, 0, phase)
    if hi == items:
        _rectangle(t, out, channels * inner, whole * pack, rows, 0, channels, inner, pack, room)
    free_room(room)
    return True


# Runs ------------------------------------------------------------------------------------------------


@helper
def write_some(t, eight, c, place, j, out, q, n):
    """n values of a run of channel c, from j on, into the cache, from q on; t: `of_channel`; eight: known, or None."""
    rest = n % LANES
    for k in range(run_by_strips(eight, t, c, place, j, out, q, n, None), n - rest, LANES):
        store(out, Eight(q + k), point(t, place, Eight(j + k)))
    if rest > 0:
        store(out, Few(q + n - rest, rest), point(t, place, Few(j + n - rest, rest)))


@helper
def write_past(t, out, first, last, channels, inner, room):
    """Values first..last of a contiguous out past the cache; first begins a line, as last does or the end of all.

    room: of `room_of_runs`, where a line that two runs share is put together.
    """
    known, eight = -1, only_if(suited(t, out), at(room, line_of(out)))
    line, have, carry = line_of(out), 0, seen_as(room, out, line_of(out))
    run, i, at_value = first // inner, first % inner, first
    o, c = run // channels, run % channels
    while at_value < last:
        n = min(inner - i, last - at_value)
        known = eight_known(eight, t, out, c, channels, known)
        own, place, j = of_channel(t, c), run_place(t, o, c, i), 0
        if have > 0:
            j = min(line - have, n)
            write_some(own, eight, c, place, 0, carry, have, j)
            have += j
            if have == line:
                _put_line(out, at_value + j - line, carry)
                have = 0
        if have == 0:
            j += run_by_strips(eight, own, c, place, j, out, at_value + j, n - j, True)
            while j + line <= n:
                look_ahead(own, place, j)
                for k in range(j, j + line, LANES):
                    store_past(out, Eight(at_value + k), point(own, place, Eight(k)))
                j += line
            write_some(own, eight, c, place, j, carry, 0, n - j)
            have = n - j
        at_value, i, c = at_value + n, 0, c + 1
        if c == channels:
            o, c = o + 1, 0
    copy(carry, 0, out, last - have, have)


@helper
def room_of_runs(out):
    """How much room `write_past` takes."""
    return line_of(out) + ROOM


@helper
def _put_line(out, at_value, carry):
    for k in range(0, line_of(out), LANES):
        store_past(out, Eight(at_value + k), load(carry, Eight(k)))


@kernel
def planes(lo, hi, t, out, out_outer, out_channel, channels, inner, inner_blocks):
    """Items lo..hi of outer x channels x inner_blocks; out: flat, perhaps the memory of x."""
    room = room_of_eight(suited(t, out))
    if is_missing(room):
        return False
    plane, k, known = lo // inner_blocks, lo % inner_blocks, -1
    o, c = plane // channels, plane % channels
    for _ in range(lo, hi):
        i0, i1 = (0, inner) if inner_blocks == 1 else (inner * k // inner_blocks, inner * (k + 1) // inner_blocks)
        known, q = eight_known(room, t, out, c, channels, known), o * out_outer + c * out_channel + i0
        write_some(of_channel(t, c), room, c, run_place(t, o, c, i0), 0, out, q, i1 - i0)
        k += 1  # rather than divisions, which take as long as a short run
        if k == inner_blocks:
            k, c = 0, c + 1
            if c == channels:
                c, o = 0, o + 1
    free_room(room)
    return True


@kernel
def planes_past(lo, hi, t, out, channels, inner, size, items):
    """Items lo..hi of `items`, of `size` values in all, past the cache; out: contiguous."""
    room = new_room(room_of_runs(out))
    if is_missing(room):
        return False
    phase = gap(out)
    first, last = _cut(size, lo, items, phase, line_of(out)), _cut(size, hi, items, phase, line_of(out))
    if lo == 0:
        _write_values(t, out, 0, min(phase, size), channels, inner)
        first = min(phase, size)
    write_past(t, out, first, last, channels, inner, room)
    settle()
    free_room(room)
    return True


@helper
def _cut(size, item, items, phase, line):
    """Where an item begins: with a line; the last one ends with all."""
    if item == items:
        return size
    value = size * item // items
    return min(size, phase + max(0, value - phase) // line * line)


@helper
def _write_values(t, out, first, last, channels, inner):
    """Values first..last of a contiguous out into the cache."""
    while first < last:
        run, i = first // inner, first % inner
        n = min(inner - i, last - first)
        o, c = run // channels, run % channels
        write_some(of_channel(t, c), None, c, run_place(t, o, c, i), 0, out, first, n)
        first += n
