"""The pure functions: moments, normalize, denormalize, batch_norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import arithmetic, backends, checks
from .arrays import NDArray, output_dtype
from .layout import Layout, canonical
from .statistics import Moments


def moments(x: Any, *, axis: int | tuple[int, ...] = -1, backend: str | None = None) -> Moments:
    """Count, mean and M2 of each channel, in one pass over memory.

    Parameters
    ----------
    x : array_like, any shape of one dimension or more
        float16, bfloat16, float32, float64, integers or booleans; any strides. Never copied whole.
    axis : int or tuple of int, default -1
        The channel axes: these are kept, all others are reduced.
    backend : {"auto", "cpu", "cuda"}, optional
        Where to compute, instead of the choice in force (see `set_backend`).

    Returns
    -------
    Moments
        float64 whatever the dtype of x, in the shape of the channel axes. An array without values
        gives count 0, mean 0 and m2 0.

    Raises
    ------
    TypeError
        If x does not hold real numbers.
    numpy.exceptions.AxisError, ValueError
        If `axis` is not an axis of x, or names one twice.

    Notes
    -----
    Shifted sums within a tile, Chan's merge between tiles [1]_: no cancellation, and the same bits
    for any number of threads. NaN or infinity in a channel shows in its mean and m2.

    References
    ----------
    .. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for
       computing sample variances", Stanford STAN-CS-79-773, 1979.

    Examples
    --------
    >>> import numpy as np, numbabn
    >>> m = numbabn.moments(np.array([[1, 2], [3, 6]], dtype=np.uint8))
    >>> m.mean, m.std()
    (array([2., 4.]), array([1., 2.]))
    """
    engine = backends.select(backend)
    array, _ = checks.data(x)
    axes = checks.channel_axes(axis, array.ndim)
    return measured(engine, array, axes)


def normalize(
    x: Any,
    mean: Any,
    var: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    eps: float = 1e-5,
    axis: int | tuple[int, ...] = -1,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """``(x - mean) / sqrt(var + eps) * gamma + beta``, channel by channel.

    Parameters
    ----------
    x : array_like, any shape of one dimension or more
        As for `moments`.
    mean, var : array_like, shape of the channel axes, or scalar
        Statistics of each channel; taken as float64.
    gamma, beta : array_like, shape of the channel axes, or scalar, optional
        Scale and offset of the result; 1 and 0 where not given.
    eps : float, default 1e-5
        Added to the variance. With ``eps=0`` a channel of variance 0 gives beta.
    axis : int or tuple of int, default -1
        The channel axes.
    out : array, shape of x, optional
        Where to write: a floating array apart from x in memory, or x itself for in place.
    backend : {"auto", "cpu", "cuda"}, optional
        Where to compute, instead of the choice in force.

    Returns
    -------
    array
        `out`, or a new array of the same kind as x: its floating dtype, float32 for integers of up
        to 16 bits and booleans, float64 for wider integers. Computed in float64 and rounded once.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        If an argument does not fit; nothing is written then.

    Examples
    --------
    >>> import numpy as np, numbabn
    >>> numbabn.normalize(np.array([[1.0, 10.0], [3.0, 30.0]]), mean=[2, 20], var=[1, 100], eps=0)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    engine = backends.select(backend)
    array, back = checks.data(x)
    axes = checks.channel_axes(axis, array.ndim)
    shape = tuple(array.shape[a] for a in axes)
    eps = checks.epsilon(eps)
    means = checks.parameter(mean, "mean", shape, axes)
    variances = checks.variance(var, "var", shape, axes)
    scale = arithmetic.inverse_std(
        variances, 1.0 if gamma is None else checks.parameter(gamma, "gamma", shape, axes), eps
    )
    shift = None if beta is None else checks.parameter(beta, "beta", shape, axes)
    y, result = destination(out, array, back)
    apply(engine, array, y, axes, means, scale, shift)
    return result()


