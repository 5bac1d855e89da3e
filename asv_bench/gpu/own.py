"""Arrays of numbabn's own for the measurements, where PyTorch is not there to make them."""

import math

import numpy as np

from gpu.check import fetch, named
from numbabn import devices
from numbabn.devices import DeviceArray, Place, pointer_of
from numbabn.devices.driver import LEGACY, on

BLOCK = 1 << 24  # random values that a large array repeats
LOOKED_AT = 1 << 29  # bytes of an array that is brought to the host to be looked at
PLACE = Place(0, LEGACY, "numbabn")


def arrays(shape, dtype):
    """(x, y, dy): x and dy random, y poisoned."""
    rng = np.random.default_rng()
    return _filled(shape, dtype, rng.normal(3, 2, _block(shape))), _poisoned(shape, dtype), _normal(shape, dtype, rng)


def repeated(shape, values):
    """An array of a shape that holds some values again and again."""
    array = DeviceArray(devices.empty(shape, values.dtype, PLACE))
    _fill(array, values.reshape(-1).view(np.uint8))
    return array


def address(a):
    """Where an array begins, on the device."""
    return a.data_ptr() if hasattr(a, "data_ptr") else a.__cuda_array_interface__["data"][0]


def wrong(p, task, works, bns):
    """As `contests.wrong`, on the host."""
    import ml_dtypes

    from gpu import contests

    x, y, dy = p.sets[0]
    _fill(y, np.full(1 << 10, 255, np.uint8))
    works[0]()
    x_, y_, dy_ = (np.moveaxis(fetch(a), p.axis, 0) for a in (x, y, dy))
    unit = float(ml_dtypes.finfo(x.dtype).eps)
    for c in (0, len(x_) - 1):
        values, got, g = (a[c].astype(np.float64) for a in (x_, y_, dy_))
        wanted = contests.expected(task, values, g, bns[0], c)
        bad = ~(np.abs(got - wanted) <= 8 * unit * (np.abs(wanted) + 1))
        if bad.any():
            return f"{np.count_nonzero(bad)} of {bad.size} values of channel {c} are wrong"
    return ""


def _block(shape):
    return min(BLOCK, math.prod(shape))


def _normal(shape, dtype, rng):
    return _filled(shape, dtype, rng.normal(size=_block(shape)))


def _poisoned(shape, dtype):
    return _filled(shape, dtype, np.full(_block(shape), np.nan))


def _filled(shape, dtype, values):
    return repeated(shape, values.astype(named(dtype)))


def _fill(array, some):
    """Repeat some bytes over all of an array: each copy doubles what is there."""
    start, nbytes = address(array), math.prod(array.shape) * array.dtype.itemsize
    done = min(some.nbytes, nbytes)
    with on(0) as driver:
        driver.copy(start, pointer_of(some), done, LEGACY)
        while done < nbytes:
            more = min(done, nbytes - done)
            driver.copy(start + done, start, more, LEGACY)
            done += more
        driver.synchronize(LEGACY)
