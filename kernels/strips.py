"""Results of several rows at once, or of a stretch of a run: by index, by line past the cache, by strip in float32."""

from numba import types
from numba.extending import overload

from .certain import STRIP, after, is_worth, put_strips
from .flat import LINE
from .forms import LANES, Eight
from .jit import ALONE, inlined, otherwise
from .lines import line_of
from .memory import moved, store, store_past
from .point import look_ahead, point
from .single import one_known


def put(out, j, value, past):
    """Store the result at an index, past the cache or into it."""
    store(out, j, value)


@overload(put)
def _put(out, j, value, past):
    if isinstance(past, types.NoneType):
        return lambda out, j, value, past: store(out, j, value)
    return lambda out, j, value, past: store_past(out, j, value)


@inlined
def write_four(t, p0, p1, p2, p3, out, q0, q1, q2, q3, j, past):
    """An index of four rows at once: the parameters load once for four.

    All results come before the first store: a load close behind a store to the same place in a page waits for it.
    """
    a, b, c, d = point(t, p0, j), point(t, p1, j), point(t, p2, j), point(t, p3, j)
    put(out, moved(j, q0), a, past)
    put(out, moved(j, q1), b, past)
    put(out, moved(j, q2), c, past)
    put(out, moved(j, q3), d, past)


@inlined
def write_two(t, p0, p1, p2, p3, out, q0, q1, q2, q3, j, past):
    """`write_four` of two vectors: those of a row one behind the other, which past the cache fills a line at once."""
    k = moved(j, LANES)
    a, b, c, d = point(t, p0, j), point(t, p1, j), point(t, p2, j), point(t, p3, j)
    e, f, g, h = point(t, p0, k), point(t, p1, k), point(t, p2, k), point(t, p3, k)
    _put_two(out, moved(j, q0), a, e, past)
    _put_two(out, moved(j, q1), b, f, past)
    _put_two(out, moved(j, q2), c, g, past)
    _put_two(out, moved(j, q3), d, h, past)


@inlined
def _write_eight(t, p0, p1, p2, p3, out, q0, q1, q2, q3, j, past):
    """`write_two` of four vectors."""
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


@inlined
def four_ahead(t, p0, p1, p2, p3, j):
    """Ask for the memory that four rows will be read from soon, beyond column j."""
    look_ahead(t, p0, j)
    look_ahead(t, p1, j)
    look_ahead(t, p2, j)
    look_ahead(t, p3, j)


def write_lines(t, p0, p1, p2, p3, out, q0, q1, q2, q3, line):
    """A line of each of four rows, past the cache."""
    for j in range(line, line + line_of(out), LANES):
        write_four(t, p0, p1, p2, p3, out, q0, q1, q2, q3, Eight(j), True)


@overload(write_lines, jit_options=ALONE)
def _write_lines(t, p0, p1, p2, p3, out, q0, q1, q2, q3, line):
    write = {1: write_four, 2: write_two, 4: _write_eight}[LINE // out.size // LANES]
    return lambda t, p0, p1, p2, p3, out, q0, q1, q2, q3, line: write(
        t, p0, p1, p2, p3, out, q0, q1, q2, q3, Eight(line), True
    )


@otherwise("doubt")
def four_by_strips(single, t, p0, p1, p2, p3, out, q0, q1, q2, q3, width, past, doubt):
    """The first `by_strips` columns of four rows, by float32 or where need be float64; the new doubt."""
    for j in range(0, by_strips(single, width), STRIP):
        if past is not None:
            four_ahead(t, p0, p1, p2, p3, j)
        to = q0 + j, q1 + j, q2 + j, q3 + j
        sure = is_worth(doubt) and put_strips(single, t, j, (p0, p1, p2, p3), out, to, past)
        doubt = after(doubt, sure)
        if not sure:
            _write_eight(t, p0, p1, p2, p3, out, q0, q1, q2, q3, Eight(j), past)
    return doubt


@otherwise(0)
def by_strips(single, width):
    """How many columns of a row are written in strips."""
    return width // STRIP * STRIP


@otherwise(0)
def run_by_strips(eight, t, c, place, j, out, q, n, past):
    """n values of a run, strip by strip, by float32 or where need be float64: how many, as the last strip is whole.

    eight: what is known of eight channels (`single.py`), c among them.
    """
    whole, doubt, single = n // STRIP * STRIP, 0, one_known(t, c, eight)
    for k in range(0, whole, STRIP):
        if past is not None:
            look_ahead(t, place, j + k)
        sure = is_worth(doubt) and put_strips(single, t, j + k, (place,), out, (q + k,), past)
        doubt = after(doubt, sure)
        if not sure:
            for m in range(k, k + STRIP, LANES):
                put(out, Eight(q + m), point(t, place, Eight(j + m)), past)
    return whole
