"""The way back through batch normalization: gradients of x, gamma and beta."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import activations, backends, checks, lanes, verbs
from .arithmetic import batch_var, inverse_std
from .arrays import NDArray, empty_like
from .devices import same_place
from .layout import canonical
from .picks import Pick, picked
from .statistics import Moments


def batch_norm_backward(
    dy: Any,
    x: Any,
    m: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    eps: float = 1e-5,
    axis: int | tuple[int, ...] = -1,
    training: Any = True,
    where: Any = None,
    weights: Any = None,
    nan_policy: str = "propagate",
    renorm: tuple[Any, Any] | None = None,
    activation: Any = None,
    residual: Any = None,
    out: Any = None,
    backend: str | None = None,
) -> tuple[Any, ...]:
    """Gradients of batch normalization, given the gradient of its output (Ioffe and Szegedy 2015, section 3).

    Parameters
    ----------
    dy : array_like, shape of x
        Gradient of a loss with respect to the output.
    x : array_like, any shape of one dimension or more
        The input of the forward pass.
    m : Moments, or (mean, var)
        What x was normalized by: the moments that `batch_norm` returned, or, for frozen statistics, the stored ones.
    gamma, beta : array_like, shape of the channel axes, or scalar, optional
        Those of the forward pass; beta matters with an activation only.
    eps, axis, where, weights, nan_policy, activation
        Those of the forward pass; see `batch_norm`.
    training : bool or 0-d boolean array, default True
        True: the statistics depend on x, and the gradient passes through them. False: they are frozen.
    renorm : (r, d), each array_like, shape of the channel axes, or scalar, optional
        The correction ``y = (x_hat * r + d) * gamma + beta`` of batch renormalization, through which no gradient
        passes (Ioffe 2017, algorithm 1).
    residual : array_like, shape of x, optional
        That of the forward pass.
    out : array, shape of x, optional
        Where to write dx: apart from the others in memory, or `dy` or `x` itself.
    backend : {"auto", "cpu", "cuda"}, optional
        Where to compute, instead of the choice in force.

    Returns
    -------
    dx : array
        `out`, or a new array of the kind and the floating dtype of x.
    dgamma, dbeta : array, float64, shape of the channel axes
        Gradients of gamma and beta, whether these were given or not.
    dresidual : array
        Only with `residual`: its gradient, of the kind and dtype of dx.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        If an argument does not fit; nothing is written then.

    Notes
    -----
    With ``g`` the gradient behind the activation, ``s = sqrt(var + eps)``, ``x_hat = (x - mean) / s`` and
    ``p = weight / sum(weights)``: ``dx = gamma * r / s * (g - p * (sum(g) + x_hat * sum(g * x_hat)))``,
    ``dgamma = sum(g * (x_hat * r + d))``, ``dbeta = sum(g)``; frozen: ``dx = gamma * r / s * g``. The sums are taken
    over every value that was normalized, in float64. A NaN or infinity in x that does not count adds nothing to
    them, and its dx is 0.

    Examples
    --------
    >>> import numpy as np, numbabn
    >>> x = np.array([[1.0], [2.0], [6.0]])
    >>> y, m = numbabn.batch_norm(x, eps=0)
    >>> dx, dgamma, dbeta = numbabn.batch_norm_backward([[1.0], [0.0], [0.0]], x, m, eps=0)
    >>> float(np.round(abs(dx.sum()), 12)), dgamma == y[0], dbeta
    (0.0, array([ True]), array([1.]))
    """
    plain = where is weights is activation is residual is None and training is True and nan_policy == "propagate"
    if plain and _changes_nothing(renorm) and type(eps) is float and 0.0 <= eps < math.inf:
        quick = lanes.propagated(dy, x, m, out, axis, backend, gamma, beta, eps)
        if quick is not None:
            return quick
    training = checks.flag(training, "training")
    array, back = checks.data(x)
    engine = backends.select(backend, array)
    axes = checks.channel_axes(axis, array.ndim)
    shape = tuple(array.shape[a] for a in axes)
    gradient = gradient_of(dy, array)
    eps = checks.epsilon(eps)
    pick = picked(array, axes, where, weights, nan_policy)
    count, mean, var = _statistics(m, array, axes, pick, training)
    weight = np.ones(shape) if gamma is None else checks.parameter(gamma, "gamma", shape, axes)
    offset = None if beta is None else checks.parameter(beta, "beta", shape, axes)
    r, d = _correction(renorm, shape, axes)
    act, other = activations.checked(activation), verbs.residual_of(residual, array)
    dx, result = verbs.destination(out, array, back, others={"dy": gradient, "residual": other, **pick.views})
    gradients = propagate(
        engine, gradient, array, dx, axes, count, mean, var, weight, offset, eps, training, pick, r, d, act, other
    )
    if other is None:
        return result(), gradients[0], gradients[1]
    return result(), gradients[0], gradients[1], back(gradients[2])


def propagate(
    engine: backends.Backend,
    dy: NDArray,
    x: NDArray,
    dx: NDArray,
    axes: tuple[int, ...],
    count: Any,
    mean: NDArray,
    var: NDArray,
    gamma: NDArray,
    beta: NDArray | None,
    eps: float,
    training: bool,
    pick: Pick,
    r: NDArray | float,
    d: NDArray | float,
    activation: Any,
    residual: NDArray | None,
) -> tuple[NDArray, NDArray, NDArray]:
    """Write dx; returns dgamma, dbeta and the gradient of the residual (dy itself where no activation changes it)."""
    zeros = np.zeros(mean.shape)
    if x.size == 0:
        return zeros, zeros.copy(), dy
    inverse = inverse_std(var, 1.0, eps)
    scale = inverse * gamma * r
    shift = None if beta is None and not np.any(d) else d * gamma + (0.0 if beta is None else beta)
    arrays = {"x": x, "dy": dy}
    if residual is not None and activation is not None:
        arrays["residual"] = residual
    layout = canonical(arrays, axes, pick.views)
    act = None
    if activation is not None:
        act = (
            activations.kernel_form(activation),
            layout.to_channels(scale),
            None if shift is None else layout.to_channels(shift),
        )
    means = layout.to_channels(mean)
    sums = engine.grad_sums(layout, means, pick.omit, act)
    sum_g, sum_gd = (layout.from_channels(s) for s in sums)
    dresidual = dy
    if "residual" in arrays:
        dresidual = arrays["dz"] = empty_like(dx, dx.dtype)
    elif residual is not None:
        dresidual = verbs.converted(engine, dy, dx.dtype)
    if not checks.same_memory(dx, dy):
        arrays["dx"] = dx
    b = k = None
    if training:
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(np.equal(count, 0), 0.0, scale / count)
        b, k = (layout.to_channels(p) for p in (share * sum_g, share * sum_gd * inverse * inverse))
    layout = canonical(arrays, axes, pick.views)
    engine.grad_inputs(layout, means, layout.to_channels(scale), b, k, pick.omit, act)
    with np.errstate(invalid="ignore", over="ignore"):
        return sum_gd * inverse * r + d * sum_g, sum_g, dresidual


def grouped_backward(
    dy: Any,
    x: Any,
    statistics: Sequence[tuple[Any, Moments]],
    gamma: Any,
    beta: Any,
    *,
    eps: float,
    axis: int | tuple[int, ...],
    where: Any,
    weights: Any,
    nan_policy: str,
    activation: Any,
    residual: Any,
    out: Any,
    backend: str | None,
) -> tuple[Any, ...]:
    """`batch_norm_backward` of groups normalized apart; statistics: pairs of `ghost.Groups` and their moments."""
    array, back = checks.data(x)
    engine = backends.select(backend, array)
    axes = checks.channel_axes(axis, array.ndim)
    shape = tuple(array.shape[a] for a in axes)
    gradient, other = gradient_of(dy, array), verbs.residual_of(residual, array)
    pick = picked(array, axes, where, weights, nan_policy)
    dx, result = verbs.destination(out, array, back, others={"dy": gradient, "residual": other, **pick.views})
    dgamma, dbeta = np.zeros((2, *shape))
    dresidual = empty_like(dx, dx.dtype) if other is not None else None
    for groups, m in statistics:
        weight = np.ones(shape) if gamma is None else gamma
        sums = propagate(
            engine,
            groups.of(gradient),
            groups.of(array),
            groups.of(dx),
            groups.axes(axes),
            *_statistics(m, groups.of(array), groups.axes(axes), pick, True),
            groups.parameter(weight, axes),
            None if beta is None else groups.parameter(beta, axes),
            eps,
            True,
            groups.pick(pick),
            1.0,
            0.0,
            activation,
            None if other is None else groups.of(other),
        )
        dgamma += groups.each(sums[0], axes).sum(axis=0)
        dbeta += groups.each(sums[1], axes).sum(axis=0)
        if dresidual is not None:
            verbs.put(engine, groups.of(dresidual), sums[2])
    if dresidual is None:
        return result(), dgamma, dbeta
    return result(), dgamma, dbeta, back(dresidual)


def gradient_of(dy: Any, x: NDArray) -> NDArray:
    """A checked gradient of the shape of x, and where x lies."""
    gradient, _ = checks.data(dy, "dy")
    same_place(x, gradient, "x", "dy")
    if gradient.shape != x.shape:
        raise ValueError(f"`dy` has shape {gradient.shape} but `x` has shape {x.shape}; give a gradient for each value")
    return gradient


def _statistics(m: Any, x: NDArray, axes: tuple[int, ...], pick: Pick, training: bool) -> tuple[Any, NDArray, NDArray]:
    """(count, mean, biased variance) of what x was normalized by."""
    shape = tuple(x.shape[a] for a in axes)
    if isinstance(m, Moments):
        if m.mean.shape != shape:
            raise ValueError(
                f"`m` has channels of shape {m.mean.shape} but those of `x` along axes {axes} have shape {shape}; give "
                "the moments that x was normalized by"
            )
        return m.count, m.mean, batch_var(m.count, m.m2)
    if not isinstance(m, (tuple, list)) or len(m) != 2:
        raise TypeError(f"`m` is {type(m).__name__}; expected Moments, or a pair (mean, var)")
    if training and pick:
        raise TypeError(
            "`m` is a pair (mean, var), which does not tell how many values counted; give the Moments that "
            "`batch_norm` returned"
        )
    mean, var = checks.parameter(m[0], "mean", shape, axes), checks.variance(m[1], "var", shape, axes)
    return x.size / max(1, mean.size), mean, var


def _changes_nothing(renorm: Any) -> bool:
    """Whether it is None, or that of a BatchNorm without batch renormalization."""
    return renorm is None or (type(renorm) is tuple and [*map(type, renorm)] == [float] * 2 and renorm == (1.0, 0.0))


def _correction(renorm: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[Any, Any]:
    if renorm is None:
        return 1.0, 0.0
    if not isinstance(renorm, (tuple, list)) or len(renorm) != 2:
        raise TypeError(f"`renorm` is {renorm!r}; expected a pair (r, d)")
    return checks.parameter(renorm[0], "r", shape, axes), checks.parameter(renorm[1], "d", shape, axes)
