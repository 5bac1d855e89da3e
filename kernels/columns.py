"""The columns of a wide row, pack x channels x inner of them, and the channels that they belong to."""

from .forms import LANES, Eight, Few
from .jit import helper
from .memory import load, moved, store
from .room import copy
from .vector import total


@helper
def spread(value, channels, inner, pack, out):
    """Repeat (channels,) over the pack x channels x inner columns of a wide row."""
    for k in range(pack):
        if inner == 1:
            copy(value, 0, out, k * channels, channels)
        else:
            for c in range(channels):
                one = value[c]
                at_column = (k * channels + c) * inner
                for j in range(at_column, at_column + inner):
                    out[j] = one


@helper
def fold(sums, channels, inner, pack):
    """Add up the columns of each channel, in place: the first (channels,) of (width,); nothing for None."""
    if sums is not None and pack * inner > 1:
        if inner == 1:
            _fold_rows(sums, channels, pack)
        else:
            for c in range(channels):
                whole = 0.0
                for k in range(pack):
                    whole += _total(sums, (k * channels + c) * inner, inner)
                sums[c] = whole  # no later channel has a column before this one


@helper
def _fold_rows(sums, channels, pack):
    """`fold` where each row has one column of a channel: several channels at a time."""
    rest = channels % LANES
    for c in range(0, channels - rest, LANES):
        whole = load(sums, Eight(c))
        for k in range(channels, pack * channels, channels):
            whole = whole + load(sums, Eight(k + c))
        store(sums, Eight(c), whole)
    if rest > 0:
        last = Few(channels - rest, rest)
        whole = load(sums, last)
        for k in range(channels, pack * channels, channels):
            whole = whole + load(sums, moved(last, k))
        store(sums, last, whole)


@helper
def _total(sums, first, n):
    """The sum of n numbers from `first` on."""
    whole, rest = 0.0, n % LANES
    if n >= LANES:
        lanes = load(sums, Eight(first))
        for j in range(first + LANES, first + n - rest, LANES):
            lanes = lanes + load(sums, Eight(j))
        whole = total(lanes)
    for j in range(first + n - rest, first + n):
        whole += sums[j]
    return whole
