"""BatchNorm: running averages and policy around the pure functions; no mathematics of its own."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import averages, backends, checks, flavours, lanes, options, state, statedict, verbs
from . import training as training_
from .arithmetic import batch_var
from .arrays import NDArray
from .averages import Running
from .backends.ready import UNLEARNED
from .backward import batch_norm_backward, grouped_backward
from .convert import Conversions
from .described import Described
from .flavours import UNSET
from .ghost import Groups
from .learning import Learning
from .ondevice import Movable
from .options import Options
from .picks import picked, refuse_nan
from .renorm import Renorm
from .statistics import Moments
from .training import Adjustment, Given


class BatchNorm(Described, Conversions, Movable, Learning):
    """Batch normalization with running averages that inference never changes.

    Parameters
    ----------
    channels : int or tuple of int
        How many channels; for several channel axes, the size of each, in the order of the axes of x.
    axis : int or tuple of int, default -1
        The channel axes of x; all others are reduced.
    flavour : str, optional
        Work as another system does: "tf_contrib", "tf_contrib_fused", "keras", "torch", "flax", "haiku", "onnx",
        "sklearn", "gymnasium" or "sb3". It changes the defaults of the other options to those of its row
        in `numbabn.flavours`; the ones below are numbabn's own. Options that are given stand.
    momentum : float from 0 to 1, sequence of them, callable, or None, default 0.1
        Weight of the new batch in the running averages, in PyTorch's sense. A sequence has one for each
        batch, and its last is for all later ones; a callable is given `num_batches`, before the
        batch, and returns one. None: the cumulative average, in which all values ever seen weigh the same.
    decay : as momentum, optional
        Weight of the old average, in TensorFlow's sense: ``1 - momentum``. Give one of the two.
    average : str, optional
        How batches are averaged: "exponential", "debiased", "mixture" and "debiased-mixture" weigh them
        by `momentum`; "cumulative" weighs all values the same, "equal" all batches, "window" those
        of the last batches. By default "exponential", or "cumulative" with ``momentum=None``. The
        formulas are in `numbabn.averages`.
    window : int, optional
        With "window": how many batches it spans.
    eps : float, default 1e-5
        Added to the variance before its square root is taken.
    ddof : float, default 0
        The running variance averages ``m2 / max(count - ddof, 1)``: 0 stores the biased one as Keras,
        flax and ONNX do, 1 the unbiased one as PyTorch does. Normalization in training is
        always by the biased one.
    gamma, beta : array_like, shape of the channels, or scalar, optional
        Scale and offset of the output; 1 and 0 where not given.
    nonfinite : {"skip", "raise", "propagate"}, default "skip"
        What a training batch with NaN or infinity does. "skip": the averages of the affected channels
        are left alone, a RuntimeWarning names these channels, and their outputs are what IEEE arithmetic
        makes them. "raise": ValueError names them before anything is written. "propagate": the
        averages take it, as in the frameworks.
    single : {"beta", "raise"}, default "beta"
        What a training batch with one value per channel does. "beta": its variance is 0, so it gives
        beta. "raise": ValueError before anything is written, as in PyTorch.
    constant : {"normalize", "center"}, default "normalize"
        What happens to a channel whose variance is within the rounding of computing it. "normalize":
        nothing special, it is divided by ``sqrt(var + eps)``. "center": it is not divided, as in scikit-learn.
    normalize_by : {"batch", "running"}, default "batch"
        What a training call normalizes by: the statistics of the batch, or the running averages
        that have just taken it in, as scikit-learn and the wrappers of reinforcement learning do.
    prior : (count, mean, var), default (0, 0, 1)
        The running averages before the first batch, the same for all channels; a cumulative average
        can count them as so many values, a fraction perhaps.
    nan_policy : {"propagate", "raise", "omit"}, default "propagate"
        What a NaN in a training batch does, as for `numbabn.moments`; `nonfinite` is for what is left then. A channel
        in which nothing counts keeps its state.
    activation : str, or tuple of str and numbers, optional
        Follows the normalization in the same pass, as for `numbabn.normalize`.
    renorm : Renorm, optional
        Batch renormalization: pulls training outputs towards what inference would give.
    ghost : int, or (int, {"consecutive", "interleaved"}), optional
        Normalize groups of so many samples apart, in training. Samples lie along the first axis that is
        reduced; the last groups are smaller where the number does not divide the batch.
    adjustment : callable, optional
        ``adjustment(x.shape)`` gives (scale, bias), one number for each channel or for all: in training the output
        is ``(x_hat * scale + bias) * gamma + beta``. It is code, which no file holds.
    backend : {"auto", "cpu", "cuda"}, optional
        Where to compute, instead of the choice in force at each call.

    Attributes
    ----------
    running_mean, running_var : array, float64, shape of the channels, read-only
        What inference normalizes by; 0 and 1 before the first batch.
    count : array, float64, shape of the channels, read-only
        Values seen of each channel.
    num_batches : int
        Batches learned from.

    Notes
    -----
    An empty batch changes nothing. One value per channel gives beta, and averages a variance of 0.
    Objects may be shared between threads: every update is atomic, and inference uses one consistent pair
    of averages.

    Examples
    --------
    >>> import numpy as np, numbabn
    >>> bn = numbabn.BatchNorm(2, momentum=0.5, eps=0)
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> bn(x, training=True)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> bn.running_mean, bn.running_var
    (array([ 1., 10.]), array([ 1. , 50.5]))
    >>> bn(x)[0]
    array([0., 0.])
    """

    def __init__(
        self,
        channels: int | tuple[int, ...],
        *,
        axis: int | tuple[int, ...] = UNSET,
        flavour: str | None = None,
        momentum: float | Sequence[float] | Callable[[int], float] | None = UNSET,
        decay: float | Sequence[float] | Callable[[int], float] | None = None,
        average: str | None = None,
        window: int | None = None,
        eps: float = UNSET,
        ddof: float = UNSET,
        gamma: Any = UNSET,
        beta: Any = UNSET,
        nonfinite: str = UNSET,
        single: str = UNSET,
        constant: str = UNSET,
        normalize_by: str = UNSET,
        prior: tuple[float, float, float] = UNSET,
        nan_policy: str = UNSET,
        activation: Any = UNSET,
        renorm: Renorm | None = None,
        ghost: int | tuple[int, str] | None = None,
        adjustment: Adjustment | None = None,
        backend: str | None = None,
    ) -> None:
        self._options = Options.checked(
            channels,
            flavour=flavour,
            momentum=momentum,
            decay=decay,
            average=average,
            window=window,
            backend=backend,
            axis=axis,
            eps=eps,
            ddof=ddof,
            nonfinite=nonfinite,
            single=single,
            constant=constant,
            normalize_by=normalize_by,
            prior=prior,
            nan_policy=nan_policy,
            activation=activation,
            renorm=renorm,
            ghost=ghost,
        )
        if adjustment is not None and (not callable(adjustment) or self._options.ghost is not None):
            raise (TypeError if not callable(adjustment) else ValueError)(
                f"`adjustment` is {adjustment!r}; expected a function of the shape of x, and no ghost batches beside it"
            )
        if adjustment is not None:
            self._options.need_the_batch("adjustment", adjustment)
        self._adjustment = adjustment
        self._step: training_.Step | None = None
        self._inference: lanes.Parameters | None = None
        row = flavours.named(flavour)
        self._gamma = self._parameter((1.0 if row.gamma else None) if gamma is UNSET else gamma, "gamma")
        self._beta = self._parameter((0.0 if row.beta else None) if beta is UNSET else beta, "beta")
        self._running = self._options.nothing()
        self._lock = threading.RLock()  # a schedule is the caller's code, and may call back

    # What it is ------------------------------------------------------------------------------------

    @property
    def gamma(self) -> NDArray | None:
        """Scale of the output; None for 1."""
        return self._gamma

    @gamma.setter
    def gamma(self, value: Any) -> None:
        self._gamma = self._parameter(value, "gamma")

    @property
    def beta(self) -> NDArray | None:
        """Offset of the output; None for 0."""
        return self._beta

    @beta.setter
    def beta(self, value: Any) -> None:
        self._beta = self._parameter(value, "beta")

    # What it does ----------------------------------------------------------------------------------

    def __call__(
        self,
        x: Any,
        training: Any = False,
        *,
        where: Any = None,
        weights: Any = None,
        residual: Any = None,
        out: Any = None,
    ) -> Any:
        """Normalize x: by its own statistics in training, by the running averages in inference.

        Parameters
        ----------
        x : array_like
            As for `numbabn.normalize`.
        training : bool or 0-d boolean array, default False
            Decided at each call. True: normalize by the batch, then update the running averages.
            False: never changes a bit of the state.
        where, weights : array_like, optional
            Which values count in the statistics of a training batch, and how much, as for `numbabn.moments`.
        residual : array_like, shape of x, optional
            Added before the activation, in the same pass.
        out : array, shape of x, optional
            As for `numbabn.normalize`.

        Returns
        -------
        array
            As for `numbabn.normalize`.

        Raises
        ------
        TypeError, ValueError, numpy.exceptions.AxisError
            If an argument does not fit; neither the state nor `out` is changed.
        """
        o, running, gamma, beta = self._options, self._running, self._gamma, self._beta
        if where is weights is residual is None and (training is False or training is True):
            y = self._quickly(o, running, gamma, beta, x, out, training)
            if y is not None:
                return y
        training = checks.flag(training, "training")
        array, back = checks.data(x)
        engine = backends.select(o.backend, array)
        axes = self._options.axes_of(array)
        pick = picked(array, axes, where, weights, self.nan_policy)
        other = verbs.residual_of(residual, array)
        given = Given(array, axes, pick, other, gamma, beta)
        y, result = verbs.destination(out, array, back, others={"residual": other, **pick.views})
        if not training:
            by = running.mean, o.scale(running.mean, running.var, running.count, given.gamma), given.beta
            verbs.apply(engine, array, y, axes, *by, o.activation, other)
            return result()
        step = self._trained(engine, given, y, out is not None)
        if step is not None:
            arrays = training_.remembered(x=x, where=where, weights=weights, residual=residual)
            self._step = replace(step, overwritten=checks.same_memory(array, y), arrays=arrays)
        return result()

    def update(self, x: Any, *, where: Any = None, weights: Any = None) -> Moments:
        """Update the running averages by x, without normalizing it.

        Parameters
        ----------
        x, where, weights : array_like
            As for `numbabn.moments`.

        Returns
        -------
        Moments
            The statistics that the running averages took: those of x, or with ghost batches the mean of theirs
            where the average does not keep the variance between batches.
        """
        o, running = self._options, self._running
        found = lanes.lane_of(o, x) if where is weights is None and o.plain and o.learns_in_kernel else None
        if found is not None:
            planned = self._planned()
            box, known = lanes.learning(found, o, running, planned[1])
            function, pack = found.moments
            done = function(pack(id(x), id(box), *known))
            if done:
                batch = Moments.pair(found.count, box)
                if done == UNLEARNED or not self._take(running, box):
                    self._learn(batch, planned)
                return batch
        array, _ = checks.data(x)
        engine = backends.select(o.backend, array)
        axes = o.axes_of(array)
        pick = picked(array, axes, where, weights, self.nan_policy)
        batch = training_.measured(o, engine, Given(array, axes, pick, None, None, None))
        self._learn(batch)
        return batch

    def backward(
        self,
        dy: Any,
        x: Any = None,
        *,
        training: Any = True,
        where: Any = None,
        weights: Any = None,
        residual: Any = None,
        out: Any = None,
    ) -> tuple[Any, ...]:
        """Gradients of x, gamma and beta, given the gradient of the output.

        Parameters
        ----------
        dy : array_like, shape of x
            Gradient of a loss with respect to the output.
        x, where, weights, residual : array_like, optional
            Those of the last training call. They are not kept alive: give again what has been freed or overwritten
            since. With ``training=False`` x is needed.
        training : bool or 0-d boolean array, default True
            True: the way back through the last training call. False: through inference, by the running averages.
        out : array, shape of x, optional
            Where to write dx, as for `numbabn.batch_norm_backward`.

        Returns
        -------
        dx, dgamma, dbeta : array
            As for `numbabn.batch_norm_backward`; and a fourth, the gradient of the residual, where there was one.

        Raises
        ------
        ValueError
            If there was no training call, or what it was given is gone.

        Examples
        --------
        >>> import numpy as np, numbabn
        >>> bn, x = numbabn.BatchNorm(1, gamma=2, eps=0), np.array([[1.0], [2.0], [6.0]])
        >>> y = bn(x, training=True)
        >>> dx, dgamma, dbeta = bn.backward(np.ones((3, 1)))
        >>> bool(abs(dx).max() < 1e-15), dbeta
        (True, array([3.]))
        """
        how: dict[str, Any] = {"eps": self.eps, "axis": self.axis, "activation": self.activation, "out": out}
        how["backend"] = self._options.backend
        if not checks.flag(training, "training"):
            if x is None:
                raise ValueError(
                    "`x` is missing; the way back through inference needs it: backward(dy, x, training=False)"
                )
            if self.constant != "normalize":
                raise ValueError("constant='center' has no gradient here; give the statistics to `batch_norm_backward`")
            running = self._running
            known = (running.mean, running.var)
            return batch_norm_backward(dy, x, known, self._gamma, self._beta, training=False, residual=residual, **how)
        step = self._step
        if step is None:
            raise ValueError(
                "there was no training call that normalized by its batch; call it with training=True first"
            )
        x, where = step.array("x", x), step.array("where", where)
        weights, residual = step.array("weights", weights), step.array("residual", residual)
        groups, m = step.statistics[0]
        if groups is None:
            how |= {"where": where, "weights": weights, "nan_policy": self._picking}
            return batch_norm_backward(
                dy, x, m, step.gamma, step.beta, renorm=(step.r, step.d), residual=residual, **how
            )
        return grouped_backward(
            dy, x, step.statistics, step.gamma, step.beta, where=where, weights=weights, nan_policy=self._picking,
            residual=residual, **how,
        )  # fmt: skip

    def merge(self, other: BatchNorm) -> BatchNorm:
        """Take in what `other` has learned, as if its values had been seen here; returns self.

        Cumulative averages merge exactly, in any order, and so do averages of equal batches. Exponential
        ones are pooled, each weighed by the values it has seen (see `numbabn.averages.pooled`). gamma,
        beta and the options stay those of self.

        Raises
        ------
        ValueError
            If the channels, the kind of average, ddof or the prior differ; or for windows, as nobody can tell
            which batches are the last of both.
        """
        if not isinstance(other, BatchNorm):
            raise TypeError(f"`other` is {type(other).__name__}; expected a BatchNorm")
        for what, mine, its in (
            ("channels", self.channels, other.channels),
            ("average", self.average, other.average),
            ("ddof", self.ddof, other.ddof),
            ("prior", self.prior, other.prior),
        ):
            if mine != its:
                raise ValueError(f"`other` has {what} {its} but this BatchNorm has {mine}; merge two of the same")
        together = averages.RULES[self.average].merge
        if together is None:
            raise ValueError(
                f"averages of kind {self.average!r} cannot be merged, as nobody can tell which batches are the last "
                "of both; merge the moments that `update` returns (a + b), or use average='cumulative'"
            )
        theirs = averages.without_prior(other._running, self.prior)
        with self._lock:
            self._running = together(self._running, theirs, self.ddof)
        return self

    def reset(self) -> None:
        """Forget every batch; gamma, beta and the options stay."""
        with self._lock:
            self._running = self._options.nothing()

    # Where it is kept ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What was learned, as copies.

        Returns
        -------
        dict
            running_mean, running_var, count and num_batches; what else the average needs to go on (m2 of
            a cumulative one, for example); gamma and beta where there are any.
        """
        running = self._running
        d: dict[str, Any] = {"num_batches": running.batches}
        d |= {name: array.copy() for name, array in statedict.arrays(running, self._gamma, self._beta).items()}
        return d

    def load_state_dict(self, d: Mapping[str, Any]) -> None:
        """Take the state that `state_dict` gave; all of it, or on any error nothing.

        Parameters
        ----------
        d : mapping
            The names that `state_dict` gives. Without gamma, or beta, this object has none afterwards.
        """
        running, gamma, beta = statedict.checked(d, self._options)
        with self._lock:
            self._running, self._gamma, self._beta = running, gamma, beta

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to `path`: .npz without pickle, written atomically (see `numbabn.state`).

        A momentum that is a function is code, which no file holds: `load` has to be given it again.

        Examples
        --------
        >>> import numbabn, tempfile, os
        >>> bn = numbabn.BatchNorm(3)
        >>> with tempfile.TemporaryDirectory() as d:
        ...     bn.save(os.path.join(d, "bn.npz"))
        ...     numbabn.BatchNorm.load(os.path.join(d, "bn.npz")) == bn
        True
        """
        state.save(path, "batchnorm", *statedict.saved(self._options, self._running, self._gamma, self._beta))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, momentum: Any = UNSET, decay: Any = None) -> BatchNorm:
        """The BatchNorm that `save` wrote to `path`.

        Parameters
        ----------
        path : str or path-like
            The file.
        momentum, decay : callable or other schedule, optional
            Where momentum or decay was a function: that function, and else neither.

        Raises
        ------
        StateError
            If the file is anything else: truncated, altered, of a later version, not ours; or if it
            needs a momentum and none is given, or the other way round.
        OSError
            If it cannot be opened.
        """
        given = options.weight(momentum, decay)
        config, arrays = state.load(path, "batchnorm")
        try:
            how, learned = statedict.restored(config, arrays, given)
            flavour = how.pop("flavour", None)  # all options are there, so it changes nothing but its own name
            bn = cls(**how)
            flavours.named(flavour)
            bn._options = replace(bn._options, flavour=flavour)
            bn.load_state_dict(learned)
        except (KeyError, TypeError, ValueError) as error:
            raise state.StateError(f"{os.fspath(path)!r} holds a BatchNorm that makes no sense: {error}") from error
        return bn

    def __eq__(self, other: object) -> bool:
        """Whether options, parameters and state are the same to the last bit."""
        if not isinstance(other, BatchNorm):
            return NotImplemented
        mine, its = self.state_dict(), other.state_dict()
        return (
            self._options == other._options
            and mine.keys() == its.keys()
            and all(np.array_equal(mine[k], its[k], equal_nan=True) for k in mine)
        )

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_step", "_inference")}

    def __setstate__(self, d: dict[str, Any]) -> None:
        self.__dict__.update(d)
        self._gamma, self._beta = (
            self._parameter(p, name) for name, p in (("gamma", d["_gamma"]), ("beta", d["_beta"]))
        )
        self._lock, self._step, self._inference = threading.RLock(), None, None

    # How -------------------------------------------------------------------------------------------

    def _parameter(self, value: Any, name: str) -> NDArray | None:
        return None if value is None else self._options.parameter(value, name)

    @property
    def _picking(self) -> str:
        """The policy for NaN on the way back, where there is nothing to refuse any more."""
        return "omit" if self.nan_policy == "omit" else "propagate"

    def _quickly(
        self, o: Options, running: Running, gamma: Any, beta: Any, x: Any, out: Any, training: bool
    ) -> NDArray | None:
        """The output of a plain call that takes the lane, or None where it has to go the general way."""
        found = lanes.lane_of(o, x, out) if o.plain or not training else None
        if found is None:
            return None
        if not training:
            by = self._inference
            if by is None or not by.come_from(o, running, gamma, beta):
                by = self._inference = lanes.Parameters(o, running, gamma, beta)
            return lanes.inferred(found, x, out, by)
        # A schedule is the caller's code, which may do anything to the arrays that were looked at.
        if self._adjustment is not None or callable(o.momentum):
            return None
        y: NDArray = lanes.destination(found, x, out)
        planned = self._planned()  # may refuse, and nothing is written yet
        if o.learns_in_kernel:
            box, known = lanes.learning(found, o, running, planned[1])
        else:
            box, known = np.empty((2, *o.channels)), lanes.NO_LEARNING
        given = 0 if gamma is None else id(gamma), 0 if beta is None else id(beta)
        function, pack = found.train
        done = function(pack(id(x), id(y), id(box), *given, o.eps, *known))
        if not done:
            return None
        if not o.learns_in_kernel or done == UNLEARNED or not self._take(running, box):
            self._learn(Moments.pair(found.count, box), planned, 4)
        self._step = training_.Step((found.count, box), 1.0, 0.0, gamma, beta, y is x, {"x": weakref.ref(x)})
        return y

    def _take(self, before: Running, box: NDArray) -> bool:
        """Keep what a kernel has learned, unless another thread has learned meanwhile."""
        with self._lock:
            if self._running is not before:
                return False
            self._running = lanes.learned(before, box)
        return True

    def _trained(self, engine: backends.Backend, given: Given, y: NDArray, into: bool) -> training_.Step | None:
        """Write the output of a training call and learn from it; what the way back needs, if there is one."""
        o, planned = self._options, self._planned()  # may refuse, and nothing is written yet
        careful = into and ("raise" in (self.nonfinite, self.single) or given.pick.refuse)
        in_two_steps = o.in_two_steps or o.renorm is not None or self._adjustment is not None
        if in_two_steps or careful:
            # A second read, so that `out` is written only once the batch is known to be sound.
            batch = training_.measured(o, engine, given)
            training_.refuse(self._options, batch)
        r: Any = 1.0
        d: Any = 0.0
        if o.in_two_steps:
            by = (batch.mean, batch_var(batch.count, batch.m2, np.inf), batch.count)
            if self.normalize_by == "running":
                known = self._learned(batch, planned, training_.usable(o, batch))
                by = (known.mean, known.var, known.count)
            scale = o.scale(*by, given.gamma)
            verbs.apply(engine, given.x, y, given.axes, by[0], scale, given.beta, o.activation, given.residual)
            self._learn(batch, planned, 4)
            return None
        statistics: list[tuple[Groups | None, Moments]]
        if o.ghost is not None and given.x.size:
            batch, statistics = training_.in_groups(o, engine, given, y)
        else:
            if in_two_steps or careful:
                r, d = training_.corrected(o, engine, given, y, batch, self._running, self._adjustment)
            else:
                gamma = np.ones(self.channels) if given.gamma is None else given.gamma
                batch = verbs.trained(
                    engine,
                    given.x,
                    y,
                    given.axes,
                    gamma,
                    given.beta,
                    self.eps,
                    given.pick,
                    o.activation,
                    given.residual,
                )
                refuse_nan(given.x, given.axes, batch.mean, given.pick)
            statistics = [(None, batch)]
        self._learn(batch, planned, 4)
        return training_.Step(statistics, r, d, given.gamma, given.beta, False, {})
