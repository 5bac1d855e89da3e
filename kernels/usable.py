"""Whether weights can be used: none of them negative, infinite or NaN."""

import numpy as np

from .forms import LANES, Eight
from .jit import inlined, kernel
from .lines import touch
from .memory import load
from .vector import nothing, select, total

FAR = 256  # elements that a stream asks for ahead of time


@kernel
def usable(weights, lo, hi):
    """Whether elements lo..hi of a flat array are finite and not negative."""
    bad, quarter = nothing(Eight(0)), (hi - lo) // (4 * LANES) * LANES
    for i in range(lo, lo + quarter, LANES):  # four streams: memory answers them faster than one
        a, b = load(weights, Eight(i)), load(weights, Eight(i + quarter))
        c, d = load(weights, Eight(i + 2 * quarter)), load(weights, Eight(i + 3 * quarter))
        touch(weights, i + FAR)
        touch(weights, i + quarter + FAR)
        touch(weights, i + 2 * quarter + FAR)
        touch(weights, i + 3 * quarter + FAR)
        bad = bad + ((_unfit(a) + _unfit(b)) + (_unfit(c) + _unfit(d)))
    found = total(bad)
    for i in range(lo + 4 * quarter, hi):
        found += _unfit(load(weights, i))
    return found == 0.0


@inlined
def _unfit(w):
    return select((w >= 0.0) & (w < np.inf), 0.0, 1.0)
