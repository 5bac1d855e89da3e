"""The verbs for plain arrays, worked out once for each shape, dtype and order of memory: one call of one C function.

Small ones are taken by the caller alone, larger ones with the helpers that are free: see `kernels/whole.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from ..arrays import NDArray
from ..geometry import Window
from ..layout import Layout
from . import cuts
from .cuts import GRAIN, SMALL
from .jobs import finds_headers, job_of
from .threads import assisted

UNLEARNED: int = cuts.kernels("job").UNLEARNED
LOST: int = cuts.kernels("job").LOST
ALIGNED: int = cuts.kernels("job").ALIGNED  # a bit of ndarray.flags.num
READ: int = ALIGNED | cuts.kernels("job").CONTIGUOUS
SHARE = 2 * GRAIN  # values that a thread has at least: each takes some microseconds to be woken
QUICK = 16384  # values that are done before another thread could have taken the GIL that it would be given

# A C function, and what packs its arguments behind the crew, the helpers and the job.
Call = tuple[Callable[[bytes], int], Callable[..., bytes]]
Strides = tuple[tuple[int, ...], tuple[int, ...]]
# What learns, the shape of moments and what is learned together, and the degrees of freedom.
Lesson = tuple[int, tuple[int, ...], float]
# The kinds of arguments, and where the C function is.
_CALLS = {
    "moments": ("iiiiiidd", "whole"),
    "normalize": ("iiiiiid", "whole"),
    "train": ("iiiiidiiiidd", "whole"),
    "backward": ("iiiiiiiddi", "whole_back"),
}


class Prepared:
    """What to do with arrays of one shape and dtype, aligned, with the `strides` of x and of the result.

    These are None where all are C-contiguous.

    Each verb is a pair (function, pack): ``function(pack(...))`` takes the arguments as in `kernels/whole.py` and
    `kernels/whole_back.py` behind the job, arrays by their `id`, 0 for none, and returns what is done, as there.
    """

    def __init__(self, layout: Layout, window: Window, strides: Strides | None, activation: Any) -> None:
        self.channel_shape = layout.order.channel_shape
        self.strides = strides
        self.count = float(window.geometry.outer * window.geometry.inner)
        self._window, self._activation = window, activation
        self.lessons: dict[tuple[str, float], Lesson] = {}  # by rule and ddof
        self._kept: list[NDArray] = []

    moments: Call  # with (x, moments, learn, known_count, known_mean, known_spread, free, weight)
    normalize: Call  # with (x, out, mean, var, gamma, beta, eps)
    train: Call  # with (x, out, moments, gamma, beta, eps) and the last six of `moments`
    backward: Call  # with (dy, x, out, mean, m2, gamma, beta, count, eps, gradients)

    def __getattr__(self, name: str) -> Call:
        """What is asked for the first time: without a lock, which a fork amid a compilation would leave locked."""
        if name not in _CALLS:
            raise AttributeError(name)
        made = self._call(name, *_CALLS[name])
        setattr(self, name, made)
        return made

    def _call(self, name: str, kinds: str, room: str) -> Call:
        strides = () if self.strides is None else self.strides[1]
        job = job_of(self._window, self._activation, name, self.channel_shape, strides)
        self._kept.append(job)
        entry = cuts.kernel(room, name).entry(("i8", "i", "i8", *kinds))
        function, size = entry.function, self._window.geometry.size
        if size > SMALL:
            function = _shared(function, size // SHARE)
        elif size <= QUICK:
            function = entry.at_once()
        return function, partial(entry.pack, 0, 0, cuts.kernels("entry").address(job))


def _shared(function: Callable[[bytes], int], threads: int) -> Callable[[bytes], int]:
    """A function of `kernels/whole.py` that so many threads share at most: see `kernels/crew.py`."""
    memory, entry = cuts.kernels("shared"), cuts.kernels("entry")
    share = cuts.kernel("crew", "help").entry(("i8",))

    def shared(packed: bytes) -> int:
        crew = np.zeros(memory.WORDS, np.int64)
        where = entry.address(crew)

        def help(alive: NDArray = crew) -> None:
            share.function(share.pack(where))

        try:
            result = assisted(lambda helpers: function(entry.TWO(where, helpers) + packed[16:]), help, threads)
        finally:
            crew[memory.CLOSED] = 1
        entry.done(result != LOST)
        return result

    return shared


def prepared(layout: Layout, strides: Strides | None, activation: Any = None) -> Prepared | None:
    """The verbs for arrays like those of a layout, "x" and "out"; None for what is taken in pieces.

    strides: those of the caller's arrays, None where they are C-contiguous.
    """
    window, alone = layout.window(), layout.input().window()
    if window is None or alone is None or not _found_by_id():
        return None
    # As the statistics of x are cut by itself, whatever the result is like.
    same_cut = window.geometry.shared == alone.geometry.shared
    return Prepared(layout, window, strides, cuts.activation(activation)) if same_cut else None


@cache
def learner(average: str) -> int:
    """The C function that makes a running average of its last state and a batch: see `kernels/learn.py`."""
    address: int = cuts.kernel("learn", average).entry(("i", "f8", "f8", "f8", "d", "f8", "f8", "d", "d", "f8")).address
    return address


@cache
def _found_by_id() -> bool:
    """Whether kernels are compiled, and find the elements of an array by its `id`."""
    return not cuts.kernels("entry").interpreted() and sys.implementation.name == "cpython" and finds_headers()
