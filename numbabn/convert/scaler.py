"""scikit-learn's StandardScaler: its fitted attributes, to and from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..arrays import NDArray
from . import forms
from .forms import T


def to_attributes(bn: Any) -> dict[str, Any]:
    """See `Conversions.to_sklearn_attributes`."""
    forms.one_axis(bn, "scikit-learn")
    for name, value, neutral in (("gamma", bn.gamma, 1), ("beta", bn.beta, 0)):
        if value is not None and (value != neutral).any():
            raise ValueError(
                f"`{name}` is not {neutral} everywhere, and a StandardScaler has none; set it to None first, "
                "or use to_scale_shift()"
            )
    var = bn.running_var
    state = bn.state_dict()
    if bn.ddof and "m2" in state:
        var = np.divide(state["m2"], bn.count, out=np.array(var), where=bn.count > 0)
    with np.errstate(divide="ignore"):
        scale = 1 / forms.inference_scale(bn)
    return {
        "mean_": bn.running_mean.copy(),
        "var_": var.copy(),
        "scale_": scale,
        "n_samples_seen_": _as_sklearn_counts(bn.count),
        "n_features_in_": bn.channels[0],
    }


def put_on(bn: Any, scaler: Any) -> Any:
    """See `Conversions.to_sklearn`."""
    d = to_attributes(bn)
    for flag in ("with_mean", "with_std"):
        if not getattr(scaler, flag, False):
            raise ValueError(
                f"`scaler` is {scaler!r} without {flag}=True, so it would not transform as this BatchNorm does; "
                "give a StandardScaler()"
            )
    for name, value in d.items():
        setattr(scaler, name, value)
    return scaler


def from_fitted(make: Callable[..., T], fitted: Any, options: dict[str, Any]) -> T:
    """See `Conversions.from_sklearn`."""
    d = fitted if isinstance(fitted, Mapping) else _attributes(fitted)
    missing = [name for name in ("mean_", "var_", "n_samples_seen_") if d.get(name) is None]
    if missing:
        raise ValueError(
            f"`fitted` has no {', '.join(missing)}; expected a StandardScaler that has seen data, with_mean and "
            "with_std, or a mapping of its attributes"
        )
    options = {"flavour": "sklearn", **options}
    return forms.built(make, options, d["mean_"], d["var_"], count=d["n_samples_seen_"])


def _attributes(scaler: Any) -> dict[str, Any]:
    for flag in ("with_mean", "with_std"):
        if not getattr(scaler, flag, True):
            raise ValueError(
                f"`fitted` has {flag}=False, and a BatchNorm does both; "
                "use from_scale_shift(scale, shift) with what it multiplies by and adds"
            )
    return {name: getattr(scaler, name, None) for name in ("mean_", "var_", "n_samples_seen_")}


def _as_sklearn_counts(count: NDArray) -> Any:
    """One integer where all channels have seen as many values, as scikit-learn has it, else an array."""
    whole = bool((count == np.floor(count)).all())
    counts = count.astype(np.int64) if whole else count.copy()
    return counts[0] if counts.size and (counts == counts[0]).all() else counts
