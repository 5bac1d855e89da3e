"""Compiling the kernels before they are needed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import functional
from .arrays import NDArray, output_dtype
from .backends import machine
from .backends.cuts import SMALL
from .backends.written import PAST
from .batchnorm import BatchNorm

DTYPES = ("float32", "float64")


def warmup(dtypes: Iterable[Any] = DTYPES) -> float:
    """Compile the CPU kernels of plain calls for these dtypes, or load them from the kernel cache.

    Parameters
    ----------
    dtypes : iterable of dtype, default ("float32", "float64")
        Types of x; each is normalized into its own output type.

    Returns
    -------
    float
        Seconds that it took. Afterwards a first call of `moments`, `normalize`, `batch_norm` or a `BatchNorm` costs no
        more than a later one, in this process; and in others little more than reading the cache. Masks, weights,
        activations and the way back have kernels of their own, which their first call compiles.

    Examples
    --------
    >>> import numbabn
    >>> numbabn.warmup(["float32"]) < 600
    True
    """
    start = time.perf_counter()
    for dtype in dtypes:
        # Small ones, which are taken by themselves; and more values than that, so that every kernel takes part, the
        # merge of parts included, also with channels enough to train each while it is cached.
        many = SMALL + 1
        shapes: list[tuple[int, ...]] = [(4, 3), (2, 16, 300), (many // 2, 4), (2, 2, many // 2), (2, 64, many // 64)]
        if machine.past_the_cache():
            values = -(-PAST // output_dtype(np.dtype(dtype)).itemsize)
            shapes += [(-(-values // 4), 4), (2, 2, -(-values // 4)), (2, 64, -(-values // 128))]
        for shape in shapes:
            _work(np.ones(shape, dtype=dtype), min(1, len(shape) - 1))
        _work(np.ones((many // 2, 4), dtype=dtype)[::3, ::3], 1)
        BatchNorm(4, momentum=None).update(np.ones((2, 4), dtype=dtype))  # the other average that a kernel learns
    return time.perf_counter() - start


def _work(x: NDArray, axis: int) -> None:
    """What the verbs and a BatchNorm do with an array, all of it written into one new array."""
    m = functional.moments(x, axis=axis)
    y = functional.normalize(x, m.mean, m.var(), axis=axis)
    functional.batch_norm(x, axis=axis, out=y)
    bn = BatchNorm(x.shape[axis], axis=axis)
    bn(x, training=True, out=y)
    bn(x, out=y)
    bn.update(x)
