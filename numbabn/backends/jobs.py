"""What a call of `kernels/whole.py` has to know of arrays of one shape and dtype: see `kernels/job.py`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ..arrays import NDArray
from ..geometry import Window
from . import cuts
from .cuts import SMALL
from .passes import Pass, measuring, merging, parts_of, summing, training
from .written import PAST, goes_past, writing

DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
EPS = -1.25  # stands for the one of a call
# Arrays of a call, by stand-ins, which are found again by their addresses.
_NAMES = ("count", "mean", "m2", "gamma", "beta", "sums", "a", "b", "k")


def job_of(
    window: Window, activation: Any, name: str, channels: tuple[int, ...], strides: tuple[int, ...] = ()
) -> NDArray:
    """The whole numbers of a job for a verb, with the kernels that it needs; "x" and "out" are in the window.

    channels: their shape; strides: those of the result, where arrays are not C-contiguous.
    """
    form, memory, entries = cuts.kernels("job"), cuts.kernels("shared"), cuts.kernels("entry")
    arrays = dict(zip(_NAMES, np.empty((len(_NAMES), 1)), strict=True))
    arrays |= {"x": window.flat["x"], "out": window.flat["out"], "dy": np.empty_like(window.flat["x"])}
    known = {key: entries.address(array) for key, array in arrays.items()} | {"eps": EPS}
    g, writes = window.geometry, (form.WRITE, form.INPUTS)
    job = np.zeros(form.SLOTS, np.int64)
    job[form.ROW] = form.LEARN
    passes = _back(window, arrays) if name == "backward" else _there(window, activation, name, arrays)
    for k, (place, (kernel, args, items)) in enumerate(passes.items()):
        entry, row = kernel.slots(0, items, *args)
        told = [entry.address, job.size, len(row), place in writes, memory.FIRST + k * memory.PHASE]
        told += [row.index(known[key]) for key in form.PLACES[place]]
        job[place : place + len(told)] = told
        job[form.ROW] = max(job[form.ROW], len(row))
        job = np.concatenate([job, np.frombuffer(entry.pack(*row), np.int64)])
    job[: form.ROW] = word_of_data(), g.channels, max(a.nbytes for a in window.flat.values()), parts_of(g)
    job[form.ARRAY : form.LENGTHS] = *map(id, (np.ndarray, DOUBLE, SINGLE)), len(channels)
    job[form.LENGTHS], job[form.STRIDES] = job.size, job.size + len(channels) if strides else 0
    # What goes past the cache is not what x is read from: in place, large arrays go the general way.
    job[form.IN_PLACE] = g.size * window.flat["x"].itemsize < PAST
    return np.concatenate([job, np.array((*channels, *strides), np.int64)])


def _there(window: Window, activation: Any, name: str, arrays: dict[str, Any]) -> dict[int, Pass]:
    """The passes of "moments", "normalize" and "train", by their places in the job."""
    form, forms, g = cuts.kernels("job"), cuts.kernels("forms"), window.geometry
    count, mean, m2, gamma, beta = (arrays[key] for key in _NAMES[:5])
    parts = forms.Parts(count, mean, m2, None, None, parts_of(g), g.channels)
    if name == "train" and g.size > SMALL and not g.rows and cuts.trained_while_cached(window):
        past = goes_past(window, "out")
        return {form.BOTH: training(window, "out", parts, gamma, beta, EPS, activation, past=past)}
    passes = {}
    if name != "normalize":
        passes[form.MEASURE] = measuring(window, parts)
        if parts.parts > 1:
            passes[form.MERGE] = merging(parts)
    if name != "moments":
        task = forms.Affine(*window.of("x"), mean, gamma, beta, None, 0, 0, activation)
        passes[form.WRITE] = writing(window, task, "out")
    return passes


def _back(window: Window, arrays: dict[str, Any]) -> dict[int, Pass]:
    """The passes of "backward"; dy lies as x does."""
    form, g, absent = cuts.kernels("job"), window.geometry, (None, 0, 0)
    mean, sums, a, b, k = (arrays[key] for key in ("mean", "sums", "a", "b", "k"))
    x = window.of("x")
    dy = (arrays["dy"], *x[1:])
    task = cuts.kernels("forms").Gradient(*dy, *x, *absent, None, mean, None, *absent, a, b, k)
    return {
        form.SUMS: summing(g, dy, x, None, mean, None, absent, sums),
        form.INPUTS: writing(window, task, "out"),
    }


def word_of_data() -> int:
    """At which word of an array object the address of its elements is: after what every object has."""
    return object.__basicsize__ // 8


def finds_headers() -> bool:
    """Whether the header of an array is where kernels look for it: tried on one."""
    form, probe = cuts.kernels("job"), np.empty((3, 5), np.float32)[:, 1:3]
    begin = id(probe) + 8 * word_of_data()

    def words(address: int, n: int = 1) -> tuple[int, ...]:
        return tuple((ctypes.c_int64 * n).from_address(address))

    at = {k: words(begin + 8 * k)[0] for k in (0, form.TYPE, form.NDIM, form.SHAPE, form.STEPS, form.DTYPE, form.FLAGS)}
    return (
        (at[0], at[form.TYPE], at[form.DTYPE]) == (probe.__array_interface__["data"][0], id(np.ndarray), id(SINGLE))
        and (at[form.NDIM] & form.HALF, at[form.FLAGS] & form.HALF) == (probe.ndim, probe.flags.num)
        and words(at[form.SHAPE], probe.ndim) == probe.shape
        and words(at[form.STEPS], probe.ndim) == probe.strides
    )
