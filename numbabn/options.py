"""The options of a BatchNorm, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import backends, checks
from .arrays import NDArray, take

POLICIES = ("skip", "raise", "propagate")
UNSET: Any = object()


@dataclass(frozen=True, slots=True)
class Options:
    """How a BatchNorm works, as opposed to what it has learned; see `numbabn.BatchNorm` for each."""

    channels: tuple[int, ...]
    axis: int | tuple[int, ...]
    momentum: float | None
    eps: float
    ddof: float
    nonfinite: str
    backend: str | None

    @classmethod
    def checked(
        cls, channels: Any, axis: Any, momentum: Any, decay: Any, eps: Any, ddof: Any, nonfinite: Any, backend: Any
    ) -> Options:
        """Options from what a caller wrote."""
        shape = _channel_shape(channels)
        return cls(
            channels=shape,
            axis=_axis(axis, len(shape)),
            momentum=_momentum(momentum, decay),
            eps=checks.epsilon(eps),
            ddof=_ddof(ddof),
            nonfinite=checks.choice(nonfinite, "nonfinite", POLICIES),
            backend=None if backend is None else checks.choice(backend, "backend", backends.CHOICES),
        )

    @property
    def average(self) -> str:
        """Which rule the running averages follow."""
        return "cumulative" if self.momentum is None else "exponential"

    def axes_of(self, x: NDArray) -> tuple[int, ...]:
        """The channel axes of x, whose sizes must be those of the channels."""
        axes = checks.channel_axes(self.axis, x.ndim)
        shape = tuple(x.shape[a] for a in axes)
        if shape != self.channels and len(shape) == 1:
            raise ValueError(
                f"`running_mean` has {self.channels[0]} channels but `x` has {shape[0]} along axis {axes[0]}; "
                "give data with as many channels, or make a BatchNorm for them"
            )
        if shape != self.channels:
            raise ValueError(
                f"`running_mean` has shape {self.channels} but the channels of `x` along axes {axes} have shape "
                f"{shape}; give data with these channels, or make a BatchNorm for them"
            )
        return axes

    def parameter(self, value: Any, name: str) -> NDArray:
        """One number for each channel, read-only; a single number stands for all."""
        p, _ = take(value, name)
        if p.shape not in ((), self.channels):
            raise ValueError(
                f"`{name}` has shape {p.shape}; expected one number, or one for each of the channels {self.channels}"
            )
        p = checks.parameter(p, name, self.channels, (0,))
        p.flags.writeable = False
        return p


def _momentum(momentum: Any, decay: Any) -> float | None:
    if decay is not None:
        if momentum is not UNSET:
            raise ValueError(
                f"`momentum` is {momentum!r} and `decay` is {decay!r}; give one of the two: "
                "momentum weighs the new batch, decay the old average"
            )
        return 1 - checks.fraction(decay, "decay")
    if momentum is UNSET:
        return 0.1
    return None if momentum is None else checks.fraction(momentum, "momentum")


def _ddof(value: Any) -> float:
    ddof = checks.number(value, "ddof")
    if ddof not in (0, 1):
        raise ValueError(f"`ddof` is {value!r}; expected 0 (biased) or 1 (unbiased)")
    return ddof


def _channel_shape(channels: Any) -> tuple[int, ...]:
    shape = checks.integers(channels, "channels")
    if any(n < 0 for n in shape):
        raise ValueError(f"`channels` is {channels!r}; expected 0 or more")
    return tuple(shape)


def _axis(axis: Any, needed: int) -> int | tuple[int, ...]:
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    if len(axes) != needed:
        raise ValueError(f"`axis` is {axis!r}, {len(axes)} axes, for channels along {needed}; give one axis for each")
    checks.channel_axes(axis, 64 + max((abs(a) for a in axes if isinstance(a, int)), default=0))
    return tuple(map(int, axes)) if isinstance(axis, (tuple, list)) else int(axes[0])
