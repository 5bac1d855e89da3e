"""The verbs for arrays that a cache may hold, worked out once for each shape and dtype: one call of one C function.

Small ones are taken by the caller alone, larger ones with the helpers that are free: see `kernels/whole.py`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache, partial
from struct import Struct
from typing import Any

import numpy as np

from ..arrays import NDArray
from ..layout import Layout, Window
from . import cuts
from .cuts import ITEMS, SMALL
from .passes import Pass, in_cache, measuring, merging, parts_of, training
from .threads import assisted

UNLEARNED: int = cuts.kernels("job").UNLEARNED
LOST: int = cuts.kernels("job").LOST
QUICK = 16384  # values that are done before another thread could have taken the GIL that it would be given
EPS = -1.25  # stands for the one of a call

# A C function, and what packs its arguments behind the crew, the helpers and the job.
Call = tuple[Callable[[bytes], int], Callable[..., bytes]]
# The kinds of arguments, and whether it measures and writes.
_CALLS = {
    "moments": (("i", "i", "i", "i", "i", "d", "d"), True, False),
    "normalize": (("i", "i", "i", "i", "i", "i", "i", "d"), False, True),
    "train": (("i", "i", "i", "i", "i", "i", "d", "i", "i", "i", "d", "d"), True, True),
}
_CREW = Struct("=qq").pack


class Prepared:
    """What to do with arrays of one shape and dtype: C-contiguous, aligned, `out` like x.

    `moments`, `normalize` and `train` are pairs (function, pack): ``function(pack(...))`` takes the arguments as in
    `kernels/whole.py` behind the job, arrays by their `id`, 0 for none, and returns what is done, as there.
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
        entry = cuts.kernel("whole", name).entry(("i8", "i", "i8", *kinds))
        function, size = entry.function, self._window.geometry.size
        if size > SMALL:
            function = _shared(function)
        elif size <= QUICK:
            function = entry.at_once()
        return function, partial(entry.pack, 0, 0, cuts.kernels("entry").address(job))


def _shared(function: Callable[[bytes], int]) -> Callable[[bytes], int]:
    """A function of `kernels/whole.py` that gives helpers a share (see `kernels/crew.py`)."""
    memory, entry = cuts.kernels("shared"), cuts.kernels("entry")
    share = cuts.kernel("crew", "help").entry(("i8",))

    def shared(packed: bytes) -> int:
        crew = np.zeros(memory.WORDS, np.int64)
        where = entry.address(crew)

        def help(alive: NDArray = crew) -> None:
            share.function(share.pack(where))

        try:
            result = assisted(lambda helpers: function(_CREW(where, helpers) + packed[16:]), help, ITEMS)
        finally:
            crew[memory.CLOSED] = 1
        entry.done(result != LOST)
        return result

    return shared


def prepared(layout: Layout, activation: Any = None) -> Prepared | None:
    """The verbs for arrays like those of a layout, "x" and "out", C-contiguous; None for what is taken in pieces."""
    window = layout.window()
    return None if window is None or not _found_by_id() else Prepared(layout, window, cuts.activation(activation))


def _job(window: Window, activation: Any, measures: bool, writes: bool) -> NDArray:
    """The row of whole numbers of `kernels/job.py`, with the kernels that are needed for it."""
    form, memory, address = cuts.kernels("job"), cuts.kernels("shared"), cuts.kernels("entry").address
    g = window.geometry
    names, stand_ins = ("count", "mean", "m2", "gamma", "beta"), np.empty((5, 1))
    count, mean, m2, scale, shift = stand_ins
    parts = cuts.kernels("forms").Parts(count, mean, m2, None, None, parts_of(g), g.channels)
    task = cuts.kernels("forms").Affine(*window.of("x"), mean, scale, shift, None, 0, 0, activation)
    passes: dict[int, Pass] = {}
    if measures and writes and g.size > SMALL and not g.rows and cuts.trained_while_cached(window):
        passes[form.BOTH] = training(window, "out", parts, scale, shift, EPS, activation)
    else:
        if measures:
            passes[form.MEASURE] = measuring(window, parts)
        if measures and parts.parts > 1:
            passes[form.MERGE] = merging(parts)
        if writes:
            passes[form.WRITE] = in_cache(g, task, *window.of("out"))
    # What stands for the arrays of a call is found again by its address, and eps by a number that nothing else is.
    known = {name: address(array) for name, array in zip(names, stand_ins, strict=True)}
    known |= {name: address(window.flat[name]) for name in ("x", "out")} | {"eps": EPS}
    job = np.zeros(form.SLOTS, np.int64)
    for k, (place, (kernel, args, items)) in enumerate(passes.items()):
        entry, row = kernel.slots(0, items, *args)
        told = [entry.address, job.size, len(row), place == form.WRITE, memory.FIRST + k * memory.PHASE]
        told += [row.index(known[name]) for name in form.PLACES[place]]
        job[place : place + len(told)] = told
        job[form.ROW] = max(job[form.ROW], len(row))
        job = np.concatenate([job, np.frombuffer(entry.pack(*row), np.int64)])
    job[: form.ROW] = _word_of_data(), g.channels, g.size * window.flat["x"].itemsize, parts.parts
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
