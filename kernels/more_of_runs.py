"""Third and fourth powers and extremes of runs: `more.py` for what `cpu_planes.py` reads.

Those of a run are gathered in COLUMNS lanes, (2, COLUMNS) and (3, COLUMNS), and folded into its channel at the end.
"""

from .forms import LANES, Eight, Few
from .jit import helper, inlined
from .memory import load, moved
from .more import begin_extremes, fold_extremes, tally_extremes, tally_higher
from .room import clear
from .vector import within
from .weights import deviation, reach, weigh, weighted

COLUMNS = 4 * LANES


@inlined
def _more(x, p, view, pivot, higher, extremes, j):
    """Add what is kept beside the sums, at an index of a run, to their lanes."""
    v = load(x, moved(j, p))
    w = weigh(view, v, j)
    d = within(deviation(view, v, pivot, w, j), j)
    lanes = Eight(j.i % COLUMNS)
    tally_higher(higher, COLUMNS, lanes, weighted(view, w, d) * d, d)
    # What an index leaves out has no weight.
    ones = within(1.0, j)
    tally_extremes(extremes, COLUMNS, lanes, reach(view, j) * ones, w * ones, v)


@helper
def add_more(x, p, n, view, pivot, higher, extremes):
    """Third and fourth powers and extremes of a run, into (2, COLUMNS) and (3, COLUMNS) lanes, or None."""
    if higher is None and extremes is None:
        return
    rest = n % LANES
    for j in range(0, n - rest, LANES):
        _more(x, p, view, pivot, higher, extremes, Eight(j))
    if rest > 0:
        _more(x, p, view, pivot, higher, extremes, Few(n - rest, rest))


@helper
def add_more_of_streams(x, p, hop, n, k0, k1, k2, k3, pivot, higher, extremes):
    """`add_more` of four streams."""
    if higher is None and extremes is None:
        return
    _clear_more(higher, extremes)
    add_more(x, p, n, k0, pivot, higher, extremes)
    add_more(x, p + hop, n, k1, pivot, higher, extremes)
    add_more(x, p + 2 * hop, n, k2, pivot, higher, extremes)
    add_more(x, p + 3 * hop, n, k3, pivot, higher, extremes)


@helper
def _clear_more(higher, extremes):
    clear(higher, 2 * COLUMNS)
    begin_extremes(extremes, COLUMNS, 0, COLUMNS)


@helper
def fold_more(higher, extremes, acc, parts, at_channel):
    """Add third and fourth powers to the sums of a channel, and take its extremes into a part."""
    _fold_higher(higher, acc)
    fold_extremes(extremes, COLUMNS, 0, COLUMNS, parts.extremes, parts.parts * parts.channels, at_channel)


@helper
def _fold_higher(higher, acc):
    if higher is not None:
        for k in range(COLUMNS):
            acc[3 * LANES + k % LANES] += higher[k]
            acc[4 * LANES + k % LANES] += higher[COLUMNS + k]
