"""Compiling the kernels before they are needed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import functional

DTYPES = ("float32", "float64")


def warmup(dtypes: Iterable[Any] = DTYPES) -> float:
    """Compile every CPU kernel for these dtypes, or load it from the kernel cache.

    Parameters
    ----------
    dtypes : iterable of dtype, default ("float32", "float64")
        Types of x; each is normalized into its own output type, into a new array and in place.

    Returns
    -------
    float
        Seconds that it took. Afterwards a first call costs no more than a later one, in this process;
        and in others little more than reading the cache.

    Examples
    --------
    >>> import numbabn
    >>> numbabn.warmup(["float32"]) < 600
    True
    """
    start = time.perf_counter()
    for dtype in dtypes:
        # Enough values that every kernel takes part, the merge of parts included.
        rows = np.ones((70_000, 4), dtype=dtype)
        planes = np.ones((2, 2, 70_000), dtype=dtype)
        for x, axis in ((rows, -1), (planes, 1), (rows[:, ::3][::3], -1), (planes[:1], 1)):
            y, m = functional.batch_norm(x, axis=axis)
            for beta in (None, 0.0):
                functional.normalize(x, m.mean, m.var(), beta=beta, axis=axis)
            if y.dtype == x.dtype:
                functional.batch_norm(y, axis=axis, out=y)
                for beta in (None, 0.0):
                    functional.normalize(y, m.mean, m.var(), beta=beta, axis=axis, out=y)
        many = np.ones((2, 16, 300), dtype=dtype)  # enough channels to train each while it is cached
        y, _ = functional.batch_norm(many, axis=1)
        if y.dtype == many.dtype:
            functional.batch_norm(y, axis=1, out=y)
    return time.perf_counter() - start
