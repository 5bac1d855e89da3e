"""The verbs for small arrays, worked out once for each shape and dtype: one call of one C function, in this thread."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from ..arrays import NDArray
from ..layout import Layout, Window
from . import cuts
from .cuts import SMALL
from .passes import in_cache, measuring

UNLEARNED: int = cuts.kernels("job").UNLEARNED
QUICK = 16384  # values that are done before another thread could have taken the GIL that it would be given

# A C function, and what packs its arguments behind the job.
Call = tuple[Callable[[bytes], int], Callable[..., bytes]]
# The kinds of arguments, and whether it measures and writes.
_CALLS = {
    "moments": (("i8", "i", "i", "i", "i", "i", "d", "d"), True, False),
    "normalize": (("i8", "i", "i", "i", "i", "i", "i", "i", "d"), False, True),
    "train": (("i8", "i", "i", "i", "i", "i", "i", "d", "i", "i", "i", "d", "d"), True, True),
}


class Prepared:
    """What to do with small arrays of one shape and dtype: C-contiguous, aligned, `out` like x.

    `moments`, `normalize` and `train` are pairs (function, pack): ``function(pack(...))`` takes the arguments as in
    `kernels/small.py` behind the job, arrays by their `id`, 0 for none, and returns what is done, as there.
    """

    def __init__(self, layout: Layout, window: Window, activation: Any) -> None:
        self.channel_shape = layout.order.channel_shape
        self.count = float(window.geometry.outer * window.geometry.inner)
        self._window, self._activation = window, activation
        self._kept: list[NDArray] = []

    moments: Call  # with (x, moments, known_count, known_mean, known_spread, weight, free)
    normalize: Call  # with (x, out, mean, var, gamma, beta, singles, eps)
    train: Call  # with (x, out, moments, gamma, beta, singles, eps) and the last five of `moments`

    def __getattr__(self, name: str) -> Call:
        """What is asked for the first time: without a lock, which a fork amid a compilation would leave locked."""
        if name not in _CALLS:
            raise AttributeError(name)
        made = self._call(name, *_CALLS[name])
        setattr(self, name, made)
        return made

    def _call(self, name: str, kinds: tuple[str, ...], measures: bool, writes: bool) -> Call:
        job = _job(self._window, self._activation, measures, writes)
        self._kept.append(job)
        entry = cuts.kernel("small", name).entry(kinds)
        function = entry.at_once() if self._window.geometry.size <= QUICK else entry.function
        return function, partial(entry.pack, cuts.kernels("entry").address(job))


def prepared(layout: Layout, activation: Any = None) -> Prepared | None:
    """The verbs for arrays like that of a layout, C-contiguous; None for large ones and those taken in pieces."""
    window = layout.window()
    if window is None or window.geometry.size > SMALL or not _found_by_id():
        return None
    return Prepared(layout, window, cuts.activation(activation))


def _job(window: Window, activation: Any, measures: bool, writes: bool) -> NDArray:
    """The row of whole numbers of `kernels/job.py`, with the kernels that are needed for it."""
    form, g = cuts.kernels("job"), window.geometry
    x, (_, outer, channel) = window.flat["x"], window.of("x")
    count, mean, m2, scale, shift = np.empty((5, 1))
    # What stands for the arrays of a call is found again by its address.
    places = {"x": x, "out": np.empty(1, x.dtype), "count": count, "mean": mean, "m2": m2}
    places |= {"scale": scale, "shift": shift}
    parts = cuts.kernels("forms").Parts(count, mean, m2, None, None, 1, g.channels)
    task = cuts.kernels("forms").Affine(x, outer, channel, mean, scale, shift, None, 0, 0, activation)
    job = np.zeros(form.SLOTS, np.int64)
    job[: form.MEASURE] = _word_of_data(), g.channels, g.size * x.itemsize
    calls = {form.MEASURE: measuring(window, parts)} if measures else {}
    if writes:
        calls[form.WRITE] = in_cache(g, task, places["out"], outer, channel)
    for at, (kernel, args, items) in calls.items():
        entry, row = kernel.slots(0, items, *args)
        where = [row.index(cuts.kernels("entry").address(places[name])) for name in form.ARRAYS[at]]
        known = [entry.address, job.size, len(row), *where]
        job[at : at + len(known)] = known
        job = np.concatenate([job, np.frombuffer(entry.pack(*row), np.int64)])
    return job


def _word_of_data() -> int:
    """At which word of an array object the address of its elements is: after what every object has."""
    return object.__basicsize__ // 8


@cache
def _found_by_id() -> bool:
    """Whether kernels are compiled, and find the elements of an array by its `id`."""
    if cuts.kernels("entry").interpreted() or sys.implementation.name != "cpython":
        return False
    probe = np.empty(1)
    word = ctypes.c_int64.from_address(id(probe) + 8 * _word_of_data())
    return bool(word.value == probe.__array_interface__["data"][0])
