"""Times on the device, by events: medians of many runs, several input sets in turn so that no cache holds them."""

import math
import statistics
import time
from functools import cache

HELD = 1 << 28  # bytes of a copy that keeps the device busy
MOST_HELD = 500  # of them: a device queues no more than a thousand works
STREAM = 1  # the legacy default stream, on which PyTorch's and CuPy's default streams wait too


def check(answer):
    """What a call of the driver gave; RuntimeError for an error."""
    from cuda.bindings import driver

    status, *values = answer
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"CUDA driver: {status.name}")
    return values[0] if values else None


def median_ms(works, runs=30, warm=3, hold=lambda seconds: None):
    """Median milliseconds of one of `works`, functions that launch the same on other data, taken in turn.

    hold: keeps the device busy for some seconds. The runs are all launched meanwhile, so that the time is the device's
    alone: it never waits for the host.
    """
    from cuda.bindings import driver

    for k in range(len(works)):
        works[k]()  # which may compile
    check(driver.cuStreamSynchronize(STREAM))
    start = time.perf_counter()
    for k in range(warm):
        works[k % len(works)]()
    to_launch = (time.perf_counter() - start) / warm
    marks = [(check(driver.cuEventCreate(0)), check(driver.cuEventCreate(0))) for _ in range(runs)]
    check(driver.cuStreamSynchronize(STREAM))
    hold(2 * runs * to_launch)
    for k, (start, end) in enumerate(marks):
        check(driver.cuEventRecord(start, STREAM))
        works[k % len(works)]()
        check(driver.cuEventRecord(end, STREAM))
    check(driver.cuStreamSynchronize(STREAM))
    times = [check(driver.cuEventElapsedTime(start, end)) for start, end in marks]
    for pair in marks:
        for mark in pair:
            check(driver.cuEventDestroy(mark))
    return statistics.median(times)


def hold(seconds):
    """Keep the device busy for about so long: copies, as many as that takes."""
    to, source, each = _something_to_copy()
    for _ in range(min(MOST_HELD, math.ceil(seconds * 1e3 / each))):
        copy(to, source, HELD)


@cache
def _something_to_copy():
    """(to, from, milliseconds of a copy)."""
    from cuda.bindings import driver

    to, source = (int(check(driver.cuMemAllocAsync(HELD, STREAM))) for _ in range(2))
    return to, source, max(0.01, median_ms([lambda: copy(to, source, HELD)], 5))


def host_us(work, calls=100, rounds=20):
    """Median microseconds that the host spends on one call of a work that it does not wait for.

    So few calls at once that the device can queue all of them: behind a full queue a launch waits.
    """
    from cuda.bindings import driver

    for _ in range(50):
        work()
    found = []
    for _ in range(rounds):
        check(driver.cuStreamSynchronize(STREAM))
        start = time.perf_counter()
        for _ in range(calls):
            work()
        found.append((time.perf_counter() - start) / calls * 1e6)
        check(driver.cuStreamSynchronize(STREAM))
    return statistics.median(found)


def copy(to, source, nbytes):
    """A device-to-device copy, the measure of all."""
    from cuda.bindings import driver

    check(driver.cuMemcpyAsync(to, source, nbytes, STREAM))
