"""The names and shapes under which other systems keep what a BatchNorm learned: plain arrays both ways.

`bn` is a BatchNorm and `make` its class, which lie above this room.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from .. import checks
from ..arrays import NDArray, take_values

T = TypeVar("T")


def parameters(bn: Any, dtype: Any, gamma: str, beta: str, mean: str, var: str) -> dict[str, NDArray]:
    """gamma and beta where there are any, mean and variance: copies under the names of a system."""
    kept = {gamma: bn.gamma, beta: bn.beta, mean: bn.running_mean, var: bn.running_var}
    kind = np.dtype(dtype)
    if not checks.is_float(kind):
        raise TypeError(f"`dtype` is {kind}; expected {checks.FLOATS}")
    return {name: np.array(a, dtype=kind) for name, a in kept.items() if a is not None}


def one_axis(bn: Any, system: str) -> None:
    """Refuse several channel axes, for which a system has no form."""
    if len(bn.channels) != 1:
        raise ValueError(
            f"the channels have shape {bn.channels}, and {system} has one channel axis; "
            "use state_dict(), to_scale_shift() or to_onnx(), which take several"
        )


def selected(d: Any, prefix: str, names: Mapping[str, bool], system: str) -> dict[str, Any]:
    """What a mapping has under the names, after the prefix; `names` says of each whether it must be there."""
    if not isinstance(d, Mapping):
        raise TypeError(f"the {system} state is {type(d).__name__}; expected a mapping of names to arrays")
    inside = {name[len(prefix) :]: a for name, a in d.items() if isinstance(name, str) and name.startswith(prefix)}
    missing = [name for name, needed in names.items() if needed and name not in inside]
    unknown = sorted(set(inside) - set(names))
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(map(repr, unknown[:5]))}"
        raise ValueError(
            f"the {system} state {what}; expected {', '.join(names)}: if it is that of a whole model, say which layer"
        )
    return inside


def built(
    make: Callable[..., T],
    options: dict[str, Any],
    mean: Any,
    var: Any,
    gamma: Any = None,
    beta: Any = None,
    batches: Any = 1,
    count: Any = None,
) -> T:
    """A new BatchNorm that has learned mean and var."""
    mean, var = (take_values(a, name) for a, name in ((mean, "running_mean"), (var, "running_var")))
    batches = whole(batches, "num_batches")
    made = make(mean.shape, **options)
    bn: Any = made
    count = checks.parameter(batches if count is None else count, "count", mean.shape, (0,))
    known = {
        "running_mean": mean,
        "running_var": var,
        "count": count,
        "num_batches": batches,
        "m2": np.asarray(var, dtype=np.float64) * np.maximum(count - bn.ddof, np.minimum(count, 1)),
        "weight": np.full(mean.shape, float(batches > 0)),
        "channel_batches": np.full(mean.shape, float(batches)),
    }
    wanted = set(bn.state_dict()) - {"gamma", "beta"}
    if wanted - set(known):
        raise ValueError(
            f"average={bn.average!r} needs {', '.join(sorted(wanted - set(known)))}, which other systems do not keep; "
            "choose another average"
        )
    learned = {name: known[name] for name in wanted}
    bn.load_state_dict(learned | {"gamma": gamma, "beta": beta})
    return made


def whole(value: Any, name: str) -> int:
    """A number of batches, perhaps in a 0-d array of any library."""
    if hasattr(value, "__dlpack__") or hasattr(value, "__array__"):
        array = take_values(value, name)
        value = array.item() if array.size == 1 else value
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` is {value!r}; expected an int") from None


def to_torch_state_dict(bn: Any, prefix: str, dtype: Any) -> dict[str, NDArray]:
    """See `Conversions`, as for all of these."""
    one_axis(bn, "torch")
    d = parameters(bn, dtype, "weight", "bias", "running_mean", "running_var")
    d["num_batches_tracked"] = np.array(bn.num_batches, dtype=np.int64)
    return {prefix + name: a for name, a in d.items()}


def from_torch_state_dict(make: Callable[..., T], d: Any, prefix: str, count: Any, options: dict[str, Any]) -> T:
    names = {"running_mean": True, "running_var": True, "weight": False, "bias": False, "num_batches_tracked": False}
    found = selected(d, prefix, names, "torch")
    batches = found.get("num_batches_tracked", 1)
    options = {"flavour": "torch", **options}
    mean, var, weight, bias = (found.get(name) for name in ("running_mean", "running_var", "weight", "bias"))
    return built(make, options, mean, var, weight, bias, batches, count)


def to_keras_weights(bn: Any, scale: bool | None, center: bool | None, dtype: Any) -> list[NDArray]:
    one_axis(bn, "keras")
    d = parameters(bn, dtype, "gamma", "beta", "moving_mean", "moving_variance")
    for flag, name, wanted, neutral in (("scale", "gamma", scale, 1), ("center", "beta", center, 0)):
        if wanted is None:
            continue
        if checks.flag(wanted, flag):
            d.setdefault(name, np.full(bn.channels, neutral, dtype=dtype))
        elif (np.asarray(d.pop(name, neutral)) != neutral).any():
            raise ValueError(f"`{flag}` is False, but `{name}` is not {neutral} everywhere; a layer without it differs")
    return [d[name] for name in ("gamma", "beta", "moving_mean", "moving_variance") if name in d]


def from_keras_weights(
    make: Callable[..., T], weights: Any, scale: bool, center: bool, batches: Any, count: Any, options: dict[str, Any]
) -> T:
    names = ["gamma"] * checks.flag(scale, "scale") + ["beta"] * checks.flag(center, "center")
    names += ["moving_mean", "moving_variance"]
    given = list(weights)
    if len(given) != len(names):
        raise ValueError(
            f"there are {len(given)} weights; expected {len(names)} with scale={scale} and center={center}: "
            f"{', '.join(names)}; set the flags as the layer has them"
        )
    d = dict(zip(names, given, strict=True))
    options = {"flavour": "keras", **options}
    mean, var, gamma, beta = (d.get(name) for name in ("moving_mean", "moving_variance", "gamma", "beta"))
    return built(make, options, mean, var, gamma, beta, batches, count)


def to_flax_variables(bn: Any, dtype: Any) -> dict[str, dict[str, NDArray]]:
    d = parameters(bn, dtype, "scale", "bias", "mean", "var")
    return {
        "params": {name: d[name] for name in ("scale", "bias") if name in d},
        "batch_stats": {name: d[name] for name in ("mean", "var")},
    }


def from_flax_variables(make: Callable[..., T], d: Any, batches: Any, count: Any, options: dict[str, Any]) -> T:
    collections = selected(d, "", {"batch_stats": True, "params": False}, "flax")
    learned = selected(collections["batch_stats"], "", {"mean": True, "var": True}, "flax")
    params = selected(collections.get("params", {}), "", {"scale": False, "bias": False}, "flax")
    options = {"flavour": "flax", **options}
    return built(
        make, options, learned["mean"], learned["var"], params.get("scale"), params.get("bias"), batches, count
    )


def to_tf_variables(bn: Any, scope: str, dtype: Any) -> dict[str, NDArray]:
    one_axis(bn, "tf.contrib")
    d = parameters(bn, dtype, "gamma", "beta", "moving_mean", "moving_variance")
    return {f"{scope}/{name}" if scope else name: a for name, a in d.items()}


def from_tf_variables(
    make: Callable[..., T], d: Any, scope: str, batches: Any, count: Any, options: dict[str, Any]
) -> T:
    if isinstance(d, Mapping):
        d = {name.removesuffix(":0") if isinstance(name, str) else name: a for name, a in d.items()}
    names = {"moving_mean": True, "moving_variance": True, "gamma": False, "beta": False}
    found = selected(d, f"{scope}/" if scope else "", names, "tf.contrib")
    options = {"flavour": "tf_contrib", **options}
    mean, var, gamma, beta = (found.get(name) for name in names)
    return built(make, options, mean, var, gamma, beta, batches, count)


def to_scale_shift(bn: Any) -> tuple[NDArray, NDArray]:
    scale = inference_scale(bn)
    shift = -bn.running_mean * scale
    return scale, shift if bn.beta is None else shift + bn.beta


def from_scale_shift(make: Callable[..., T], scale: Any, shift: Any, options: dict[str, Any]) -> T:
    shape = np.broadcast_shapes(take_values(scale, "scale").shape, take_values(shift, "shift").shape)
    if not shape:
        raise ValueError("`scale` and `shift` are single numbers; give one for each channel: np.full(channels, scale)")
    return make(shape, **{"eps": 0.0, **options}, gamma=scale, beta=shift)


def inference_scale(bn: Any) -> NDArray:
    """What inference multiplies the deviation from the running mean by."""
    scale: NDArray = bn._options.scale(bn.running_mean, bn.running_var, bn.count, bn.gamma)
    return scale
