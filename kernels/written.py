"""Results, written: an array of the shape of x, row by row or run by run, for any task of `point.py`.

Large results may go past the cache (`past`), by whole lines of memory: what is written that way is neither read before,
nor pushes out what others need. A line that is written in part, between such ones, costs as much as dozens of them; so
rows begin where a line begins, the columns turned to fit (`phase`), and what is left of one run is kept for the next.
"""

from numba import types
from numba.extending import overload

from .forms import LANES, Eight, Few
from .jit import ALONE, helper, inlined, kernel
from .lines import gap, line_of, settle
from .memory import LINE, at, load, moved, store, store_past
from .point import look_ahead, make_ready, of_channel, point, room_of_columns, row_place, run_place, with_columns
from .room import copy, free_room, is_missing, new_room, padded, seen_as


def put(out, j, value, past):
    """Store the result at an index, past the cache or into it."""
    store(out, j, value)


@overload(put)
def _put(out, j, value, past):
    if isinstance(past, types.NoneType):
        return lambda out, j, value, past: store(out, j, value)
    return lambda out, j, value, past: store_past(out, j, value)


# Rows ------------------------------------------------------------------------------------------------


@inlined
def _write_four(t, p0, p1, p2, p3, out, q0, q1, q2, q3, j, past):
    """An index of four rows at once: the parameters load once for four.

    All results come before the first store: a load close behind a store to the same place in a page waits for it.
    """
    a, b, c, d = point(t, p0, j), point(t, p1, j), point(t, p2, j), point(t, p3, j)
    put(out, moved(j, q0), a, past)
    put(out, moved(j, q1), b, past)
    put(out, moved(j, q2), c, past)
    put(out, moved(j, q3), d, past)


@inlined
def _write_two(t, p0, p1, p2, p3, out, q0, q1, q2, q3, j, past):
    """`_write_four` of two vectors: those of a row one behind the other, which past the cache fills a line at once."""
    k = moved(j, LANES)
    a, b, c, d = point(t, p0, j), point(t, p1, j), point(t, p2, j), point(t, p3, j)
    e, f, g, h = point(t, p0, k), point(t, p1, k), point(t, p2, k), point(t, p3, k)
    _put_two(out, moved(j, q0), a, e, past)
    _put_two(out, moved(j, q1), b, f, past)
    _put_two(out, moved(j, q2), c, g, past)
    _put_two(out, moved(j, q3), d, h, past)


@inlined
def _write_eight(t, p0, p1, p2, p3, out, q0, q1, q2, q3, j, past):
    """`_write_two` of four vectors."""
    k, m, n = moved(j, LANES), moved(j, 2 * LANES), moved(j, 3 * LANES)
    a0, b0, c0, d0 = point(t, p0, j), point(t, p1, j), point(t, p2, j), point(t, p3, j)
    a1, b1, c1, d1 = point(t, p0, k), point(t, p1, k), point(t, p2, k), point(t, p3, k)
    a2, b2, c2, d2 = point(t, p0, m), point(t, p1, m), point(t, p2, m), point(t, p3, m)
    a3, b3, c3, d3 = point(t, p0, n), point(t, p1, n), point(t, p2, n), point(t, p3, n)
    _put_two(out, moved(j, q0), a0, a1, past)
    _put_two(out, moved(m, q0), a2, a3, past)
    _put_two(out, moved(j, q1), b0, b1, past)
    _put_two(out, moved(m, q1), b2, b3, past)
    _put_two(out, moved(j, q2), c0, c1, past)
    _put_two(out, moved(m, q2), c2, c3, past)
    _put_two(out, moved(j, q3), d0, d1, past)
    _put_two(out, moved(m, q3), d2, d3, past)


@inlined
def _put_two(out, j, a, b, past):
    put(out, j, a, past)
    put(out, moved(j, LANES), b, past)


def write_lines(t, p0, p1, p2, p3, out, q0, q1, q2, q3, line):
    """A line of each of four rows, past the cache."""
    for j in range(line, line + line_of(out), LANES):
        _write_four(t, p0, p1, p2, p3, out, q0, q1, q2, q3, Eight(j), True)


