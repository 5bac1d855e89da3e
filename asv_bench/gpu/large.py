"""An array of more values than 32 bits can count: a small block again and again, so that its answers are known."""

import numpy as np

import numbabn
from gpu import check, own
from numbabn import devices
from numbabn.devices import DeviceArray
from numbabn.devices.driver import on

VALUES = (1 << 31) + (1 << 20)
BLOCK = (1024, 96)  # rows and columns of the block
BYTES = 6  # of memory for each value, at most: x, its result in float32, and some room


def compared(family, rng, values=VALUES, block=BLOCK):
    """Moments, and the first and last block of the result, of int8 in one family; how many answers: 0 without room."""
    with on(0) as driver:
        if driver.free_memory() < BYTES * values:
            return 0
    few = rng.integers(-100, 100, block).astype(np.int8)
    times = -(-values // (6 * few.size)) * 6
    if family == "rows":
        shape, small = (times * block[0], block[1]), few
    else:  # every run of a channel holds whole blocks
        shape, small = (2, 3, times // 6 * few.size), np.broadcast_to(few.reshape(-1, 1), (few.size, 3))
    x = own.repeated(shape, few)
    case = check.Case(f"{shape} int8", small, 1)
    m, m_ = numbabn.moments(x, axis=1), numbabn.moments(small)
    more = np.prod(shape) // small.size
    for name, wanted in (("count", m_.count * more), ("mean", m_.mean), ("m2", m_.m2 * more)):
        check.agree(case, name, np.asarray(getattr(m, name)), np.asarray(wanted), 1 << 20)
    y = devices.taken(numbabn.normalize(x, m.mean, m.var(), axis=1), "y")[0].reshape(-1)
    wanted = numbabn.normalize(small, m.mean, m.var())
    for what, part, channel in (("first", y[: few.size], 0), ("last", y[-few.size :], 2)):
        expected = wanted.reshape(-1) if family == "rows" else wanted[:, channel]
        check.agree(case, f"the {what} block", DeviceArray(part), expected)
    return 5
