"""How much an element counts: a mask, weights, missing values; what is not there compiles to nothing.

A view is what `picks.py` gives of a pick at a row or a run: None, or (where, weights, omit). What is written here takes
any index of `memory.load`.
"""

import numpy as np
from numba import types
from numba.extending import overload

from .flat import Flat
from .jit import ALONE, inlined, otherwise
from .memory import is_set_by, load, load_by
from .operation import argument, operation
from .vector import ONE, how_many, select


def weight_at(view, j):
    """What a view says of an index: it is flat, or one number for all."""
    if view is None:
        return 1.0
    return load(view, j) if np.ndim(view) else float(view)


@operation(weight_at)
def _weight_at(view, j):
    if isinstance(view, types.NoneType):
        return types.float64(view, j), lambda context, builder, signature, args: ONE
    if isinstance(view, Flat):
        return load_by(view, j)
    return None if isinstance(view, types.Array) else (view(view, j), argument(0))


@overload(weight_at)
def _weight_at_of_array(view, j):
    return (lambda view, j: load(view, j)) if isinstance(view, types.Array) else None


@otherwise("w")
def _where(where, j, w):
    return select(weight_at(where, j) != 0.0, w, 0.0)


@otherwise(1.0)
def reach(view, j):
    """The weight at an index before the values are looked at; 1 without a pick."""
    where, weights, _ = view
    return _where(where, j, weight_at(weights, j))


@otherwise("w")
def present(omit, value, w):
    """w, or 0 for a NaN that is to be left out."""
    return select(value == value, w, 0.0)


@otherwise(1.0)
def weigh(view, value, j):
    """The weight at an index, whose value is given; 1 without a pick."""
    _, _, omit = view
    return present(omit, value, reach(view, j))


def marks(where, j):
    """Whether a view of a mask lets through what is at an index."""
    return weight_at(where, j) != 0.0


@operation(marks)
def _marks(where, j):
    return is_set_by(where, j)


@overload(marks, jit_options=ALONE)
def _overload_marks(where, j):
    if isinstance(where, types.NoneType):
        return lambda where, j: True
    return lambda where, j: weight_at(where, j) != 0.0


@otherwise(True)
def _is_there(omit, value):
    return value == value


@inlined
def _counts(view, value, j):
    """Whether a value counts, by a view without weights."""
    where, _, omit = view
    return marks(where, j) & _is_there(omit, value)


def _only_counts(view):
    """Whether values count or do not, by the type of a view: there are no weights."""
    return isinstance(view, types.BaseTuple) and isinstance(view[1], types.NoneType)


def deviation(view, value, pivot, w, j):
    """value - pivot, and 0 where nothing is to be seen of the value."""
    return value - pivot if view is None else select(w != 0.0, value - pivot, 0.0)


@overload(deviation, jit_options=ALONE)
def _deviation(view, value, pivot, w, j):
    if isinstance(view, types.NoneType):
        return lambda view, value, pivot, w, j: value - pivot
    if _only_counts(view):
        return lambda view, value, pivot, w, j: select(_counts(view, value, j), value - pivot, 0.0)
    return lambda view, value, pivot, w, j: select(w != 0.0, value - pivot, 0.0)


def four_weights(k0, k1, k2, k3, v0, v1, v2, v3, w0, w1, w2, w3, j):
    """The sum of four weights, given views, values and weights."""
    return (w0 + w1) + (w2 + w3)


@overload(four_weights, jit_options=ALONE)
def _four_weights(k0, k1, k2, k3, v0, v1, v2, v3, w0, w1, w2, w3, j):
    if _only_counts(k0):
        return lambda k0, k1, k2, k3, v0, v1, v2, v3, w0, w1, w2, w3, j: how_many(
            _counts(k0, v0, j), _counts(k1, v1, j), _counts(k2, v2, j), _counts(k3, v3, j)
        )
    return lambda k0, k1, k2, k3, v0, v1, v2, v3, w0, w1, w2, w3, j: (w0 + w1) + (w2 + w3)


@otherwise("d")
def weighted(view, w, d):
    """w * d, where a weight is more than 1 or 0; a `deviation` that does not count is 0 already."""
    _, weights, _ = view
    return _times(weights, w, d)


@otherwise("d")
def _times(weights, w, d):
    return w * d


@otherwise("result")
def unless_missing(view, value, j, result):
    """The result, and 0 for an element that is no number and has no weight: nothing of it counts, also going back."""
    return select((weigh(view, value, j) == 0.0) & ((abs(value) == np.inf) | (value != value)), 0.0, result)