@overload(write_lines, jit_options=ALONE)
def _write_lines(t, p0, p1, p2, p3, out, q0, q1, q2, q3, line):
    write = {1: _write_four, 2: _write_two, 4: _write_eight}[LINE // out.size // LANES]
    return lambda t, p0, p1, p2, p3, out, q0, q1, q2, q3, line: write(
        t, p0, p1, p2, p3, out, q0, q1, q2, q3, Eight(line), True
    )


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


@helper
def _write_rows(t, out, step, rows, width):
    """Rows of a task with columns, four at a time, one from each quarter of them; `step` from row to row of out."""
    quarter, rest = rows // 4, width % LANES
    for i in range(quarter):
        make_ready(t, i, quarter, 4)
        p0, p1 = row_place(t, i, 0), row_place(t, i + quarter, 1)
        p2, p3 = row_place(t, i + 2 * quarter, 2), row_place(t, i + 3 * quarter, 3)
        q0, q1, q2, q3 = i * step, (i + quarter) * step, (i + 2 * quarter) * step, (i + 3 * quarter) * step
        for j in range(0, width - rest, LANES):
            _write_four(t, p0, p1, p2, p3, out, q0, q1, q2, q3, Eight(j), None)
        if rest > 0:
            _write_four(t, p0, p1, p2, p3, out, q0, q1, q2, q3, Few(width - rest, rest), None)
    for i in range(4 * quarter, rows):
        _write_row(t, i, out, i * step, width)


@helper
def _write_rows_past(t, out, rows, width):
    """`_write_rows` past the cache: each row whole lines, all of them one after the other."""
    quarter = rows // 4
    for i in range(quarter):
        p0, p1 = row_place(t, i, 0), row_place(t, i + quarter, 1)
        p2, p3 = row_place(t, i + 2 * quarter, 2), row_place(t, i + 3 * quarter, 3)
        q0, q1, q2, q3 = i * width, (i + quarter) * width, (i + 2 * quarter) * width, (i + 3 * quarter) * width
        for line in range(0, width, line_of(out)):
            look_ahead(t, p0, line)
            look_ahead(t, p1, line)
            look_ahead(t, p2, line)
            look_ahead(t, p3, line)
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
            _write_rows(with_all, at(out, row * step + c0 * inner), p * step, n // p, width)


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
    _write_rows_past(with_all, at(out, first * width + phase), last - first, width)
    settle()
    if lo == 0 and phase > 0:
        _write_row(with_columns(t, 0, 0, channels, inner, pack, 0, room, padded(width)), 0, out, 0, phase)
    if hi == items:
        _rectangle(t, out, channels * inner, whole * pack, rows, 0, channels, inner, pack, room)
    free_room(room)
    return True


# Runs ------------------------------------------------------------------------------------------------


@helper
def write_some(t, place, j, out, q, n):
    """n values of a run, from j on, into the cache, from q on; t: `of_channel`."""
    rest = n % LANES
    for k in range(0, n - rest, LANES):
        store(out, Eight(q + k), point(t, place, Eight(j + k)))
    if rest > 0:
        store(out, Few(q + n - rest, rest), point(t, place, Few(j + n - rest, rest)))


@helper
def write_past(t, out, first, last, channels, inner, carry):
    """Values first..last of a contiguous out past the cache; first begins a line, as last does or the end of all.

    carry: room for a line, of the kind of out, where a line that two runs share is put together.
    """
    line, have = line_of(out), 0
    run, i, at_value = first // inner, first % inner, first
    o, c = run // channels, run % channels
    while at_value < last:
        n = min(inner - i, last - at_value)
        own, place, j = of_channel(t, c), run_place(t, o, c, i), 0
        if have > 0:
            j = min(line - have, n)
            write_some(own, place, 0, carry, have, j)
            have += j
            if have == line:
                _put_line(out, at_value + j - line, carry)
                have = 0
        if have == 0:
            while j + line <= n:
                look_ahead(own, place, j)
                for k in range(j, j + line, LANES):
                    store_past(out, Eight(at_value + k), point(own, place, Eight(k)))
                j += line
            write_some(own, place, j, carry, 0, n - j)
            have = n - j
        at_value, i, c = at_value + n, 0, c + 1
        if c == channels:
            o, c = o + 1, 0
    copy(carry, 0, out, last - have, have)


@helper
def _put_line(out, at_value, carry):
    for k in range(0, line_of(out), LANES):
        store_past(out, Eight(at_value + k), load(carry, Eight(k)))


@kernel
def planes(lo, hi, t, out, out_outer, out_channel, channels, inner, inner_blocks):
    """Items lo..hi of outer x channels x inner_blocks; out: flat, perhaps the memory of x."""
    plane, k = lo // inner_blocks, lo % inner_blocks
    o, c = plane // channels, plane % channels
    for _ in range(lo, hi):
        i0, i1 = (0, inner) if inner_blocks == 1 else (inner * k // inner_blocks, inner * (k + 1) // inner_blocks)
        write_some(of_channel(t, c), run_place(t, o, c, i0), 0, out, o * out_outer + c * out_channel + i0, i1 - i0)
        k += 1  # rather than divisions, which take as long as a short run
        if k == inner_blocks:
            k, c = 0, c + 1
            if c == channels:
                c, o = 0, o + 1
    return True


@kernel
def planes_past(lo, hi, t, out, channels, inner, size, items):
    """Items lo..hi of `items`, of `size` values in all, past the cache; out: contiguous."""
    room = new_room(line_of(out))
    if is_missing(room):
        return False
    phase = gap(out)
    first, last = _cut(size, lo, items, phase, line_of(out)), _cut(size, hi, items, phase, line_of(out))
    if lo == 0:
        _write_values(t, out, 0, min(phase, size), channels, inner)
        first = min(phase, size)
    write_past(t, out, first, last, channels, inner, seen_as(room, out, line_of(out)))
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
        write_some(of_channel(t, c), run_place(t, o, c, i), 0, out, first, n)
        first += n
