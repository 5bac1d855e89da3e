"""The names under which a BatchNorm is known outside: those of state_dict, and what a file holds."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from . import averages, checks
from .arrays import NDArray
from .averages import Running
from .flavours import UNSET
from .options import Options

NAMES = {field: field for field in averages.ARRAYS} | {"mean": "running_mean", "var": "running_var"}
SCHEDULE = "schedule"  # in a file, in place of a momentum that is a function or a sequence
FACTORS = "factors"  # the array that holds such a sequence


def arrays(running: Running, gamma: NDArray | None, beta: NDArray | None) -> dict[str, NDArray]:
    """Every array there is, by its name."""
    named = {NAMES[field]: a for field, a in running.arrays().items()}
    return named | {name: a for name, a in (("gamma", gamma), ("beta", beta)) if a is not None}


def checked(d: Mapping[str, Any], options: Options) -> tuple[Running, NDArray | None, NDArray | None]:
    """(running, gamma, beta) from the names of `state_dict`, or a refusal."""
    wanted = options.nothing().arrays()
    needed = {*(NAMES[field] for field in wanted), "num_batches"}
    missing, unknown = needed - set(d), set(d) - needed - {"gamma", "beta"}
    if missing or unknown:
        what = f"lacks {', '.join(sorted(missing))}" if missing else f"has unknown {', '.join(sorted(unknown))}"
        raise ValueError(
            f"the state {what}; expected {', '.join(sorted(needed))} for average={options.average!r}, "
            "and gamma, beta where there are any"
        )
    learned = {field: _array(d[NAMES[field]], NAMES[field], a.shape, options.channels) for field, a in wanted.items()}
    try:
        batches = operator.index(d["num_batches"])
    except TypeError:
        raise TypeError(f"`num_batches` is {d['num_batches']!r}; expected an int") from None
    if batches < 0:
        raise ValueError(f"`num_batches` is {batches}; expected 0 or more")
    gamma, beta = (None if d.get(name) is None else options.parameter(d[name], name) for name in ("gamma", "beta"))
    return Running(batches, **learned), gamma, beta


def saved(
    options: Options, running: Running, gamma: NDArray | None, beta: NDArray | None
) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """(config, arrays) for a file; a momentum that is a function is only mentioned."""
    config = {f.name: getattr(options, f.name) for f in fields(options) if f.init} | {"num_batches": running.batches}
    config["renorm"] = None if options.renorm is None else options.renorm.config()
    named = arrays(running, gamma, beta)
    if isinstance(options.momentum, tuple):
        named[FACTORS] = np.array(options.momentum)
    if isinstance(options.momentum, tuple) or callable(options.momentum):
        config["momentum"] = SCHEDULE
    return config, named


def restored(
    config: Mapping[str, Any], named: Mapping[str, NDArray], momentum: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(options, state) from what `saved` gave; `momentum` is the function that no file holds, or UNSET."""
    # JSON has lists where there were tuples.
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    d: dict[str, Any] = {name: a for name, a in named.items() if name != FACTORS}
    d["num_batches"] = options.pop("num_batches")
    mentioned = options.get("momentum") == SCHEDULE and FACTORS not in named
    if mentioned and momentum is UNSET:
        raise ValueError(
            "its momentum is a function, which no file holds; give it again: BatchNorm.load(path, momentum=f), "
            "or decay=f if it was that"
        )
    if not mentioned and momentum is not UNSET:
        raise ValueError("it holds its own momentum; leave `momentum` and `decay` out")
    if mentioned:
        options["momentum"] = momentum
    elif FACTORS in named:
        options["momentum"] = tuple(named[FACTORS].tolist())
    return options, d


def _array(value: Any, name: str, shape: tuple[int, ...], channels: tuple[int, ...]) -> NDArray:
    """An array of what was learned, read-only, that can have come from an average."""
    if np.shape(value) != shape:
        raise ValueError(f"`{name}` has shape {np.shape(value)}; expected {shape}, for channels of shape {channels}")
    a = checks.parameter(value, name, shape, (0,))
    if not name.endswith("mean") and (a < 0).any():
        bad = np.asarray((a < 0).reshape(-1, *channels).any(axis=0))
        raise ValueError(f"`{name}` is negative {checks.in_channels(bad)}; expected 0 or more")
    if name.endswith(("count", "batches")) and not np.isfinite(a).all():
        raise ValueError(f"`{name}` is not finite; expected a number of values")
    if name.endswith("weight") and not (a <= 1).all():
        raise ValueError(f"`{name}` is not from 0 to 1; expected a share of 1")
    a.flags.writeable = False
    return a
