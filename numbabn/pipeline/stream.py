"""Statistics and normalization of .npy files larger than memory, chunk by chunk.

Memory in use is a few chunks and a few values for each channel, whatever the size of the file. A
result is written under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import checks, functional
from ..arrays import output_dtype
from ..batchnorm import BatchNorm
from ..state import atomic
from ..statistics import Moments, merged
from .npyfile import Box, NpyFile, describe, write_header

PathLike = str | os.PathLike[str]
Progress = Callable[[int], object]

CHUNK = 32 << 20  # bytes: the work on a chunk outweighs mapping it, and a few chunks are little memory
DTYPES = ("float16", "float32", "float64")


def moments(
    path: PathLike, *, axis: int | tuple[int, ...] = -1, chunk: int = CHUNK, progress: Progress | None = None
) -> Moments:
    """Count, mean and M2 of each channel of a .npy file, in one pass over it.

    Parameters
    ----------
    path : path
        The file; see `numbabn.pipeline.npyfile.describe`.
    axis : int or tuple of int, default -1
        The channel axes; ``()`` takes all values as one channel.
    chunk : int, default 32 MiB
        Bytes of the file to take at a time.
    progress : callable, optional
        Called with the number of bytes read, after each chunk.

    Returns
    -------
    Moments
        As `numbabn.moments` of the loaded array gives it, but for rounding.

    Examples
    --------
    >>> from numbabn import data
    >>> from numbabn.pipeline import stream
    >>> stream.moments(data.path("photographs.npy")).mean.round(1)
    array([ 99.9, 109.5,  99. ])
    """
    source = describe(path)
    axes = _axes(source, axis)
    inside = source.memory_axes(axes)
    count, mean, m2 = (np.zeros([source.memory_shape[a] for a in inside]) for _ in range(3))
    for box, x in source.chunks(max(1, chunk // source.dtype.itemsize)):
        part = functional.moments(x, axis=inside)
        at = _channels(box, inside)
        # A chunk may hold some of the channels only.
        count[at], mean[at], m2[at] = merged((count[at], mean[at], m2[at]), (part.count, part.mean, part.m2))
        if progress is not None:
            progress(x.nbytes)
    return Moments(*(a.T if source.fortran else a for a in (count, mean, m2)))


def learn(
    path: PathLike,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> BatchNorm:
    """A BatchNorm that has learned from a .npy file: the cumulative average of all its values.

    Parameters
    ----------
    path, axis, chunk, progress
        As for `moments`.
    eps : float, default 1e-5
        Added to the variance before its square root is taken.

    Returns
    -------
    BatchNorm
        With ``momentum=None``. NaN and infinity in a channel are not left out: they show in its
        running mean and variance.
    """
    measured = moments(path, axis=axis, chunk=chunk, progress=progress)
    channels = measured.mean.shape if isinstance(axis, tuple) else measured.mean.size
    bn = BatchNorm(channels, axis=axis, momentum=None, eps=eps)
    count = np.broadcast_to(measured.count, measured.mean.shape)
    var = np.where(count > 0, measured.m2 / np.maximum(count, 1), 1.0)  # 1 where nothing was seen, as in a new one
    bn.load_state_dict(
        {
            "running_mean": measured.mean,
            "running_var": var,
            "count": count,
            "m2": measured.m2,
            "num_batches": int(count.size > 0 and count.max() > 0),
        }
    )
    return bn


def normalize(
    path: PathLike,
    out: PathLike,
    bn: BatchNorm,
    *,
    dtype: Any = None,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> None:
    """Normalize a .npy file by the running averages of `bn` into another one.

    Parameters
    ----------
    path : path
        The file; see `numbabn.pipeline.npyfile.describe`.
    out : path
        Where to write; replaced when the result is complete, and untouched until then. Its memory
        order is that of the input.
    bn : BatchNorm
        Its channel axes, running averages, eps, and gamma and beta where there are any. Never changed.
    dtype : {"float16", "float32", "float64"}, optional
        Of the output; if not given, as for `numbabn.normalize`.
    chunk, progress
        As for `moments`.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from numbabn import data
    >>> from numbabn.pipeline import stream
    >>> spectra = data.path("spectra.npy")
    >>> with tempfile.TemporaryDirectory() as d:
    ...     stream.normalize(spectra, f"{d}/y.npy", stream.learn(spectra))
    ...     y = np.load(f"{d}/y.npy")
    >>> y.shape, y.dtype, bool(abs(y.mean(0, dtype=float)).max() < 1e-6)
    ((250, 1047), dtype('float32'), True)
    """
    _transform(functional.normalize, path, out, bn, dtype, chunk, progress)


def denormalize(
    path: PathLike,
    out: PathLike,
    bn: BatchNorm,
    *,
    dtype: Any = None,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> None:
    """The inverse of `normalize`, with the same parameters."""
    _transform(functional.denormalize, path, out, bn, dtype, chunk, progress)


def _transform(
    verb: Callable[..., Any],
    path: PathLike,
    out: PathLike,
    bn: BatchNorm,
    dtype: Any,
    chunk: int,
    progress: Progress | None,
) -> None:
    source = describe(path)
    axes = _axes(source, bn.axis)
    check_channels(source, axes, bn)
    inside = source.memory_axes(axes)
    to = output_dtype(source.dtype) if dtype is None else np.dtype(checks.choice(str(dtype), "dtype", DTYPES))
    parameters = {"mean": bn.running_mean, "var": bn.running_var, "gamma": bn.gamma, "beta": bn.beta}
    if source.fortran:
        parameters = {name: p if p is None else p.T for name, p in parameters.items()}
    elements = max(1, chunk // max(source.dtype.itemsize, to.itemsize))
    with atomic(out) as temporary, temporary.open("xb") as file:
        write_header(file, source.shape, to, source.fortran)
        # Written from one buffer rather than through a map of the output: a full disk is an error
        # then and not a bus error, and no fresh page is faulted in for each 4 KiB.
        buffer = np.empty(min(elements, source.nbytes // source.dtype.itemsize), to)
        for box, x in source.chunks(elements):
            at = _channels(box, inside)
            y = buffer[: x.size].reshape(x.shape)
            part = {name: None if p is None else p[at] for name, p in parameters.items()}
            verb(x, **part, eps=bn.eps, axis=inside, out=y)
            file.write(y.data)
            if progress is not None:
                progress(x.nbytes)


def check_channels(source: NpyFile, axes: tuple[int, ...], bn: BatchNorm) -> None:
    """Refuse a file whose channels are not those of `bn`."""
    shape = tuple(source.shape[a] for a in axes)
    if shape != bn.channels:
        raise ValueError(
            f"the statistics are of {_count(bn.channels)} channels, but {str(source.path)!r} of shape {source.shape} "
            f"has {_count(shape)} along axis {bn.axis}; give statistics of such data, or data of such channels"
        )


def _axes(source: NpyFile, axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """Channel axes of the file's array, ascending; `BatchNorm` keeps its channels in this order, too."""
    return checks.channel_axes(axis, len(source.shape))


def _channels(box: Box, axes: tuple[int, ...]) -> Box:
    return tuple(box[a] for a in axes)


def _count(channels: tuple[int, ...]) -> str:
    return " x ".join(map(str, channels)) if channels else "all values as one"
