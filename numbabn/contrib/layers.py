"""`batch_norm`: the interface of tf.contrib.layers.batch_norm over the engine of numbabn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .. import activations, checks, functional
from ..arrays import NDArray
from ..statistics import Moments
from . import moving, plan
from .adjusting import adjusted, composed
from .draft import Draft
from .plan import Plan
from .scopes import Reuse, VariableScope
from .store import current_scope
from .updates import GraphKeys


def batch_norm(
    inputs: Any,
    decay: float = 0.999,
    center: bool = True,
    scale: bool = False,
    epsilon: float = 0.001,
    activation_fn: Any = None,
    param_initializers: Mapping[str, Any] | None = None,
    param_regularizers: Mapping[str, Callable[[NDArray], Any]] | None = None,
    updates_collections: str | Iterable[str] | None = GraphKeys.UPDATE_OPS,
    is_training: Any = True,
    reuse: bool | Reuse | None = None,
    variables_collections: str | Iterable[str] | Mapping[str, Any] | None = None,
    outputs_collections: str | Iterable[str] | None = None,
    trainable: bool = True,
    batch_weights: Any = None,
    fused: bool | None = None,
    data_format: str = "NHWC",
    zero_debias_moving_mean: bool = False,
    scope: str | VariableScope | None = None,
    renorm: bool = False,
    renorm_clipping: Mapping[str, Any] | None = None,
    renorm_decay: float = 0.99,
    adjustment: Callable[[tuple[int, ...]], tuple[Any, Any]] | None = None,
) -> Any:
    """Batch normalization with the interface of `tf.contrib.layers.batch_norm`, its order and its defaults.

    A call here is what building the operation and running it once was there: so a loop meets the same scope at every
    step, and gives ``reuse=AUTO_REUSE``. The whole table, with what the original does, is in docs/contrib.md.

    Parameters
    ----------
    inputs : array_like, two dimensions or more
        The batch along the first axis; whatever `numbabn.batch_norm` takes.
    decay : float from 0 to 1, default 0.999
        Weight of the old value in the moving statistics.
    center, scale : bool, default True and False
        Whether there is a variable `beta` that is added, and a variable `gamma` that is multiplied by.
    epsilon : float, default 0.001
        Added to the variance; at least 1.001e-5 where the original's fused operation would be taken.
    activation_fn : callable, str or tuple, optional
        Applied to the output. A name, such as "relu", is an activation of `numbabn.normalize`, in the same pass.
    param_initializers : dict, optional
        Under beta, gamma, moving_mean, moving_variance: a number, an array, or a callable that is given the shape.
    param_regularizers : dict, optional
        Under beta, gamma: a callable that gives the loss of the variable, listed in "regularization_losses".
    updates_collections : str, iterable of str, or None, default "update_ops"
        A name: the update of the moving statistics is registered there, and you run it, by ``store.run_updates()``.
        None: it is done before the output is returned.
    is_training : bool or 0-d boolean array, default True
        Decided at each call. True: normalize by the batch. False: by the moving statistics; no variable changes, and
        no update is registered.
    reuse : bool, AUTO_REUSE or None, default None
        True: the variables must exist; AUTO_REUSE: they are made where they do not; else they must not exist, if the
        surrounding `variable_scope` does not say otherwise.
    variables_collections, outputs_collections : str, iterable of str, optional
        Where the variables and the output are listed; for the variables also a dict with a list for each name.
    trainable : bool, default True
        Whether beta and gamma, when they are made, are listed in "trainable_variables". Nothing else hangs on it.
    batch_weights : array_like, shape (batch,), optional
        How often each sample counts, in training.
    fused : bool, optional
        Which variance is stored: unbiased, as by the original's fused operation, or biased. None: what the original
        would do. True: refused where it could not.
    data_format : {"NHWC", "NCHW"}, default "NHWC"
        Channels along the last axis, or along the second, for any number of dimensions.
    zero_debias_moving_mean : bool, default False
        Keep the moving mean free of the bias towards 0, by two more variables.
    scope : str or VariableScope, optional
        Where the variables live, under the surrounding scope; by default BatchNorm, BatchNorm_1, ..., new at each call.
    renorm : bool, default False
        Batch renormalization, by TensorFlow 1's rule; four more variables.
    renorm_clipping : dict, optional
        Under rmin, rmax, dmax: a number, or a callable without arguments that gives one for each training call.
    renorm_decay : float from 0 to 1, default 0.99
        Weight of the old value in the averages that the renormalization is by.
    adjustment : callable, optional
        Given the shape of `inputs`, gives a scale and a bias for the normalized values, before gamma and beta, in
        training.

    Returns
    -------
    array
        As from `numbabn.normalize`: the kind and the floating dtype of `inputs`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; nothing is made, changed or registered then.

    Notes
    -----
    Variables are float64, whatever the inputs. An empty batch updates nothing. A channel whose batch holds NaN or
    infinity keeps its moving statistics, and a RuntimeWarning names it.

    Examples
    --------
    >>> import numpy as np
    >>> from numbabn import contrib
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> with contrib.VariableStore() as store:
    ...     for step in range(3):
    ...         y = contrib.batch_norm(x, 0.5, updates_collections=None, scope="bn", reuse=contrib.AUTO_REUSE)
    ...     z = contrib.batch_norm(x, is_training=False, scope="bn", reuse=True)
    >>> store["bn/moving_mean"]
    array([ 1.75, 17.5 ])
    >>> y.round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    training = checks.flag(is_training, "is_training")
    if not hasattr(inputs, "shape") or isinstance(inputs, np.ndarray):
        inputs, _ = checks.data(inputs, "inputs")
    shape = tuple(inputs.shape)
    axis = plan.channel_axis(data_format, shape)
    asked = Plan(
        decay=checks.fraction(decay, "decay"),
        center=checks.flag(center, "center"),
        scale=checks.flag(scale, "scale"),
        zero_debias=checks.flag(zero_debias_moving_mean, "zero_debias_moving_mean"),
        renorm_decay=checks.fraction(renorm_decay, "renorm_decay") if checks.flag(renorm, "renorm") else None,
        clips=plan.known(renorm_clipping, "renorm_clipping", plan.CLIPS),
        adjustment=adjustment,
        weights=plan.sample_weights(batch_weights, shape),
        updates=None if updates_collections is None else plan.collections(updates_collections, "updates_collections"),
    )
    asked.fused = plan.is_fused(fused, len(shape), asked)
    asked.epsilon = max(plan.not_negative(epsilon), plan.FUSED_EPSILON if asked.fused else 0.0)
    variables = plan.specs(
        asked,
        shape[axis],
        checks.flag(trainable, "trainable"),
        training,
        plan.known(param_initializers, "param_initializers", plan.DEFAULTS),
        plan.known(param_regularizers, "param_regularizers", ("beta", "gamma")),
        variables_collections,
    )
    outputs = () if outputs_collections is None else plan.collections(outputs_collections, "outputs_collections")
    activation = None if callable(activation_fn) else activation_fn
    activations.checked(activation)

    here = current_scope()
    draft = Draft(here.child(scope, reuse, "BatchNorm"), "BatchNorm" if scope is None else None, variables)
    draft.read(here.store._read(draft.scope.name, draft.specs))

    if training:
        y, m = _trained(inputs, axis, asked, draft.values, activation)
        update = _update(asked, m)
    else:
        y = _inferred(inputs, axis, asked, draft.values, activation)
        update = None
        _remind(here.store._forgotten(draft.scope.name), draft.scope.name)
    if callable(activation_fn):
        y = activation_fn(y)
    here.store._commit(draft, update, asked.updates, y, outputs)
    return y