def denormalize(
    y: Any,
    mean: Any,
    var: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    eps: float = 1e-5,
    axis: int | tuple[int, ...] = -1,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """The inverse of `normalize`: ``(y - beta) / gamma * sqrt(var + eps) + mean``.

    Parameters
    ----------
    y : array_like, any shape of one dimension or more
        What `normalize` gave.
    mean, var, gamma, beta, eps, axis, out, backend
        As for `normalize`.

    Returns
    -------
    array
        As for `normalize`.

    Raises
    ------
    ValueError
        If gamma is 0 in a channel, which forgets the data; and as for `normalize`.

    Examples
    --------
    >>> import numpy as np, numbabn
    >>> numbabn.denormalize(np.array([[-1.0, -1.0], [1.0, 1.0]]), mean=[2, 20], var=[1, 100], eps=0)
    array([[ 1., 10.],
           [ 3., 30.]])
    """
    engine = backends.select(backend)
    array, back = checks.data(y, "y")
    axes = checks.channel_axes(axis, array.ndim)
    shape = tuple(array.shape[a] for a in axes)
    eps = checks.epsilon(eps)
    means = checks.parameter(mean, "mean", shape, axes)
    scale = np.sqrt(checks.variance(var, "var", shape, axes) + eps)
    if gamma is not None:
        divisor = checks.parameter(gamma, "gamma", shape, axes)
        if (divisor == 0).any():
            raise ValueError(
                f"`gamma` is 0 {checks.in_channels(divisor == 0)}: normalizing by it forgot the data, "
                "and nothing can bring it back"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            scale = scale / divisor
    shift = np.zeros(shape) if beta is None else checks.parameter(beta, "beta", shape, axes)
    x, result = destination(out, array, back, "y")
    apply(engine, array, x, axes, shift, scale, means)
    return result()


def batch_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    eps: float = 1e-5,
    axis: int | tuple[int, ...] = -1,
    out: Any = None,
    backend: str | None = None,
) -> tuple[Any, Moments]:
    """Normalize x by its own statistics: batch normalization in training mode (Ioffe and Szegedy 2015).

    Parameters
    ----------
    x, gamma, beta, eps, axis, out, backend
        As for `normalize`.

    Returns
    -------
    y : array
        ``(x - mean) / sqrt(var + eps) * gamma + beta`` with the biased variance ``m2 / count``, as
        every framework normalizes; `out` or a new array, as for `normalize`.
    m : Moments
        The statistics of x, equal to ``moments(x, axis=axis)`` to the last bit.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        If an argument does not fit; nothing is written then.

    Notes
    -----
    A channel that is constant, or has one value, gives beta. NaN or infinity in a channel makes
    that channel's output what IEEE arithmetic makes of it, and touches no other channel.

    Examples
    --------
    >>> import numpy as np, numbabn
    >>> y, m = numbabn.batch_norm(np.array([[1.0, 5.0], [3.0, 5.0]]), eps=0)
    >>> y
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    engine = backends.select(backend)
    array, back = checks.data(x)
    axes = checks.channel_axes(axis, array.ndim)
    shape = tuple(array.shape[a] for a in axes)
    eps = checks.epsilon(eps)
    scale = np.ones(shape) if gamma is None else checks.parameter(gamma, "gamma", shape, axes)
    shift = None if beta is None else checks.parameter(beta, "beta", shape, axes)
    y, result = destination(out, array, back)
    m = trained(engine, array, y, axes, scale, shift, eps)
    return result(), m


def measured(engine: backends.Backend, x: NDArray, axes: tuple[int, ...]) -> Moments:
    """The moments of a checked array."""
    shape = tuple(x.shape[a] for a in axes)
    if x.size == 0:
        return Moments(0.0, np.zeros(shape), np.zeros(shape))
    layout = canonical((x,), axes)
    return _moments(layout, engine.moments(layout))


def trained(
    engine: backends.Backend,
    x: NDArray,
    y: NDArray,
    axes: tuple[int, ...],
    gamma: NDArray,
    beta: NDArray | None,
    eps: float,
) -> Moments:
    """Write x normalized by its own moments into y; returns the moments."""
    if x.size == 0:
        return measured(engine, x, axes)
    layout = _pair(x, y, axes)
    return _moments(layout, engine.train(layout, layout.to_channels(gamma), _optional(layout, beta), eps))


def apply(
    engine: backends.Backend,
    x: NDArray,
    y: NDArray,
    axes: tuple[int, ...],
    mean: NDArray,
    scale: NDArray,
    shift: NDArray | None,
) -> None:
    """Write ``(x - mean) * scale + shift`` into y; the parameters in the channels' shape, shift None for 0."""
    if x.size == 0:
        return
    layout = _pair(x, y, axes)
    engine.transform(layout, layout.to_channels(mean), layout.to_channels(scale), _optional(layout, shift))


def destination(out: Any, x: NDArray, back: Any, x_name: str = "x") -> tuple[NDArray, Any]:
    """Where the result goes, and a function that gives it to the caller."""
    if out is None:
        y = np.empty_like(x, dtype=output_dtype(x.dtype), order="K", subok=False)
        return y, lambda: back(y)
    y, given = checks.output(out, x, x_name)
    return y, lambda: given


def _optional(layout: Layout, parameter: NDArray | None) -> NDArray | None:
    return None if parameter is None else layout.to_channels(parameter)


def _pair(x: NDArray, y: NDArray, axes: tuple[int, ...]) -> Layout:
    return canonical((x,) if checks.same_memory(x, y) else (x, y), axes)


def _moments(layout: Layout, result: tuple[float, NDArray, NDArray]) -> Moments:
    count, mean, m2 = result
    return Moments(count, layout.from_channels(mean), layout.from_channels(m2))
