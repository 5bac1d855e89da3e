"""The arguments of `batch_norm`, checked, and what follows from them: the variables, and which variance is stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from . import moving
from .draft import Spec
from .updates import GraphKeys

FUSED_EPSILON = 1.001e-5  # what cuDNN asks for at least, and tf.nn.fused_batch_norm silently raised epsilon to
DEFAULTS = {"beta": 0.0, "gamma": 1.0, "moving_mean": 0.0, "moving_variance": 1.0}
CLIPS = {"rmin": 0.0, "rmax": math.inf, "dmax": math.inf}


@dataclass(slots=True)
class Plan:
    """The arguments that the arithmetic depends on, checked."""

    decay: float
    center: bool
    scale: bool
    zero_debias: bool
    renorm_decay: float | None
    clips: Mapping[str, Any]
    adjustment: Callable[[tuple[int, ...]], tuple[Any, Any]] | None
    weights: Any
    updates: tuple[str, ...] | None
    fused: bool = False
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.adjustment is not None and not callable(self.adjustment):
            raise TypeError(f"`adjustment` is {self.adjustment!r}; expected a callable that gives (scale, bias)")

    @property
    def rule(self) -> moving.Rule:
        """How the moving statistics will move."""
        return moving.Rule(self.decay, self.zero_debias, self.renorm_decay, self.epsilon)


def specs(
    plan: Plan,
    channels: int,
    trainable: bool,
    training: bool,
    initializers: Mapping[str, Any],
    regularizers: Mapping[str, Any],
    listed: Any,
) -> dict[str, Spec]:
    """The variables of a call, in the order of the original."""
    model = (GraphKeys.GLOBAL_VARIABLES, GraphKeys.MODEL_VARIABLES)
    learned = (*model, GraphKeys.TRAINABLE_VARIABLES) if trainable else model
    by_name = known(listed, "variables_collections", DEFAULTS) if isinstance(listed, Mapping) else None
    made = {}
    for name, start in DEFAULTS.items():
        if (name == "beta" and not plan.center) or (name == "gamma" and not plan.scale):
            continue
        regularizer = regularizers.get(name)
        if regularizer is not None and not callable(regularizer):
            raise TypeError(f"`param_regularizers[{name!r}]` is {regularizer!r}; expected a callable that gives a loss")
        names = listed if by_name is None else by_name.get(name)
        made[name] = Spec(
            (channels,),
            start if initializers.get(name) is None else initializers[name],
            learned if name in ("beta", "gamma") else model,
            () if names is None else collections(names, "variables_collections"),
            regularizer,
        )
    for name, shape in plan.rule.shadows((channels,)).items():
        into = model if name.startswith("renorm") else (GraphKeys.GLOBAL_VARIABLES,)
        made[name] = Spec(shape, 0.0, into, needed=training)
    return made


def is_fused(fused: Any, ndim: int, plan: Plan) -> bool:
    """Whether the original would take its fused operation, which stores the unbiased variance.

    It has two ways there: `_fused_batch_norm` for two and four dimensions, and the core layer for four and five, which
    knows neither other collections nor the debiased mean (tf_slim 1.1.0 with TensorFlow 2).
    """
    wanted = None if fused is None else checks.flag(fused, "fused")
    plain = plan.updates == (GraphKeys.UPDATE_OPS,) and not plan.zero_debias
    against = [
        what
        for what, there in (
            ("batch_weights", plan.weights is not None),
            ("renorm", plan.renorm_decay is not None),
            ("adjustment", plan.adjustment is not None),
        )
        if there
    ]
    if wanted and against:
        raise ValueError(f"`fused` is True, which does not go with {' and '.join(against)}; give fused=False or None")
    if wanted and ndim not in ((2, 4, 5) if plain else (2, 4)):
        raise ValueError(
            f"`fused` is True but `inputs` has {ndim} dimensions; expected 2 or 4 (or 5, with the default "
            "`updates_collections` and without `zero_debias_moving_mean`): give fused=False or None"
        )
    return wanted is not False and not against and (ndim in (2, 4) or (ndim == 5 and plain))


def channel_axis(data_format: Any, shape: tuple[int, ...]) -> int:
    """Which axis of an array of this shape the channels lie along."""
    if data_format not in ("NHWC", "NCHW"):
        raise ValueError(
            f"`data_format` is {data_format!r}; expected 'NHWC' (channels along the last axis) or 'NCHW' (along the "
            "second), for any number of dimensions"
        )
    if len(shape) < 2:
        raise ValueError(
            f"`inputs` has shape {shape}; expected two dimensions or more, of which the first is the batch: "
            "try `inputs[np.newaxis]`"
        )
    return 1 if data_format == "NCHW" else len(shape) - 1


def not_negative(value: Any) -> float:
    """`epsilon` as a number."""
    epsilon = checks.number(value, "epsilon")
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"`epsilon` is {epsilon}; expected a finite number, 0 or more, that is added to the variance")
    return epsilon


def sample_weights(weights: Any, shape: tuple[int, ...]) -> Any:
    """`batch_weights`, one for each sample; their values are checked where they are used."""
    if weights is not None and np.shape(weights) != shape[:1]:
        raise ValueError(
            f"`batch_weights` has shape {np.shape(weights)}; expected one weight for each sample, shape {shape[:1]}"
        )
    return weights


def clipping(clips: Mapping[str, Any]) -> list[float]:
    """rmin, rmax and dmax as they are now."""
    limits = {}
    for name, without in CLIPS.items():
        value = clips.get(name)
        value = value() if callable(value) else value
        limits[name] = without if value is None else checks.number(value, f"renorm_clipping[{name!r}]")
    if not limits["rmin"] <= limits["rmax"] or not limits["dmax"] >= 0:
        raise ValueError(f"`renorm_clipping` is {limits}; expected rmin at most rmax, and dmax 0 or more")
    return list(limits.values())


def known(given: Any, name: str, keys: Iterable[str]) -> Mapping[str, Any]:
    """A dict with no other keys than these; an empty one for None."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"`{name}` is {given!r}; expected a dict with keys out of {', '.join(keys)}")
    unknown = [key for key in given if key not in keys]
    if unknown:
        raise ValueError(f"`{name}` has the key {unknown[0]!r}; expected keys out of {', '.join(keys)}")
    return given


def collections(names: Any, argument: str) -> tuple[str, ...]:
    """The names of collections that one argument gives."""
    several = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Iterable) else (names,)
    if not all(isinstance(name, str) for name in several):
        raise TypeError(f"`{argument}` is {names!r}; expected the name of a collection, or several")
    if not several:
        raise ValueError(f"`{argument}` is empty; name a collection, or give None")
    return several