def _inferred(x: Any, axis: int, asked: Plan, v: Mapping[str, NDArray], activation: Any) -> Any:
    """x normalized by the moving statistics."""
    return functional.normalize(
        x,
        v[moving.MEAN],
        v[moving.VARIANCE],
        v.get("gamma"),
        v.get("beta"),
        eps=asked.epsilon,
        axis=axis,
        activation=activation,
    )


def _remind(forgotten: int, scope: str) -> None:
    if forgotten:
        warnings.warn(
            f"inference by the moving statistics of {scope!r}, which are still those it began with: {forgotten} "
            f"update{'s' * (forgotten != 1)} of them were registered and never run. Call `store.run_updates()` after "
            "each training step, or give updates_collections=None",
            RuntimeWarning,
            stacklevel=3,
        )


def _trained(x: Any, axis: int, asked: Plan, v: Mapping[str, NDArray], activation: Any) -> tuple[Any, Moments]:
    """x normalized by its own statistics, and these."""
    gamma, beta = v.get("gamma"), v.get("beta")
    factor = offset = m = None
    if asked.renorm_decay is not None:
        m = functional.moments(x, axis=axis, weights=asked.weights)
        std = np.sqrt(_variance(m) + asked.epsilon)
        factor, offset = moving.correction(v, m.mean, std, *plan.clipping(asked.clips))
    apart = None
    if asked.adjustment is not None:
        s, b = asked.adjustment(tuple(x.shape))
        folded = adjusted(s, b, tuple(x.shape), axis)
        if folded is None:
            apart = s, b
        else:
            factor, offset = composed(factor, offset, *folded)
    if apart is None:
        factor, offset = composed(factor, offset, gamma, beta)
    options: dict[str, Any] = {"eps": asked.epsilon, "axis": axis, "activation": None if apart else activation}
    if m is None:
        y, m = functional.batch_norm(x, factor, offset, weights=asked.weights, **options)
    else:
        y = functional.normalize(x, m.mean, _variance(m), factor, offset, **options)
    if apart is not None:
        y = functional.normalize(
            y * apart[0] + apart[1], 0.0, 1.0, gamma, beta, eps=0, axis=axis, activation=activation, out=y
        )
    return y, m


def _update(asked: Plan, m: Moments) -> tuple[moving.Rule, NDArray, NDArray] | None:
    """What the moving statistics learn from a batch; None from an empty one."""
    if not np.any(m.count):
        return None
    # The fused operation stores the unbiased variance, the others store the one that they normalize by.
    var = np.asarray(m.m2 / max(float(m.count) - 1, 1.0)) if asked.fused else _variance(m)
    bad = ~(np.isfinite(m.mean) & np.isfinite(var))
    if bad.any():
        warnings.warn(
            f"the batch has NaN or infinity {checks.in_channels(bad)}; their moving statistics are left alone",
            RuntimeWarning,
            stacklevel=3,
        )
    return asked.rule, m.mean, var


def _variance(m: Moments) -> NDArray:
    count = np.broadcast_to(m.count, m.m2.shape)
    return np.asarray(np.divide(m.m2, count, out=np.zeros(m.m2.shape), where=count > 0))
