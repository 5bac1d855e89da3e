"""BatchNorm: running averages and policy around the pure functions; no mathematics of its own."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from . import arithmetic, averages, backends, checks, functional, state, statedict
from .arrays import NDArray
from .averages import Running
from .options import UNSET, Options
from .statistics import Moments, brief


class BatchNorm:
    """Batch normalization with running averages that inference never changes.

    Parameters
    ----------
    channels : int or tuple of int
        How many channels; for several channel axes, the size of each, in the order of the axes of x.
    axis : int or tuple of int, default -1
        The channel axes of x; all others are reduced.
    momentum : float from 0 to 1, or None, default 0.1
        Weight of the new batch in the running averages, in PyTorch's sense. None: the cumulative
        average, in which all values ever seen weigh the same.
    decay : float from 0 to 1, optional
        Weight of the old average, in TensorFlow's sense: ``1 - momentum``. Give one of the two.
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
        axis: int | tuple[int, ...] = -1,
        momentum: float | None = UNSET,
        decay: float | None = None,
        eps: float = 1e-5,
        ddof: float = 0,
        gamma: Any = None,
        beta: Any = None,
        nonfinite: str = "skip",
        backend: str | None = None,
    ) -> None:
        self._options = Options.checked(channels, axis, momentum, decay, eps, ddof, nonfinite, backend)
        self._gamma = self._parameter(gamma, "gamma")
        self._beta = self._parameter(beta, "beta")
        self._running = self._nothing()
        self._lock = threading.Lock()

    # What it is ------------------------------------------------------------------------------------

    @property
    def channels(self) -> tuple[int, ...]:
        """Shape of the channels."""
        return self._options.channels

    @property
    def axis(self) -> int | tuple[int, ...]:
        """The channel axes of x."""
        return self._options.axis

    @property
    def momentum(self) -> float | None:
        """Weight of the new batch; None for the cumulative average."""
        return self._options.momentum

    @property
    def decay(self) -> float | None:
        """Weight of the old average; None for the cumulative average."""
        return None if self.momentum is None else 1 - self.momentum

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        return self._options.eps

    @property
    def ddof(self) -> float:
        """What the divisor of the stored variance is less than the count."""
        return self._options.ddof

    @property
    def nonfinite(self) -> str:
        """What a training batch with NaN or infinity does."""
        return self._options.nonfinite

    @property
    def running_mean(self) -> NDArray:
        """Running mean of each channel."""
        return self._running.mean

    @property
    def running_var(self) -> NDArray:
        """Running variance of each channel."""
        return self._running.var

    @property
    def count(self) -> NDArray:
        """Values seen of each channel."""
        return self._running.count

    @property
    def num_batches(self) -> int:
        """Batches learned from."""
        return self._running.batches

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

    def __call__(self, x: Any, training: Any = False, *, out: Any = None) -> Any:
        """Normalize x: by its own statistics in training, by the running averages in inference.

        Parameters
        ----------
        x : array_like
            As for `numbabn.normalize`.
        training : bool or 0-d boolean array, default False
            Decided at each call. True: normalize by the batch, then update the running averages.
            False: never changes a bit of the state.
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
        training = checks.flag(training, "training")
        engine = backends.select(self._options.backend)
        array, back = checks.data(x)
        axes = self._options.axes_of(array)
        running, gamma, beta = self._running, self._gamma, self._beta
        y, result = functional.destination(out, array, back)
        if not training:
            scale = arithmetic.inverse_std(running.var, 1.0 if gamma is None else gamma, self.eps)
            functional.apply(engine, array, y, axes, running.mean, scale, beta)
            return result()
        weight = np.ones(self.channels) if gamma is None else gamma
        if self.nonfinite == "raise" and out is not None:
            # A second read, so that `out` is written only once the batch is known to be sound.
            batch = functional.measured(engine, array, axes)
            self._refuse(batch)
            scale = arithmetic.inverse_std(_biased(batch), weight, self.eps)
            functional.apply(engine, array, y, axes, batch.mean, scale, beta)
        else:
            batch = functional.trained(engine, array, y, axes, weight, beta, self.eps)
        self._learn(batch)
        return result()

    def update(self, x: Any) -> Moments:
        """Update the running averages by x, without normalizing it.

        Parameters
        ----------
        x : array_like
            As for `numbabn.moments`.

        Returns
        -------
        Moments
            The statistics of x.
        """
        engine = backends.select(self._options.backend)
        array, _ = checks.data(x)
        batch = functional.measured(engine, array, self._options.axes_of(array))
        self._learn(batch)
        return batch

    def merge(self, other: BatchNorm) -> BatchNorm:
        """Take in what `other` has learned, as if its values had been seen here; returns self.

        Cumulative averages merge exactly, in any order. Exponential ones are pooled, each weighed
        by the values it has seen (see `numbabn.averages.pooled`). gamma, beta and the options stay
        those of self.

        Raises
        ------
        ValueError
            If the channels, the kind of average or ddof differ.
        """
        if not isinstance(other, BatchNorm):
            raise TypeError(f"`other` is {type(other).__name__}; expected a BatchNorm")
        for what, mine, its in (
            ("channels", self.channels, other.channels),
            ("average", self._options.average, other._options.average),
            ("ddof", self.ddof, other.ddof),
        ):
            if mine != its:
                raise ValueError(f"`other` has {what} {its} but this BatchNorm has {mine}; merge two of the same")
        theirs = other._running
        with self._lock:
            self._running = averages.pooled(self._running, theirs, self.ddof)
        return self

    def reset(self) -> None:
        """Forget every batch; gamma, beta and the options stay."""
        with self._lock:
            self._running = self._nothing()

    def copy(self) -> BatchNorm:
        """An independent BatchNorm of the same state."""
        twin = BatchNorm(gamma=self._gamma, beta=self._beta, **asdict(self._options))
        twin._running = self._running
        return twin

    # Where it is kept ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What was learned, as copies.

        Returns
        -------
        dict
            running_mean, running_var, count and num_batches; m2 of a cumulative average; gamma and
            beta where there are any.
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

        Examples
        --------
        >>> import numbabn, tempfile, os
        >>> bn = numbabn.BatchNorm(3)
        >>> with tempfile.TemporaryDirectory() as d:
        ...     bn.save(os.path.join(d, "bn.npz"))
        ...     numbabn.BatchNorm.load(os.path.join(d, "bn.npz")) == bn
        True
        """
        running = self._running
        config = asdict(self._options) | {"num_batches": running.batches}
        state.save(path, "batchnorm", config, statedict.arrays(running, self._gamma, self._beta))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BatchNorm:
        """The BatchNorm that `save` wrote to `path`.

        Raises
        ------
        StateError
            If the file is anything else: truncated, altered, of a later version, not ours.
        OSError
            If it cannot be opened.
        """
        config, arrays = state.load(path, "batchnorm")
        try:
            batches = config.pop("num_batches")
            # JSON has lists where there were tuples.
            options: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in config.items()}
            bn = cls(**options)
            bn.load_state_dict(arrays | {"num_batches": batches})
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
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, d: dict[str, Any]) -> None:
        self.__dict__.update(d)
        self._gamma, self._beta = (
            self._parameter(p, name) for name, p in (("gamma", d["_gamma"]), ("beta", d["_beta"]))
        )
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        channels = self.channels[0] if len(self.channels) == 1 else self.channels
        running = self._running
        learned = "nothing learned yet"
        if running.batches:
            values = np.unique(running.count)
            seen = f"{values[0]:,.0f}" if values.size == 1 else f"{values[0]:,.0f} to {values[-1]:,.0f}"
            learned = (
                f"{running.batches:,} batch{'es' * (running.batches != 1)}, {seen} values per channel, "
                f"mean {brief(running.mean)}, std {brief(np.sqrt(running.var))}"
            )
        momentum = "None" if self.momentum is None else f"{self.momentum:g}"
        return f"<BatchNorm({channels}, axis={self.axis}, momentum={momentum}, eps={self.eps:g}): {learned}>"

    # How -------------------------------------------------------------------------------------------

    def _nothing(self) -> Running:
        return averages.start(self.channels, self.momentum is None)

    def _parameter(self, value: Any, name: str) -> NDArray | None:
        return None if value is None else self._options.parameter(value, name)

    def _learn(self, batch: Moments) -> None:
        """Update the running averages, by the policy for values that are not finite."""
        if batch.count == 0:
            return
        usable = np.full(self.channels, True)
        bad = _nonfinite(batch)
        if bad.any():
            if self.nonfinite == "raise":
                self._refuse(batch)
            if self.nonfinite == "skip":
                usable &= ~bad
                warnings.warn(
                    f"the batch has NaN or infinity {checks.in_channels(bad)}; their running averages are left alone",
                    RuntimeWarning,
                    stacklevel=3,
                )
        with self._lock, np.errstate(invalid="ignore", over="ignore"):
            old = self._running
            if self.momentum is None:
                new = averages.cumulative(old, batch, self.ddof)
            else:
                new = averages.exponential(old, batch, self.momentum, self.ddof)
            self._running = averages.where(usable, new, old)

    def _refuse(self, batch: Moments) -> None:
        bad = _nonfinite(batch)
        if bad.any():
            raise ValueError(
                f"the batch has NaN or infinity {checks.in_channels(bad)}; clean it, or choose nonfinite='skip'"
            )


def _nonfinite(batch: Moments) -> NDArray:
    return np.asarray(~(np.isfinite(batch.mean) & np.isfinite(batch.m2)))


def _biased(batch: Moments) -> NDArray:
    return np.asarray(batch.m2 / max(batch.count, 1.0))
