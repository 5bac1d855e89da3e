"""The pure functions: moments, normalize, denormalize, batch_norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import activations, arithmetic, backends, checks, lanes, verbs
from .backends import cpu
from .picks import picked, refuse_nan
from .statistics import Moments


def moments(
    x: Any,
    *,
    axis: int | tuple[int, ...] = -1,
    where: Any = None,
    weights: Any = None,
    nan_policy: str = "propagate",
    extra: Any = (),
    backend: str | None = None,
) -> Moments:
    """Count, mean and M2 of each channel, in one pass over memory.

    Parameters
    ----------
    x : array_like, any shape of one dimension or more
        float16, bfloat16, float32, float64, integers or booleans; any strides. Never copied whole.
    axis : int or tuple of int, default -1
        The channel axes: these are kept, all others are reduced.
    where : array_like of bool, optional
        Which values count. Of the shape of x or with axes of length 1, as NumPy broadcasts; or of the shape of x
        without its channel axes, one for each position; or one-dimensional with one for each sample (the first
        axis that is reduced); or else what NumPy broadcasts to x. What does not count is not looked at.
    weights : array_like, optional
        How often each value counts: finite, 0 or more, in one of the shapes of `where`. The count of a
        channel is the sum of its weights, as if values were repeated.
    nan_policy : {"propagate", "raise", "omit"}, default "propagate"
        A NaN that counts makes its channel's mean and m2 NaN; or is a ValueError that names the channels; or is
        left out, as if `where` were False there.
    extra : names, optional
        More to gather in the same pass: "skewness", "kurtosis" (the moments m3 and m4), "min", "max", "nonfinite"
        (how many values are NaN or infinite), or "all".
    backend : {"auto", "cpu", "cuda"}, optional
        Where to compute, instead of the choice in force (see `set_backend`).

    Returns
    -------
    Moments
        float64 whatever the dtype of x, in the shape of the channel axes. A channel without values
        has count 0, mean 0 and m2 0. `count` is one number, or with `where`, `weights` or "omit" an array.

    Raises
    ------
    TypeError
        If x does not hold real numbers, `where` no booleans, or `weights` no real numbers.
    numpy.exceptions.AxisError, ValueError
        If `axis` is not an axis of x, or names one twice; if `where` or `weights` do not fit x; and by
        ``nan_policy="raise"``.

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
    >>> numbabn.moments(np.array([[1.0, np.nan], [3.0, 6.0]]), nan_policy="omit").count
    array([2., 1.])
    """
    plain = where is weights is None and nan_policy == "propagate" and type(extra) is tuple and not extra
    if plain and (quick := lanes.moments(x, axis, backend)) is not None:
        return quick
    array, _ = checks.data(x)
    engine = backends.select(backend, array)
    axes = checks.channel_axes(axis, array.ndim)
    groups = verbs.extras(extra)
    pick = picked(array, axes, where, weights, nan_policy, later=engine is cpu)
    m = verbs.measured(engine, array, axes, pick, **groups)
    refuse_nan(array, axes, m.mean, pick)
    return m


def normalize(
    x: Any,
    mean: Any,
    var: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    eps: float = 1e-5,
    axis: int | tuple[int, ...] = -1,
    activation: Any = None,
    residual: Any = None,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """``activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)``, channel by channel, in one pass.

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
    activation : str, or tuple of str and numbers, optional
        "relu", "relu6", "leaky_relu" (or ``("leaky_relu", slope)``), ``("clip", low, high)``, "elu" (or
        ``("elu", alpha)``), "gelu", "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "softplus", as
        PyTorch defines them.
    residual : array_like, shape of x, optional
        Added before the activation.
    out : array, shape of x, optional
        Where to write: a floating array apart from x in memory, or x itself for in place, or `residual` itself.
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
    if activation is residual is None and type(eps) is float and 0.0 <= eps < math.inf:
        quick = lanes.normalized(x, out, axis, backend, mean, var, gamma, beta, eps)
        if quick is not None:
            return quick
    array, back = checks.data(x)
    engine = backends.select(backend, array)
    axes = checks.channel_axes(axis, array.ndim)
    shape = tuple(array.shape[a] for a in axes)
    eps = checks.epsilon(eps)
    means = checks.parameter(mean, "mean", shape, axes)
    variances = checks.variance(var, "var", shape, axes)
    weight = 1.0 if gamma is None else checks.parameter(gamma, "gamma", shape, axes)
    scale = arithmetic.inverse_std(variances, weight, eps)
    shift = None if beta is None else checks.parameter(beta, "beta", shape, axes)
    act, other = activations.checked(activation), verbs.residual_of(residual, array)
    y, result = verbs.destination(out, array, back, others={"residual": other})
    verbs.apply(engine, array, y, axes, means, scale, shift, act, other)
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
    array, back = checks.data(y, "y")
    engine = backends.select(backend, array, "y")
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
    x, result = verbs.destination(out, array, back, "y")
    verbs.apply(engine, array, x, axes, shift, scale, means)
    return result()


def batch_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    eps: float = 1e-5,
    axis: int | tuple[int, ...] = -1,
    where: Any = None,
    weights: Any = None,
    nan_policy: str = "propagate",
    activation: Any = None,
    residual: Any = None,
    out: Any = None,
    backend: str | None = None,
) -> tuple[Any, Moments]:
    """Normalize x by its own statistics: batch normalization in training mode (Ioffe and Szegedy 2015).

    Parameters
    ----------
    x, gamma, beta, eps, axis, activation, residual, out, backend
        As for `normalize`.
    where, weights, nan_policy
        Which values count in the statistics, and how much, as for `moments`. Every value is normalized.

    Returns
    -------
    y : array
        ``activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)`` with the biased variance
        ``m2 / count``, as every framework normalizes; `out` or a new array, as for `normalize`.
    m : Moments
        The statistics of x, equal to those that `moments` gives to the last bit.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        If an argument does not fit; nothing is written then.

    Notes
    -----
    A channel that is constant, or of which one value or none counts, gives beta. NaN or infinity in a channel makes
    that channel's output what IEEE arithmetic makes of it, and touches no other channel.

    Examples
    --------
    >>> import numpy as np, numbabn
    >>> y, m = numbabn.batch_norm(np.array([[1.0, 5.0], [3.0, 5.0]]), eps=0)
    >>> y
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    plain = where is weights is activation is residual is None and nan_policy == "propagate"
    if plain and type(eps) is float and 0.0 <= eps < math.inf:
        quick = lanes.trained(x, out, axis, backend, gamma, beta, eps)
        if quick is not None:
            return quick
    array, back = checks.data(x)
    engine = backends.select(backend, array)
    axes = checks.channel_axes(axis, array.ndim)
    shape = tuple(array.shape[a] for a in axes)
    eps = checks.epsilon(eps)
    scale = np.ones(shape) if gamma is None else checks.parameter(gamma, "gamma", shape, axes)
    shift = None if beta is None else checks.parameter(beta, "beta", shape, axes)
    act, other = activations.checked(activation), verbs.residual_of(residual, array)
    pick = picked(array, axes, where, weights, nan_policy)
    y, result = verbs.destination(out, array, back, others={"residual": other, **pick.views})
    if pick.refuse and out is not None:
        # A second read, so that `out` is written only once x is known to be sound.
        refuse_nan(array, axes, verbs.measured(engine, array, axes, pick).mean, pick)
    m = verbs.trained(engine, array, y, axes, scale, shift, eps, pick, act, other)
    refuse_nan(array, axes, m.mean, pick)
    return result(), m
