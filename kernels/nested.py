"""Weights and masks along an axis that is three in one are written out, a tile of rows or a piece of a run at a time.

What is written lies side by side and is then a form like others: `picks.py` opens and views it.
"""

from typing import Any, NamedTuple

from numba import types
from numba.extending import overload

from .ahead import ahead, write_out
from .forms import LANES, ByRow, Constant
from .jit import helper
from .memory import at
from .room import padded, seen_as


class Rows(NamedTuple):
    """`Nested`, opened for a block that begins at row `first`: packed rows of `pack` rows.

    flat and axes: where their values are. form: opened, for rows that are written to `table` before they are used.
    """

    flat: Any
    axes: Any
    first: int
    pack: int
    table: Any
    form: Any


# Rows ------------------------------------------------------------------------------------------------


@helper
def room_of_table(places):
    """How much room the values of so many places take at most."""
    return padded(places + LANES)


def opened_nested(nested, first, channels, pack, inner, places, room):
    """A nested form for packed rows that begin at row `first`; of a tile there are at most so many places."""
    table, rest = seen_as(room, nested.flat, places + LANES), at(room, room_of_table(places))
    if nested.packed is None:
        return Rows(nested.flat, nested.axes, first, pack, table, Constant(table, 1, 0))
    form = ahead(ByRow(table, 1), 0, 0, channels, pack, inner, rest)
    return Rows(nested.flat, nested.axes, first, pack, table, form)


@overload(opened_nested)
def _opened_nested(nested, first, channels, pack, inner, places, room):
    if isinstance(nested[-1], types.NoneType):

        def constant(nested, first, channels, pack, inner, places, room):
            table = seen_as(room, nested.flat, places + LANES)
            return Rows(nested.flat, nested.axes, first, pack, table, Constant(table, 1, channels - channels))

        return constant

    def by_row(nested, first, channels, pack, inner, places, room):
        table, rest = seen_as(room, nested.flat, places + LANES), at(room, room_of_table(places))
        return Rows(
            nested.flat, nested.axes, first, pack, table, ahead(ByRow(table, 1), 0, 0, channels, pack, inner, rest)
        )

    return by_row


@helper
def tile_of(rows, t, n):
    """The form of packed rows t to t + n, from t on."""
    write_out(rows.flat, rows.axes, rows.first + t * rows.pack, n * rows.pack, 1, rows.table)
    return rows.form


# Runs ------------------------------------------------------------------------------------------------


@helper
def run_written(nested, o, c, i, n, room):
    """n values of the run of outer o and channel c, from i on."""
    table = seen_as(room, nested.flat, n + LANES)
    write_out(at(nested.flat, o * nested.outer + c * nested.channel), nested.axes, i, n, 1, table)
    return table
