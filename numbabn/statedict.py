"""The names under which a BatchNorm's state is known: state_dict and the arrays of a file."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import checks
from .arrays import NDArray
from .averages import Running
from .options import Options


def arrays(running: Running, gamma: NDArray | None, beta: NDArray | None) -> dict[str, NDArray]:
    """Every array there is, by its name."""
    named = {
        "running_mean": running.mean,
        "running_var": running.var,
        "count": running.count,
        "m2": running.m2,
        "gamma": gamma,
        "beta": beta,
    }
    return {name: a for name, a in named.items() if a is not None}


def checked(d: Mapping[str, Any], options: Options) -> tuple[Running, NDArray | None, NDArray | None]:
    """(running, gamma, beta) from the names of `state_dict`, or a refusal."""
    names = ["running_mean", "running_var", "count"] + ["m2"] * (options.momentum is None)
    needed = {*names, "num_batches"}
    missing, unknown = needed - set(d), set(d) - needed - {"gamma", "beta"}
    if missing or unknown:
        what = f"lacks {', '.join(sorted(missing))}" if missing else f"has unknown {', '.join(sorted(unknown))}"
        raise ValueError(f"the state {what}; expected {', '.join(sorted(needed))}, and gamma, beta where there are any")
    for name in names:
        if np.shape(d[name]) != options.channels:
            raise ValueError(f"`{name}` has shape {np.shape(d[name])} but the channels have shape {options.channels}")
    p = {name: options.parameter(d[name], name) for name in names}
    for name in names[1:]:
        if (p[name] < 0).any():
            raise ValueError(f"`{name}` is negative {checks.in_channels(p[name] < 0)}; expected 0 or more")
    if not np.isfinite(p["count"]).all():
        raise ValueError("`count` is not finite; expected a number of values")
    try:
        batches = operator.index(d["num_batches"])
    except TypeError:
        raise TypeError(f"`num_batches` is {d['num_batches']!r}; expected an int") from None
    if batches < 0:
        raise ValueError(f"`num_batches` is {batches}; expected 0 or more")
    gamma, beta = (None if d.get(name) is None else options.parameter(d[name], name) for name in ("gamma", "beta"))
    return Running(batches, p["count"], p["running_mean"], p["running_var"], p.get("m2")), gamma, beta
