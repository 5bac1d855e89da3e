"""The options of a BatchNorm, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from . import activations, arithmetic, averages, backends, checks, flavours, ghost, picks, schedules
from . import renorm as renorms
from .arrays import NDArray, take_values
from .averages import Running
from .flavours import UNSET, Flavour
from .renorm import Renorm
from .schedules import Schedule

POLICIES = ("skip", "raise", "propagate")


@dataclass(frozen=True, slots=True)
class Options:
    """How a BatchNorm works, as opposed to what it has learned; see `numbabn.BatchNorm` for each."""

    channels: tuple[int, ...]
    axis: int | tuple[int, ...]
    momentum: Schedule | None
    average: str
    window: int | None
    eps: float
    ddof: float
    nonfinite: str
    single: str
    constant: str
    normalize_by: str
    prior: tuple[float, float, float]
    nan_policy: str
    activation: tuple[Any, ...] | None
    renorm: Renorm | None
    ghost: tuple[int, str] | None
    flavour: str | None
    backend: str | None
    # What follows from them, and is looked at in every call: whether training uses its batch and refuses nothing of
    # what it finds there; whether a kernel brings the average up to date, by a number.
    plain: bool = field(init=False, compare=False)
    learns_in_kernel: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        plain = (
            self.renorm is None
            and self.ghost is None
            and not self.in_two_steps
            and self.nan_policy == "propagate"
            and self.nonfinite != "raise"
            and self.single == "beta"
        )
        by_number = self.average in ("exponential", "cumulative") and not callable(self.momentum)
        object.__setattr__(self, "plain", plain)
        object.__setattr__(self, "learns_in_kernel", self.renorm is None and by_number)

    @classmethod
    def checked(
        cls,
        channels: Any,
        *,
        flavour: Any,
        momentum: Any,
        decay: Any,
        average: Any,
        window: Any,
        renorm: Any,
        ghost: Any,
        backend: Any,
        **open: Any,
    ) -> Options:
        """Options from what a caller wrote; where one of `open` is UNSET, it is that of the flavour."""
        shape = _channel_shape(channels)
        row = flavours.named(flavour)
        of_row = row.filled(open)
        if open["axis"] is UNSET and row.axis is None:
            of_row["axis"] = tuple(range(1, 1 + len(shape)))
        given = weight(momentum, decay, row)
        average = _average(average, given, row)
        options = cls(
            channels=shape,
            axis=_axis(of_row["axis"], len(shape)),
            momentum=_momentum(given, average, row),
            average=average,
            window=_window(window, average),
            eps=max(checks.epsilon(of_row["eps"]), row.least_eps),
            ddof=_ddof(of_row["ddof"]),
            nonfinite=checks.choice(of_row["nonfinite"], "nonfinite", POLICIES),
            single=checks.choice(of_row["single"], "single", ("beta", "raise")),
            constant=checks.choice(of_row["constant"], "constant", ("normalize", "center")),
            normalize_by=checks.choice(of_row["normalize_by"], "normalize_by", ("batch", "running")),
            prior=_prior(of_row["prior"], average),
            nan_policy=checks.choice(of_row["nan_policy"], "nan_policy", picks.POLICIES),
            activation=activations.checked(of_row["activation"]),
            renorm=renorms.checked(renorm),
            ghost=_ghost(ghost, renorm),
            flavour=flavour,
            backend=None if backend is None else checks.choice(backend, "backend", backends.CHOICES),
        )
        for name, value in (("renorm", options.renorm), ("ghost", options.ghost)):
            if value is not None:
                options.need_the_batch(name, value)
        return options

    def need_the_batch(self, name: str, value: Any) -> None:
        """Refuse an option that corrects what the statistics of a batch give, where they are not what normalizes."""
        if self.in_two_steps:
            other = "normalize_by='running'" if self.normalize_by == "running" else "constant='center'"
            raise ValueError(
                f"`{name}` is {value!r}, which goes with normalization by the statistics of the batch, and {other} "
                "normalizes otherwise; leave one of them out"
            )

    def nothing(self) -> Running:
        """What is known before the first batch."""
        running = averages.start(self.channels, self.average, self.window, self.prior)
        more: dict[str, Any] = {} if self.renorm is None else self.renorm.nothing(self.channels)
        return replace(running, **more)

    def scale(self, mean: NDArray, var: NDArray, count: NDArray | float, gamma: NDArray | None) -> NDArray:
        """What the deviation from the mean is multiplied by."""
        weight = np.ones(self.channels) if gamma is None else gamma
        scale = arithmetic.inverse_std(var, weight, self.eps)
        if self.constant == "center":
            scale = np.where(arithmetic.is_constant(mean, var, count), weight, scale)
        return scale

    @property
    def in_two_steps(self) -> bool:
        """Whether training has to know the statistics before it can normalize by them."""
        return self.constant != "normalize" or self.normalize_by != "batch"

    def factor(self, batches: int) -> float:
        """Weight of the batch that comes after `batches` others; 0 where the rule has no use for one."""
        if type(self.momentum) is float:
            return self.momentum
        return 0.0 if self.momentum is None else schedules.at(self.momentum, batches, "momentum")

    def average_in_words(self) -> str:
        """How it averages, for a repr: no more than it takes to tell it from others."""
        momentum = "None" if self.momentum is None else schedules.words(self.momentum)
        if self.average in ("exponential", "cumulative"):
            return f"momentum={momentum}"
        use = f"window={self.window}" if self.window else f"momentum={momentum}" if self.momentum is not None else ""
        return f"average={self.average!r}" + (f", {use}" if use else "")

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
        p = take_values(value, name)
        if p.shape not in ((), self.channels):
            raise ValueError(
                f"`{name}` has shape {p.shape}; expected one number, or one for each of the channels {self.channels}"
            )
        p = checks.parameter(p, name, self.channels, (0,))
        p.flags.writeable = False
        return p


def weight(momentum: Any, decay: Any, row: Flavour = flavours.OWN) -> Any:
    """The one of the two that was given, as a checked momentum; UNSET where neither was."""
    if decay is not None:
        if momentum is not UNSET:
            raise ValueError(
                f"`momentum` is {momentum!r} and `decay` is {decay!r}; give one of the two: "
                "momentum weighs the new batch, decay the old average"
            )
        return schedules.complement(schedules.checked(decay, "decay"))
    if momentum is UNSET or momentum is None:
        return momentum
    if (row.argument, row.weighs) == ("momentum", "old"):
        raise ValueError(
            f"`momentum` is {momentum!r} with flavour={row.name!r}: here it weighs the new batch, there the old "
            "average; give `decay`, which weighs the old average everywhere"
        )
    return schedules.checked(momentum, "momentum")


def _average(value: Any, momentum: Any, row: Flavour) -> str:
    if value is not None:
        return checks.choice(value, "average", tuple(averages.RULES))
    if momentum is None:
        return row.without_momentum
    return row.average if momentum is UNSET or averages.RULES[row.average].weighs else "exponential"


def _momentum(momentum: Any, average: str, row: Flavour) -> Schedule | None:
    if averages.RULES[average].weighs:
        if momentum is None:
            raise ValueError(
                f"`momentum` is None, but average={average!r} weighs each new batch by it; give a momentum or a decay, "
                "or choose average='cumulative'"
            )
        if momentum is UNSET and row.momentum is None and row.argument:
            raise ValueError(f"flavour={row.name!r} has no default for its {row.argument}; give it as `decay`")
        own = flavours.OWN.momentum if row.momentum is None else row.momentum
        return own if momentum is UNSET else momentum
    if momentum is not UNSET and momentum is not None:
        raise ValueError(
            f"`momentum`, or 1 - `decay`, is {schedules.words(momentum)}, but average={average!r} would ignore it; "
            "leave it out, or choose average='exponential'"
        )
    return None


def _ghost(value: Any, renorm: Any) -> tuple[int, str] | None:
    found = ghost.checked(value)
    if found is not None and renorms.checked(renorm) is not None:
        raise ValueError(
            f"`ghost` is {value!r} and `renorm` is {renorm!r}: each ghost batch would need its own averages; give one"
        )
    return found


def _prior(value: Any, average: str) -> tuple[float, float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise TypeError(f"`prior` is {value!r}; expected (count, mean, var), what is known before the first batch")
    count, mean, var = (checks.number(number, "prior") for number in value)
    if not (np.isfinite([count, mean, var]).all() and count >= 0 and var >= 0):
        raise ValueError(f"`prior` is {value!r}; expected (count, mean, var), finite, count and var 0 or more")
    if count and average != "cumulative":
        raise ValueError(
            f"`prior` counts as {count:g} values, but average={average!r} does not weigh values; "
            "give a count of 0, or choose average='cumulative'"
        )
    return count, mean, var


def _window(window: Any, average: str) -> int | None:
    if average != "window":
        if window is not None:
            raise ValueError(
                f"`window` is {window!r}, but average={average!r} would ignore it; choose average='window'"
            )
        return None
    if window is None:
        raise ValueError("average='window' needs to know how many batches to keep; give window=100, for example")
    sizes = checks.integers(window, "window")
    if isinstance(window, (tuple, list)):
        raise TypeError(f"`window` is {window!r}; expected an int, the number of batches")
    if sizes[0] < 1:
        raise ValueError(f"`window` is {window!r}; expected 1 batch or more")
    return sizes[0]


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
